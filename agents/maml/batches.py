"""The experience that MAML-TRPO and ProMP learn from: batches of steps, and what losses ask of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.learning.adaptation_metrics import adaptation_metrics
from metarl.learning.losses import masked_mean
from metarl.nets.distributions import AnyDistribution, DiagonalGaussian
from metarl.nets.policies import FunctionalPolicy
from metarl.runs import parallel
from metarl.runs.seeding import torch_generator
from metarl.tasks import Task
from metarl.trajectories import Trajectories


class PolicyBatch(NamedTuple):
    """The steps of all episodes of all tasks, as a loss needs them; rows are [episode * time].

    Attributes:
        observations: Encoded observations, [task, row, feature].
        actions: The policy's actions, [task, row, ...].
        advantages: Advantages, [task, row].
        mask: True for the real steps, [task, row].
        old: Distribution that the actions were drawn from.
        old_log_probs: Log probabilities of the actions under it, [task, row].
        steps: Number of each row's step in its episode, from 0 on, [task, row].
        credit: Worth of the adapted policy beside the other tasks', [task], by which E-MAML weighs the steps
            before adaptation; zero where it is not used.
    """

    observations: Tensor
    actions: Tensor
    advantages: Tensor
    mask: Tensor
    old: AnyDistribution
    old_log_probs: Tensor
    steps: Tensor
    credit: Tensor

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
            old=change_parts(self.old, lambda part: part[index]),
            old_log_probs=self.old_log_probs[index],
            steps=self.steps[index],
            credit=self.credit[index[0]],
        )


class MetaBatch(NamedTuple):
    """The experience of one meta-iteration.

    Attributes:
        trajectories: Trajectories of each adaptation level, the unadapted policy's first; inner_steps + 1 of them.
            Of a process's share of the tasks, if several train together.
        batches: The same steps as batches.
    """

    trajectories: list[Trajectories]
    batches: list[PolicyBatch]

    def metrics(self, policy: FunctionalPolicy) -> dict[str, float]:
        """Mean returns before and after adaptation, over tasks and episodes, and how random the policy is."""
        first, last = _of_all_tasks(self.trajectories[0]), _of_all_tasks(self.trajectories[-1])
        return policy.metrics(self.batches[-1].old, self.batches[-1].mask) | adaptation_metrics(first, last)


def _of_all_tasks(trajectories: Trajectories) -> Trajectories:
    """What metrics read of trajectories (tasks, rewards, mask and infos), of the tasks of all processes."""
    if parallel.count() == 1:
        return trajectories
    tasks = tuple(chain.from_iterable(parallel.gathered_objects(trajectories.tasks)))
    mask = parallel.gathered(trajectories.mask.byte()).bool()
    infos = {name: parallel.gathered(values) for name, values in trajectories.infos.items()}
    return replace(
        trajectories, tasks=tasks, rewards=parallel.gathered(trajectories.rewards), mask=mask, infos=infos
    )


def credit_of(trajectories: Trajectories, *, scaled: bool) -> Tensor:
    """Mean reward per step of each task minus that of the other tasks, [task] (Stadie et al. 2018).

    Args:
        trajectories: Episodes of the adapted policies.
        scaled: True to divide by the standard deviation over the tasks.
    """
    own = trajectories.rewards.double().sum((1, 2)) / trajectories.mask.sum((1, 2))
    rewards = parallel.gathered(own)
    count = len(rewards)
    centred = (rewards - rewards.mean()) * (count / max(1, count - 1))
    std = rewards.std(correction=0)
    if scaled:
        centred = centred / std if std > 0 else centred
    return centred[parallel.share(count)].float()


def overall_mean(values: Tensor) -> float:
    """The mean of numbers [task, ...] of this process's tasks and, if they are divided, of all others' too."""
    return float(parallel.gathered(values.detach()).mean())


def check_finite(losses: Tensor, tasks: Sequence[Task], what: str) -> None:
    """Raise a FloatingPointError that names the first task whose loss [task] is not finite."""
    bad = ~torch.isfinite(losses.detach())
    if bad.any():
        index = int(bad.nonzero()[0])
        place = parallel.share(len(losses) * parallel.count()).start + index
        raise FloatingPointError(f"{what} is {losses[index].item()} on task {place} of the batch, {tasks[index]}")


def mean_kl(new: AnyDistribution, batch: PolicyBatch) -> Tensor:
    """Mean of KL(old || new) over each task's steps, [task]."""
    return masked_mean(batch.old.kl(new), batch.mask)  # type: ignore[arg-type]  # both are of one kind


def change_parts(distribution: AnyDistribution, change: Callable[[Tensor], Tensor]) -> AnyDistribution:
    """A distribution of the same kind, whose tensors are changed."""
    return type(distribution)(*(change(part) for part in distribution))


def full_parts(distribution: AnyDistribution) -> AnyDistribution:
    """The same distribution, with a standard deviation for each of its means."""
    if isinstance(distribution, DiagonalGaussian):
        return distribution._replace(log_std=distribution.log_std.expand_as(distribution.mean))
    return distribution
