"""PPO on whole trials (Schulman et al. 2017, arXiv:1707.06347), which RL2, VariBAD and teachers share.

    A_t = GAE over the whole trial: episode boundaries do not cut it, the trial's end does
    repeat epochs times, for every minibatch of whole trials (of single steps, where no memory is trained):
        loss = -mean min(r A, clip(r, 1 - eps, 1 + eps) A) + c_v (V - return)^2 - c_e entropy
        Adam step on its gradient, clipped

Advantages and the value's targets are centred at every step of the trial over the trials of the batch: what
follows a step depends first of all on how much of the trial is left, and the value network need not learn that.
On bandits (n=100, k=5, equal time) centring the advantages raised the mean reward from 74.9 to 75.4, and centring
both to 77.2. Advantages are centred on the mean of the other trials; a trial that is alone at a step is measured
against the value network only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from metarl.agent import AgentConfig, Collector
from metarl.agents.trials.actor import TrialActor
from metarl.agents.trials.batch import (
    TrialBatch,
    baseline,
    centre_over_others,
    check_finite,
    raise_not_finite,
    root_mean_square,
)
from metarl.agents.trials.network import Decision, TrialNetwork, TrialNetworkConfig
from metarl.executors.divided import DividedCollector
from metarl.learning.adaptation_metrics import adaptation_metrics
from metarl.learning.advantages import gae
from metarl.learning.failures import unchanged_on_failure
from metarl.learning.losses import clipped_surrogate
from metarl.learning.reward_scale import RunningUnit
from metarl.learning.schedules import geometric, linear, set_step_size
from metarl.learning.trials import as_trials
from metarl.nets.distributions import TanhGaussian
from metarl.runs import parallel
from metarl.runs.configs import (
    MOST_REPEATS,
    MOST_TASKS,
    check_counts,
    check_fraction,
    check_not_negative,
    check_positive,
)
from metarl.runs.seeding import draw_seed, torch_generator
from metarl.tasks import Task, TaskEnv
from metarl.trajectories import Trajectories

_TINY = 1e-30  # keeps a scale of zero out of divisions


@dataclass(frozen=True)
class TrialPpoConfig(AgentConfig):
    """Hyperparameters of PPO on trials. Names that begin with final_ are values at the end of annealing.

    Attributes:
        policy: Network of the policy.
        num_episodes: Number of episodes in a trial.
        objective: Sum over a trial that is maximised: "reward", or minus the "regret" that the environment reports
            at every step in its infos, as bandits and tabular MDPs do. The undiscounted sums differ, in
            expectation, by what the best actions earn in the task, whatever the policy does.
        gain_units: Units of what is maximised: "common" to all tasks, or a running standard deviation for each
            "family" of tasks, so that all of Meta-World's environments weigh alike, whose rewards differ a
            hundredfold. The policy does not observe these units: its rewards are in common ones.
        gamma: Discount per environment step, through the whole trial, in [0, 1].
        final_gamma: Discount at the end of the run, reached linearly; None for no change.
        gae_lambda: Weight of longer advantage estimates, in [0, 1]; 1 gives Monte-Carlo returns.
        final_gae_lambda: Weight of longer advantage estimates at the end of the run, reached linearly; None for no
            change.
        outer_lr: Adam step size.
        final_outer_lr: Adam step size at the end of the run, reached linearly; None for no change.
        entropy_coef: Weight c_e of the entropy bonus.
        final_entropy_coef: Weight of the entropy bonus at the end of the run; None for no change.
        entropy_schedule: Shape of the annealing of the entropy bonus: "linear", or "geometric" by equal
            factors.
        epochs: Passes over the trials of an iteration.
        minibatches: Adam steps per pass.
        clip_ratio: PPO's clip ratio eps of the likelihood ratio.
        value_coef: Weight c_v of the value loss.
        max_grad_norm: Norm to which longer gradients are shortened.
        backprop_steps: Steps of the trial that gradients flow through at a time; None for all. Values are the same
            either way; memory and the reach of the gradient are not.
    """

    policy: TrialNetworkConfig = field(default_factory=TrialNetworkConfig)
    num_episodes: int = 2
    objective: Literal["reward", "regret"] = "reward"
    gain_units: Literal["common", "family"] = "common"
    gamma: float = 0.99
    final_gamma: float | None = None
    gae_lambda: float = 0.3
    final_gae_lambda: float | None = None
    outer_lr: float = 3e-3
    final_outer_lr: float | None = None
    entropy_coef: float = 0.01
    final_entropy_coef: float | None = None
    entropy_schedule: Literal["linear", "geometric"] = "linear"
    epochs: int = 4
    minibatches: int = 4
    clip_ratio: float = 0.2
    value_coef: float = 0.5
    max_grad_norm: float = 1.0
    backprop_steps: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "num_episodes", "minibatches", most=MOST_TASKS)
        check_counts(self, "epochs", most=MOST_REPEATS)
        check_counts(self, "backprop_steps")
        check_fraction(self, "gamma", "gae_lambda")
        check_positive(self, "outer_lr", "clip_ratio", "max_grad_norm")
        check_not_negative(self, "entropy_coef", "value_coef")
        check_not_negative(self, "final_outer_lr", "final_entropy_coef", optional=True)
        check_fraction(self, "final_gamma", "final_gae_lambda", optional=True)
        ends = (self.entropy_coef, self.final_entropy_coef)
        if self.entropy_schedule == "geometric" and not all(ends):
            raise ValueError(
                "a geometric schedule needs an entropy_coef and a final_entropy_coef above zero, "
                f"got {ends[0]} and {ends[1]}"
            )


Policy = TypeVar("Policy", bound=TrialNetwork)
Config = TypeVar("Config", bound=TrialPpoConfig)


class TrialPpo(Generic[Policy, Config]):
    """An agent that trains its policy by PPO on trials; see `metarl.agent.Agent`.

    Args:
        policy: Untrained network.
        env: Environment of the family, read for its time limit.
        config: Hyperparameters.
        iterations: Number of updates of the whole run, for annealing.
        seed: Seed of the order of minibatches.
        device: Device of the network and the losses; acting is on the CPU.
    """

    algorithm: ClassVar[str]
    """Name of the algorithm, for messages."""

    def __init__(
        self,
        policy: Policy,
        env: TaskEnv,
        config: Config,
        *,
        iterations: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.config, self.policy = config, policy
        policy.to(device)
        self._reinforced = policy.reinforced()
        self.optimizer = torch.optim.Adam(self._reinforced, lr=config.outer_lr, eps=1e-5)
        self.iterations, self.updates = iterations, 0
        # The value head's units: V_t = value_mean[t] + value_scale * output; zeros as long as no reward is known.
        self.value_mean = torch.zeros(env.max_episode_steps * config.num_episodes, device=device)
        self.value_scale = torch.zeros((), device=device)
        self._gain_units: dict[str, RunningUnit] = {}  # by family
        self._shuffling = torch_generator(seed)
        self._device = device

    def actor(self) -> TrialActor:
        """An actor at the start of its trials."""
        return TrialActor(self.policy)

    def collect(self, collector: Collector, tasks: Sequence[Task], rng: np.random.Generator) -> Trajectories:
        """One trial per task."""
        return DividedCollector(collector).collect(self.actor(), tasks, self.config.num_episodes, draw_seed(rng))

    def update(self, experience: Trajectories) -> dict[str, float]:
        """PPO on the trials; an update that fails leaves the agent as it was.

        Raises:
            FloatingPointError: if the experience or a loss is not finite, naming the task.
        """
        with unchanged_on_failure(self):
            return self._learn(experience)

    def _learn(self, experience: Trajectories) -> dict[str, float]:
        """An update that may fail halfway; its metrics by name."""
        batch = self.batch(experience)
        losses = self._descend(batch, experience.tasks)
        self.policy.see(batch.trials)
        self.updates += 1
        return losses | trial_metrics(experience)

    def _descend(self, batch: TrialBatch, tasks: Sequence[Task]) -> dict[str, float]:
        """All Adam steps of an update; mean losses by name."""
        config = self.config
        set_step_size(self.optimizer, self._now(config.outer_lr, config.final_outer_lr))
        sums = torch.zeros(4, device=self._device)
        # Without a memory the steps of a trial need not stay together, and minibatches of steps from all tasks are
        # less alike than those of a few tasks' trials.
        rows = batch if self.policy.remembers else batch.single_steps()
        steps = 0
        for _ in range(config.epochs):
            order = torch.randperm(rows.advantages.shape[1], generator=self._shuffling).to(self._device)
            for chosen in order.chunk(config.minibatches):
                sums += self.step(rows.map(partial(torch.index_select, dim=1, index=chosen)), tasks)
                steps += 1
        names = ("loss/policy", "loss/value", "policy/entropy", "policy/kl")
        return dict(zip(names, (sums / steps).tolist(), strict=True))

    def batch(self, experience: Trajectories) -> TrialBatch:
        """Inputs, advantages and value targets of the trials; takes the value's new units."""
        check_finite(experience)
        # In float64 and on the CPU, where the experience is: finite rewards of any size have finite squares.
        trials = as_trials(replace(experience, records=experience.records | {"gain": self.gains(experience)}))
        time, mask = len(trials.rewards), trials.mask.double()
        known = self.value_mean[:time].cpu().double().unsqueeze(1)
        values = (known + float(self.value_scale) * trials.records["value"]) * mask
        gains = self._in_units(trials.records["gain"].double() * mask, mask, experience.tasks)
        # Nothing follows a trial: the value after its last step is zero, as is that of padding.
        following = torch.nn.functional.pad(values.T, (0, 1))
        going = torch.zeros_like(trials.mask.T)
        gamma = self._now(self.config.gamma, self.config.final_gamma)
        gae_lambda = self._now(self.config.gae_lambda, self.config.final_gae_lambda)
        advantages = gae(gains.T, following, going, gamma=gamma, gae_lambda=gae_lambda).T * mask
        returns = advantages + values
        mean = baseline(returns, mask, known)
        residuals = (returns - mean) * mask
        unit = 1e-3 * root_mean_square(gains, mask)  # of an epsilon that scales with the rewards
        scale = max(root_mean_square(residuals, mask) + unit, _TINY)
        self.value_mean[:time] = mean.squeeze(1)
        self.value_scale.fill_(scale)
        advantages = centre_over_others(advantages, mask)
        advantages = advantages / max(root_mean_square(advantages, mask), _TINY)
        trials = trials.map(lambda part: part.to(self._device))
        return TrialBatch(
            trials=trials,
            inputs=self.policy.trial_inputs(trials),
            advantages=advantages.float().to(self._device),
            targets=(residuals / scale).float().to(self._device),
            task_indices=torch.arange(mask.shape[1]).expand(mask.shape).to(self._device),
        )

    def _in_units(self, gains: Tensor, mask: Tensor, tasks: Sequence[Task]) -> Tensor:
        """The gains, [time, task], in the units that the configuration asks for; takes them into running ones."""
        if self.config.gain_units == "common":
            return gains
        families = [task.family for task in tasks]
        for family in dict.fromkeys(families):
            rows = [family == other for other in families]
            self._gain_units.setdefault(family, RunningUnit()).read(gains[:, rows][mask[:, rows] > 0])
        return gains / torch.tensor([self._gain_units[family].unit for family in families]).double()

    def gains(self, experience: Trajectories) -> Tensor:
        """The numbers whose sum over a trial is maximised, [task, episode, time]."""
        if self.config.objective == "reward":
            return experience.rewards
        if "regret" not in experience.infos:
            raise ValueError(
                f"objective 'regret' needs an environment that reports it, and {experience.tasks[0].family} "
                "does not: use objective 'reward'"
            )
        return -experience.infos["regret"]

    def step(self, batch: TrialBatch, tasks: Sequence[Task]) -> Tensor:
        """One Adam step; policy loss, value loss, entropy and KL, [4].

        Args:
            batch: A minibatch with at least one real step.
            tasks: Tasks that the batch's indices mean, for errors.

        Raises:
            FloatingPointError: if the loss or its gradient is not finite; no step is taken then.
        """
        config = self.config
        entropy_coef = self._entropy_coef()
        total = batch.trials.mask.sum()
        sums = torch.zeros(4, device=self._device)
        self.optimizer.zero_grad()
        # With fewer trials than processes some have none.
        own = batch.map(itemgetter((slice(None), parallel.share(batch.inputs.shape[1]))))
        for chunk, (distribution, values) in self._unroll(own) if own.inputs.shape[1] else ():
            assert values is not None
            assert not isinstance(distribution, TanhGaussian)
            trials, weights = chunk.trials, chunk.trials.mask / total
            log_probs = distribution.log_prob(trials.actions)
            old = trials.records["log_prob"]
            surrogate = clipped_surrogate(log_probs, old, chunk.advantages, config.clip_ratio)
            terms = (-surrogate, (values - chunk.targets).square(), distribution.entropy())
            policy_loss, value_loss, entropy = ((term * weights).sum() for term in terms)
            loss = policy_loss + config.value_coef * value_loss - entropy_coef * entropy
            if not bool(torch.isfinite(loss)):
                raise_not_finite(terms, chunk, tasks, self.algorithm)
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                kl = ((old - log_probs) * weights).sum()
                sums += torch.stack((policy_loss, value_loss, entropy, kl))
        parallel.sum_gradients(self._reinforced)
        norm = torch.nn.utils.clip_grad_norm_(self._reinforced, config.max_grad_norm)
        if not bool(torch.isfinite(norm)):
            raise FloatingPointError(f"the gradient of {self.algorithm}'s loss is not finite; lower outer_lr")
        self.optimizer.step()
        self.policy.bound_std()
        return parallel.total(sums)

    def _unroll(self, batch: TrialBatch) -> Iterator[tuple[TrialBatch, Decision]]:
        """Chunks of the trials with the decisions; the carry crosses from one to the next, no gradient."""
        time, num_trials = batch.inputs.shape[:2]
        carry = self.policy.start_unroll(num_trials)
        length = self.config.backprop_steps or time
        for start in range(0, time, length):
            chunk = batch.map(itemgetter(slice(start, start + length)))
            decision, carry = self.policy.decisions(
                chunk.inputs, chunk.trials.observations, tuple(part.detach() for part in carry)
            )
            yield chunk, decision

    def _now(self, start: float, final: float | None) -> float:
        """The annealed value at this point of the run."""
        return linear(start, final, self.updates, self.iterations)

    def _entropy_coef(self) -> float:
        """The weight of the entropy bonus at this point of the run."""
        start, final = self.config.entropy_coef, self.config.final_entropy_coef
        if self.config.entropy_schedule == "geometric" and final:
            return geometric(start, final, self.updates, self.iterations)
        return self._now(start, final)

    def state_dict(self) -> dict[str, Any]:
        """The network, Adam's moments, the value's units, the number of updates and the order of minibatches."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "value_mean": self.value_mean,
            "value_scale": self.value_scale,
            "gain_units": {family: astuple(unit) for family, unit in self._gain_units.items()},
            "updates": self.updates,
            "shuffling": self._shuffling.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.value_mean = state["value_mean"].to(self._device)
        self.value_scale = state["value_scale"].to(self._device)
        self._gain_units = {family: RunningUnit(*unit) for family, unit in state.get("gain_units", {}).items()}
        self.updates = int(state["updates"])
        self._shuffling.set_state(state["shuffling"])


def trial_metrics(experience: Trajectories) -> dict[str, float]:
    """Metrics of the first and the last episode, and the mean return of the whole trial."""
    metrics = adaptation_metrics(experience, experience, before=slice(1), after=slice(-1, None))
    return metrics | {"train/trial_return": float(experience.returns().sum(1).mean())}
