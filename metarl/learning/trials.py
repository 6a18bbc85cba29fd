"""Trials: the episodes of a task one after the other, as a recurrent learner reads them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.trajectories import Observations, Trajectories, map_observations


class Trials(NamedTuple):
    """Trials as sequences without gaps, time first; what is after a trial's end is padding.

    Attributes:
        observations: Observations o_t before each step, each part [time, trial, *shape].
        actions: Actions, [time, trial, act], or [time, trial] for one discrete choice.
        rewards: Rewards, [time, trial].
        terminated: True where an episode's MDP ended at t, [time, trial].
        truncated: True where a time limit cut an episode at t, [time, trial].
        mask: True where t is before the trial's end, [time, trial].
        records: Values that the actor recorded at each step, by name, each [time, trial, ...].
    """

    observations: Observations
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor
    records: dict[str, Tensor]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Trials":
        """Apply the same change to every array."""
        return Trials(
            observations=map_observations(change, self.observations),
            actions=change(self.actions),
            rewards=change(self.rewards),
            terminated=change(self.terminated),
            truncated=change(self.truncated),
            mask=change(self.mask),
            records={name: change(values) for name, values in self.records.items()},
        )


class TrialSteps(NamedTuple):
    """Steps of trials, as a network reads their outcomes; all parts have the same leading axes.

    Attributes:
        observations: Observations before the step, each part [..., *shape].
        actions: Actions, [..., act], or [...] for one discrete choice.
        rewards: Rewards, [...].
        terminated: True where the episode's MDP ended, [...].
        truncated: True where a time limit cut the episode, [...].
        next_observations: Observations after the step, before any reset, each part [..., *shape].
    """

    observations: Observations
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    next_observations: Observations

    def map(self, change: Callable[[Tensor], Tensor]) -> "TrialSteps":
        """Apply the same change to every array."""
        return TrialSteps(*(map_observations(change, part) for part in self))


def as_trials(trajectories: Trajectories) -> Trials:
    """Join each task's episodes in their order, without the padding after an episode's early end."""
    join = _joining(trajectories.mask)
    return Trials(
        observations=map_observations(join, trajectories.observations),
        actions=join(trajectories.actions),
        rewards=join(trajectories.rewards),
        terminated=join(trajectories.terminated),
        truncated=join(trajectories.truncated),
        mask=join(trajectories.mask),
        records={name: join(values) for name, values in trajectories.records.items()},
    )


def as_steps(trajectories: Trajectories) -> tuple[TrialSteps, Tensor]:
    """Steps of each task's trial with their outcomes, [time, trial, ...], and the mask of those before its end."""
    join = _joining(trajectories.mask)
    steps = TrialSteps(
        observations=trajectories.observations,
        actions=trajectories.actions,
        rewards=trajectories.rewards,
        terminated=trajectories.terminated,
        truncated=trajectories.truncated,
        next_observations=trajectories.next_observations(),
    )
    return steps.map(join), join(trajectories.mask)


def _joining(episodes_mask: Tensor) -> Callable[[Tensor], Tensor]:
    """The function that joins episodes [task, episode, time, ...] to trials [time, trial, ...] without gaps."""
    mask = episodes_mask.flatten(1, 2)  # [trial, episode * time]
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(mask.sum(1).max())]
    has_gaps = not mask.all()

    def join(values: Tensor) -> Tensor:
        flat = values.flatten(1, 2)
        if has_gaps:
            index = order.view(*order.shape, *([1] * (flat.dim() - 2))).expand(*order.shape, *flat.shape[2:])
            flat = flat.gather(1, index)
        return flat.transpose(0, 1).contiguous()

    return join
