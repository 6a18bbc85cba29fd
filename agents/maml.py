"""What MAML-TRPO and ProMP share: a policy adapted by policy gradients, for all tasks at once.

Finn et al. 2017 (arXiv:1703.03400), algorithm 3. For each task of a meta-batch:

    collect episodes with theta;  A = advantages against a linear baseline fitted to those episodes
    theta' = theta - alpha * grad L(theta),   L = -E[ pi_theta(a|s) / pi_old(a|s) * A ]
    collect episodes with theta' (the next step's data, or the outer loss's)

The inner loss is the likelihood ratio, whose gradient at theta is REINFORCE's and whose Hessian is that of the
low-variance curvature estimator (Rothfuss et al. 2019, eq. 8), so the second-order meta-gradient is the
better-behaved one at no cost; `inner_loss="log_likelihood"` is the original. Episodes are collected with
parameters adapted without a graph; the update repeats the adaptation on the stored episodes and differentiates it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Collector, Interface, Outcome
from metarl.learning.advantages import Normalisation, linear_baseline_advantages
from metarl.learning.bilevel import Params, adapt, expand, sgd
from metarl.learning.losses import masked_mean, policy_gradient_loss, ratio_loss
from metarl.nets.networks import Activation
from metarl.nets.policies import DiagonalGaussian, GaussianPolicy
from metarl.runs.configs import check_counts, check_fraction, check_positive
from metarl.runs.seeding import TaskNoise, draw_seed, torch_generator
from metarl.tasks import Task, TaskEnv
from metarl.trajectories import Trajectories


@dataclass(frozen=True)
class PolicyConfig:
    """A Gaussian policy, and how its output becomes an action.

    Attributes:
        hidden_sizes: of the mean's network.
        activation: of the mean's network.
        init_std: standard deviation at the start, in units of the policy's output.
        min_std: its floor.
        output_scale: the output is multiplied by this, then +-1 is mapped to the action bounds and clipped. ProMP
            divides by 10: exploration starts at a tenth of the action range, without which HalfCheetah
            learns nothing in the first millions of steps.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    init_std: float = 1.0
    min_std: float = 1e-6
    output_scale: float = 0.1

    def __post_init__(self) -> None:
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden_sizes must be positive, got {self.hidden_sizes}")
        check_positive(self, "init_std", "min_std", "output_scale")


@dataclass(frozen=True)
class AdaptationConfig:
    """The inner loop.

    Attributes:
        inner_lr: step size alpha of every inner step.
        inner_steps: gradient steps that training differentiates through; evaluation may take more.
        num_episodes: per task and step.
        gamma: discount per environment step.
        gae_lambda: 1 gives Monte-Carlo advantages, as the MAML literature has it. On HalfCheetah direction 0.95
            gives meta-gradients of the same direction whose cosine between two batches of 20 tasks is 0.23
            instead of 0.15, and an inner step 2.4 times as long: learning is more than twice as fast.
        inner_loss: "ratio" has the low-variance Hessian, "log_likelihood" is Finn et al. 2017's.
        advantage_normalisation: "std", or "variance" to reproduce garage's numbers.
        first_order: leave second derivatives out.
    """

    inner_lr: float = 0.1
    inner_steps: int = 1
    num_episodes: int = 20
    gamma: float = 0.99
    gae_lambda: float = 1.0
    inner_loss: Literal["ratio", "log_likelihood"] = "ratio"
    advantage_normalisation: Normalisation = "std"
    first_order: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "inner_lr")
        check_counts(self, "inner_steps", "num_episodes")
        check_fraction(self, "gamma", "gae_lambda")


class PolicyBatch(NamedTuple):
    """The steps of all episodes of all tasks, as a loss needs them; rows are [episode * time].

    Attributes:
        observations: [task, row, obs].
        actions: [task, row, act].
        advantages: [task, row].
        mask: the real steps, [task, row].
        old: the distribution that the actions were drawn from.
        old_log_probs: of the actions under it, [task, row].
    """

    observations: Tensor
    actions: Tensor
    advantages: Tensor
    mask: Tensor
    old: DiagonalGaussian
    old_log_probs: Tensor

    def thin(self, fraction: float) -> "PolicyBatch":
        """A fraction of the rows, the same ones of each task; in no rhythm that a gait could have."""
        num_rows = self.mask.shape[1]
        order = torch.randperm(num_rows, generator=torch_generator(0)).to(self.mask.device)
        rows = order[: max(1, round(fraction * num_rows))].sort().values
        return self._cut((slice(None), rows))

    def select(self, tasks: slice | int) -> "PolicyBatch":
        """The steps of some of the tasks, or of one, without the task axis."""
        return self._cut((tasks,))

    def _cut(self, index: tuple[slice | int | Tensor, ...]) -> "PolicyBatch":
        return PolicyBatch(
            observations=self.observations[index],
            actions=self.actions[index],
            advantages=self.advantages[index],
            mask=self.mask[index],
            old=DiagonalGaussian(self.old.mean[index], self.old.log_std[index]),
            old_log_probs=self.old_log_probs[index],
        )


class MetaBatch(NamedTuple):
    """The experience of one meta-iteration.

    Attributes:
        trajectories: of each adaptation level, the unadapted policy's first; inner_steps + 1 of them.
        batches: the same, as batches.
    """

    trajectories: list[Trajectories]
    batches: list[PolicyBatch]

    def return_metrics(self) -> dict[str, float]:
        """Mean returns before and after adaptation, over tasks and episodes."""
        first, last = self.trajectories[0], self.trajectories[-1]
        metrics = {
            "train/return_pre": float(first.returns().mean()),
            "train/return_post": float(last.returns().mean()),
            "train/episode_length": float(last.mask.sum(-1).float().mean()),
        }
        successes = last.successes()
        if successes is not None:
            metrics["train/success_post"] = float(successes.float().mean())
        return metrics


class AdaptivePolicy:
    """A policy, the map from its output to actions, and its inner loop: what actors and agents share.

    Args:
        env: any environment of the family, for its spaces.
        policy: configuration of the policy.
        adaptation: configuration of the inner loop.
        seed: of the initial weights.
        device: where parameters live and losses are computed; acting is on the CPU.
    """

    def __init__(
        self,
        env: TaskEnv,
        policy: PolicyConfig,
        adaptation: AdaptationConfig,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        space = env.single_action_space
        low, high = np.asarray(space.low), np.asarray(space.high)  # type: ignore[attr-defined]
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(f"a Gaussian policy needs bounded actions, got bounds {low} and {high}")
        self.low, self.high = low, high
        self.config = adaptation
        self.output_scale = policy.output_scale
        self.policy = GaussianPolicy(
            int(np.prod(env.single_observation_space.shape or ())),
            int(np.prod(low.shape)),
            hidden_sizes=policy.hidden_sizes,
            activation=policy.activation,
            init_std=policy.init_std,
            min_std=policy.min_std,
            generator=torch_generator(seed),
        ).to(device)
        self.device = device

    def params(self) -> Params:
        """The meta-parameters theta."""
        return self.policy.parameter_dict()

    def to_env(self, outputs: Tensor) -> np.ndarray:
        """Environment actions from policy outputs [..., act]: scaled, mapped to the bounds, clipped."""
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        actions: np.ndarray = np.clip(middle + half * self.output_scale * outputs.numpy(), self.low, self.high)
        return actions

    def from_env(self, env_actions: np.ndarray) -> Tensor:
        """The outputs that `to_env` makes these actions [..., act] of; what it clipped cannot come back."""
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        return torch.from_numpy(((env_actions - middle) / (half * self.output_scale)).astype(np.float32))

    def batch(self, trajectories: Trajectories, params: Params | None = None) -> PolicyBatch:
        """Advantages and old distributions of the trajectories, as rows, on the device.

        Args:
            trajectories: what is learned from.
            params: the acting policy's, [...] or [task, ...]; needed where the trajectories were not recorded by
                one of our actors, so that nobody knows the distributions their actions came from. The actions are
                then taken as this policy's own, and the inner loss's gradient is REINFORCE's at it.
        """
        config = self.config
        advantages = linear_baseline_advantages(
            trajectories,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            normalisation=config.advantage_normalisation,
        )
        records, observations = trajectories.records, self._rows(trajectories.observations)
        if "mean" in records:
            old = DiagonalGaussian(self._rows(records["mean"]), self._rows(records["log_std"]))
        else:
            with torch.no_grad():
                found = self.policy.distribution(self.params() if params is None else params, observations)
            old = DiagonalGaussian(found.mean, found.log_std.expand_as(found.mean))
        actions = self._rows(trajectories.actions)
        return PolicyBatch(
            observations=observations,
            actions=actions,
            advantages=self._rows(advantages),
            mask=self._rows(trajectories.mask),
            old=old,
            old_log_probs=old.log_prob(actions),
        )

    def inner_loss(self, params: Params, batch: PolicyBatch) -> Tensor:
        """The loss that adaptation descends, [task]."""
        log_probs = self.policy.distribution(params, batch.observations).log_prob(batch.actions)
        if self.config.inner_loss == "log_likelihood":
            return policy_gradient_loss(log_probs, batch.advantages, batch.mask)
        return ratio_loss(log_probs, batch.old_log_probs, batch.advantages, batch.mask)

    def adapt_through(self, params: Params, batches: Sequence[PolicyBatch]) -> list[Params]:
        """Adapt theta to every task with a graph, one step per batch; params are [...], results [task, ...]."""
        start = expand(params, len(batches[0].mask))
        order: Literal["first", "second"] = "first" if self.config.first_order else "second"
        return adapt(self.inner_loss, start, batches, sgd(self.config.inner_lr), order=order)

    def collect(self, collector: Collector, tasks: Sequence[Task], rng: np.random.Generator) -> MetaBatch:
        """Episodes before adaptation and after each inner step."""
        actor = GaussianActor(self, None)
        trajectories: list[Trajectories] = []
        batches: list[PolicyBatch] = []
        for step in range(self.config.inner_steps + 1):
            seed = draw_seed(rng)
            trajectories.append(collector.collect(actor, tasks, self.config.num_episodes, seed))
            batches.append(self.batch(trajectories[-1]))
            if step < self.config.inner_steps:
                actor = actor.adapt_to(batches[-1])
        return MetaBatch(trajectories, batches)

    def _rows(self, array: Tensor) -> Tensor:
        return array.flatten(1, 2).to(self.device)


class GaussianActor:
    """Acts with the meta-parameters, or with each task's adapted ones.

    Args:
        learner: the policy and its inner loop.
        params: adapted parameters [task, ...]; None for the meta-parameters.
    """

    sequential = False
    reads_outcomes = False

    def __init__(self, learner: AdaptivePolicy, params: Params | None) -> None:
        self._learner = learner
        self._params = params
        self._acting: Params = {}
        self._noise: TaskNoise | None = None

    @property
    def interface(self) -> Interface:
        """As the policy was made for."""
        learner = self._learner
        return Interface(learner.policy.obs_size, 0, learner.low, learner.high)

    def to_outputs(self, env_actions: np.ndarray) -> Tensor:
        """The policy's outputs for environment actions [..., act]."""
        return self._learner.from_env(env_actions)

    def select(self, tasks: slice) -> "GaussianActor":
        """The actor of some of the tasks."""
        if self._params is None:
            return GaussianActor(self._learner, None)
        return GaussianActor(self._learner, {name: p[tasks] for name, p in self._params.items()})

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start parallel episodes."""
        params = self._learner.params() if self._params is None else self._params
        self._acting = {name: p.detach().cpu() for name, p in params.items()}
        self._noise = TaskNoise(task_seeds, (num_parallel, self._learner.policy.act_size))

    def begin_episode(self) -> None:
        """Nothing is kept from step to step."""

    def observe(self, outcome: Outcome) -> None:
        """Nothing is learned while acting."""

    def act(self, observations: Tensor) -> Actions:
        """Sample actions [task, parallel, act]."""
        assert self._noise is not None, "begin comes before act"
        distribution = self._learner.policy.distribution(self._acting, observations)
        log_std = distribution.log_std.expand_as(distribution.mean)
        outputs = distribution.sample(self._noise.next())
        records = {"mean": distribution.mean, "log_std": log_std}
        return Actions(self._learner.to_env(outputs), outputs, records)

    def adapt(self, trajectories: Trajectories) -> "GaussianActor":
        """One more inner step from these trajectories."""
        return self.adapt_to(self._learner.batch(trajectories, self._params))

    def adapt_to(self, batch: PolicyBatch) -> "GaussianActor":
        """One more inner step from a batch; no graph is kept."""
        learner = self._learner
        start = self._params if self._params is not None else expand(learner.params(), len(batch.mask))
        adapted = adapt(learner.inner_loss, start, [batch], sgd(learner.config.inner_lr), order="none")[-1]
        return GaussianActor(learner, adapted)


def check_finite(losses: Tensor, tasks: Sequence[Task], what: str) -> None:
    """Raise a FloatingPointError that names the first task whose loss [task] is not finite."""
    bad = ~torch.isfinite(losses.detach())
    if bad.any():
        index = int(bad.nonzero()[0])
        raise FloatingPointError(f"{what} is {losses[index].item()} on task {index} of the batch, {tasks[index]}")


def mean_kl(new: DiagonalGaussian, batch: PolicyBatch) -> Tensor:
    """Mean of KL(old || new) over each task's steps, [task]."""
    return masked_mean(batch.old.kl(new), batch.mask)
