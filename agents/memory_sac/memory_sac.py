"""Memory SAC: soft actor-critic on whole trials from replay, by a policy and critics with memory.

Recurrent model-free RL (Ni et al. 2022, arXiv:2110.05038) and AMAGO (Grigsby et al. 2024, arXiv:2310.09971), on
soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905; of choices Christodoulou 2019, arXiv:1910.07207).

    repeat:
        collect one trial of num_episodes episodes for each task, with samples of the policy; store them
        store num_relabelled copies of each, with the rewards of another task
        repeat num_updates times, on batch_size sequences of stored trials:
            h_t = memory(o_0, ..., o_t and the actions, rewards and ends before)     all t of a sequence at once
            y_t = r_t + gamma (min_i Q'_i(h_{t+1}, a') - alpha log pi(a'|h_{t+1}))   a' ~ pi; for every gamma
            critics      minimise  sum_i (Q_i(h_t, a_t) - y_t)^2                     Q' follows Q slowly
            policy       maximise  min_i Q_i(h_t, a) - alpha log pi(a|h_t)           a ~ pi, first gamma
                         + imitation_coef * log pi(a_t|h_t)                          where a_t is better than pi's
            temperature  alpha rises while the entropy is below target_entropy

The minimum is over num_compared critics that are drawn for every step (REDQ, Chen et al. 2021, arXiv:2101.05982).
Episode ends do not cut a trial: what an episode teaches counts in the next one. At a trial's end nothing follows;
with endless_trials a last step at which a time limit cut the trial has no target.

How we differ. From Ni et al.: the reward is read less its running mean in units of its spread, and learned in
units of its running scale; the last action need not be read (`read_actions`); sequences are whole trials, or
parts of them that are read as trials which begin there. The first burn_in steps of a part only warm the memory
up (R2D2, Kapturowski et al. 2019): nothing tells the task there, and the first alone made 80% of the critics'
loss on HalfCheetah with velocities. From AMAGO: one policy, which maximises the first discount, where AMAGO's
puts out one action per discount; other discounts train the critics and, with shared_memory, the memory.
Exploration is the policy's entropy instead of epsilon. All losses are minimised by one Adam; with shared_memory
that is AMAGO's update, without it the two memories have no gradient in common, which is Ni et al.'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from metarl.agent import AgentConfig, AgentSetup, Collector
from metarl.agents.memory_sac.learner import CriticConfig, Learner, Losses
from metarl.agents.memory_sac.policy import SoftPolicyConfig
from metarl.agents.replay_agent import ReplayAgent
from metarl.agents.trials.actor import TrialActor
from metarl.agents.trials.batch import check_finite
from metarl.agents.trials.ppo import trial_metrics
from metarl.learning.failures import LearnedState, unchanged_on_failure
from metarl.learning.relabelling import check_known, relabelled
from metarl.learning.schedules import linear, set_step_size
from metarl.learning.trial_replay import TrialReplay
from metarl.learning.trials import as_trials
from metarl.nets.actions import Continuous
from metarl.runs.configs import (
    MOST_STEPS,
    MOST_TASKS,
    MOST_UPDATES,
    check_counts,
    check_fraction,
    check_not_negative,
    check_positive,
)
from metarl.runs.seeding import draw_seed, torch_generator
from metarl.tasks import Task, TaskDistribution, TaskEnv
from metarl.trajectories import Trajectories


@dataclass(frozen=True)
class MemorySacConfig(AgentConfig):
    """Hyperparameters of memory SAC. Names that begin with final_ are values at the end of annealing.

    Attributes:
        policy: Memory and head of the policy; critics with a memory of their own have one of the same kind.
        critics: Ensemble of critics.
        shared_memory: Critics read the policy's memory, which both train (AMAGO); otherwise they have a memory of
            their own (Ni et al. 2022).
        num_episodes: Number of episodes in a trial.
        gamma: Discount per environment step, through the whole trial, in [0, 1].
        other_gammas: Further discounts under which critics learn the policy's value beside the one it maximises.
        endless_trials: Whether a trial that its time limit cuts counts as going on; otherwise nothing follows its
            last step, as where the last episode ends by itself.
        num_relabelled: Number of copies of each trial that are stored with the rewards of another task, for
            families whose tasks differ in rewards alone and which know them.
        relabelled_with: Task that a copy has the rewards of: one that the trial reached (hindsight), or one drawn
            from the training tasks.
        num_initial_trials: Number of trials of each task in the first iteration, before the first gradient step.
        num_updates: Number of gradient steps per iteration.
        batch_size: Number of sequences in a gradient step.
        sequence_length: Number of steps of the sequences, each a random part of a trial that is read as a trial;
            None for whole trials. A transformer should learn from sequences as long as the trials it acts in.
        burn_in: Number of first steps of a part of a trial that are read and not learned from (R2D2): nothing can
            be known of the task there. A part that a trial begins with is learned from as a whole.
        temperature: Weight alpha of the policy's entropy, against rewards in units of their running scale; its
            initial value if there is a target_entropy.
        target_entropy: Entropy in nats that the temperature is adjusted to, per number of a continuous action or
            of the whole choice; None for a fixed temperature.
        final_target_entropy: Target entropy at the end of the run, reached linearly; None for no change.
        imitation_coef: Weight of imitating stored actions that are better than the policy's (AMAGO's filtered
            behaviour cloning); 0 for none.
        critic_coef: Weight of the critics' loss, beside the policy's of 1; it matters to a shared memory.
        outer_lr: Adam step size.
        final_outer_lr: Adam step size at the end of the run, reached linearly; None for no change.
        target_rate: Fraction by which the target critics move towards the critics at each step, in [0, 1].
        max_grad_norm: Norm to which longer gradients are shortened, those of policy and critics apart.
        replay_capacity: Number of transitions that the replay holds; it makes room for whole trials.
    """

    policy: SoftPolicyConfig = field(default_factory=SoftPolicyConfig)
    critics: CriticConfig = field(default_factory=CriticConfig)
    shared_memory: bool = False
    num_episodes: int = 2
    gamma: float = 0.99
    other_gammas: tuple[float, ...] = ()
    endless_trials: bool = False
    num_relabelled: int = 0
    relabelled_with: Literal["reached", "drawn"] = "reached"
    num_initial_trials: int = 2
    num_updates: int = 40
    batch_size: int = 32
    sequence_length: int | None = None
    burn_in: int = 0
    temperature: float = 0.1
    target_entropy: float | None = -1.0
    final_target_entropy: float | None = None
    imitation_coef: float = 0.0
    critic_coef: float = 1.0
    outer_lr: float = 1e-3
    final_outer_lr: float | None = None
    target_rate: float = 0.01
    max_grad_norm: float = 10.0
    replay_capacity: int = 1_000_000

    def __post_init__(self) -> None:
        check_counts(self, "num_episodes", "num_initial_trials", "batch_size", most=MOST_TASKS)
        check_counts(self, "num_relabelled", least=0, most=MOST_TASKS)
        check_counts(self, "num_updates", most=MOST_UPDATES)
        check_counts(self, "sequence_length", least=2, most=MOST_STEPS)
        check_counts(self, "replay_capacity")
        check_counts(self, "burn_in", least=0, most=MOST_STEPS)
        if self.burn_in and (self.sequence_length is None or self.burn_in > self.sequence_length - 2):
            raise ValueError(  # the last step of a part has no target, as nothing is known of what follows
                f"burn_in must be at most sequence_length - 2, got {self.burn_in} and {self.sequence_length}; "
                "lower it, or set a longer sequence_length"
            )
        check_fraction(self, "gamma", "target_rate")
        check_positive(self, "temperature", "outer_lr", "max_grad_norm")
        check_not_negative(self, "imitation_coef", "critic_coef")
        check_not_negative(self, "final_outer_lr", optional=True)
        for gamma in self.other_gammas:
            if not 0 <= gamma <= 1:
                raise ValueError(f"each of other_gammas must be in [0, 1], got {gamma}")
        if self.target_entropy is None and self.final_target_entropy is not None:
            raise ValueError("a final_target_entropy needs a target_entropy to start from, got None")

    def make(self, setup: AgentSetup) -> "MemorySac":
        """Make an untrained agent with this configuration.

        Raises:
            ValueError: if trials are to be relabelled and the family does not know the rewards of its other tasks.
        """
        return MemorySac(
            setup.env,
            self,
            train=setup.benchmark.train if self.num_relabelled else None,
            iterations=setup.iterations,
            seed=setup.seed,
            device=setup.device,
        )


class MemorySac(ReplayAgent[TrialReplay]):
    """A memory SAC agent; see `metarl.agent.Agent` and `metarl.agent.KeepsData`.

    Args:
        env: Environment of the family, read for its spaces and its time limit.
        config: Hyperparameters.
        train: Training tasks, whose family knows their rewards; needed where trials are relabelled.
        iterations: Number of updates of the whole run, for annealing.
        seed: Seed of the initial weights and of the random numbers of gradient steps.
        device: Device of replay and networks; acting is on the CPU.
    """

    def __init__(
        self,
        env: TaskEnv,
        config: MemorySacConfig,
        *,
        train: TaskDistribution | None = None,
        iterations: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._train = train
        if config.num_relabelled:
            assert train is not None, "relabelled trials need the training tasks"
            check_known(train.family)
        self.config, self.device, self.iterations, self.updates = config, device, iterations, 0
        self.learner = Learner(
            env,
            config.policy,
            config.critics,
            (config.gamma, *config.other_gammas),
            shared_memory=config.shared_memory,
            temperature=config.temperature,
            generator=torch_generator(seed),
        ).to(device)
        self.policy = self.learner.policy
        self._groups = self.learner.groups()
        self.optimizer = torch.optim.Adam([p for group in self._groups for p in group], lr=config.outer_lr)
        longest = env.max_episode_steps * config.num_episodes
        if config.endless_trials and longest < 2:
            raise ValueError("endless_trials needs trials of two steps or more, got one step; set it to False")
        self.replay = TrialReplay(
            env, self.policy.actions, capacity=config.replay_capacity, longest=longest, device=device
        )
        self._length = min(config.sequence_length or longest, longest)
        self._seeds = torch_generator(seed)  # on the CPU, whose state any device's run can go on from

    def actor(self) -> TrialActor:
        """An actor at the start of its trials."""
        return TrialActor(self.policy)

    def collect(self, collector: Collector, tasks: Sequence[Task], rng: np.random.Generator) -> list[Trajectories]:
        """One trial per task; the first time num_initial_trials, one after the other."""
        rounds = 1 if self.replay.num_added else self.config.num_initial_trials
        actor, episodes = self.actor(), self.config.num_episodes
        return [collector.collect(actor, tasks, episodes, draw_seed(rng)) for _ in range(rounds)]

    def update(self, experience: Sequence[Trajectories]) -> dict[str, float]:
        """Store the trials, then take `num_updates` gradient steps on all that is stored.

        An update that fails leaves everything as it was but the replay, which keeps the trials, and the running
        statistics.

        Raises:
            FloatingPointError: if the experience is not finite, naming the task, or a loss is not.
        """
        for trajectories in experience:
            check_finite(trajectories)
            trials = as_trials(trajectories)
            self.replay.add(trials)
            for _ in range(self.config.num_relabelled):
                self.replay.add(as_trials(self.relabelled(trajectories)))
            self.learner.see(trials.map(lambda part: part.to(self.device)))
        with unchanged_on_failure(LearnedState(self)):
            metrics = self._descend()
            self.updates += 1
        metrics |= trial_metrics(experience[-1])
        return metrics | {"replay/transitions": float(self.replay.num_transitions)}

    def relabelled(self, trajectories: Trajectories) -> Trajectories:
        """The trials with the rewards of other tasks."""
        assert self._train is not None, "checked when the agent was made"
        train, reached = self._train, self.config.relabelled_with == "reached"
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=self._seeds)))
        return relabelled(
            trajectories,
            check_known(train.family),
            lambda family, steps, rng: family.task_reached(steps, rng) if reached else train.sample(1, rng)[0],
            rng,
        )

    def _descend(self) -> dict[str, float]:
        """All gradient steps of an update; mean losses by name."""
        config = self.config
        rate = linear(config.outer_lr, config.final_outer_lr, self.updates, self.iterations)
        set_step_size(self.optimizer, rate)
        seed = int(torch.randint(2**62, (), generator=self._seeds))
        sampling = torch_generator(seed, self.device)
        sums = torch.zeros(len(Losses._fields), device=self.device)
        for _ in range(config.num_updates):
            sums += self.step(sampling)
        means = dict(zip(Losses._fields, (sums / config.num_updates).tolist(), strict=True))
        names = {"value": "value/mean", "entropy": "policy/entropy"}
        metrics = {names.get(name, f"loss/{name}"): mean for name, mean in means.items()}
        return metrics | {"policy/temperature": float(self.learner.log_temperature.detach().exp())}

    def step(self, sampling: torch.Generator) -> Tensor:
        """One gradient step on sequences that the generator draws; the losses in the order of `Losses`.

        Raises:
            FloatingPointError: if the loss or its gradient is not finite; no step is taken then.
        """
        config, learner = self.config, self.learner
        sequences = self.replay.draw(config.batch_size, self._length, sampling, burn_in=config.burn_in)
        shape = (*sequences.ends.shape, *self.policy.actions.shape)
        members = torch.randperm(config.critics.num_members, generator=sampling, device=self.device)
        losses = learner.losses(
            sequences,
            torch.randn(shape, generator=sampling, device=self.device),
            members[: config.critics.num_compared],
            endless=config.endless_trials,
            target_entropy=self.target_entropy(),
            imitates=config.imitation_coef > 0,
        )
        self.optimizer.zero_grad()
        loss = config.critic_coef * losses.critic + losses.actor + losses.temperature
        (loss + config.imitation_coef * losses.imitation).backward()  # type: ignore[no-untyped-call]
        norms = [torch.nn.utils.clip_grad_norm_(group, config.max_grad_norm) for group in self._groups]
        if not bool(torch.isfinite(torch.stack([*losses, *norms])).all()):
            raise FloatingPointError(
                f"memory SAC's losses are not finite after {self.updates} updates: "
                + ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses._asdict().items())
                + "; lower outer_lr"
            )
        self.optimizer.step()
        learner.follow(config.target_rate)
        return torch.stack([value.detach() for value in losses])

    def target_entropy(self) -> float | None:
        """The entropy that the temperature is adjusted to at this point of the run, in nats of a whole action."""
        start, final = self.config.target_entropy, self.config.final_target_entropy
        if start is None:
            return None
        actions = self.policy.actions
        numbers = actions.num_outputs if isinstance(actions, Continuous) else 1
        return numbers * linear(start, final, self.updates, self.iterations)

    def learned_state(self) -> dict[str, Any]:
        """The state without the replay's."""
        return {
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "seeds": self._seeds.get_state(),
        }

    def load_learned_state(self, state: dict[str, Any]) -> None:
        """Restore the state from `learned_state`."""
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates = int(state["updates"])
        self._seeds.set_state(state["seeds"])
