"""Trajectories: what was experienced, as arrays ordered [task, episode, time, feature]."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from metarl.tasks import Task


@dataclass(frozen=True)
class Trajectories:
    """Episodes of several tasks, padded to one horizon; the mask says which steps are real.

    The episodes of a task ran in parallel, or, by a sequential actor, one after the other as one trial.

    Attributes:
        tasks: one per task index.
        observations: o_t before action t, float32 [task, episode, time, obs].
        actions: as the policy put them out, before any scaling, float32 [task, episode, time, act], or
            int64 [task, episode, time] if discrete.
        rewards: r_t, float32 [task, episode, time]; zero where the mask is false.
        terminated: the MDP ended at t, bool [task, episode, time].
        truncated: the time limit cut the episode at t, bool [task, episode, time].
        mask: step t took place, bool [task, episode, time].
        last_observations: the observation after the last real step, float32 [task, episode, obs].
        records: what the actor recorded at each step, [task, episode, time, ...].
        infos: what the environment reported at each step, float32 [task, episode, time].
    """

    tasks: tuple[Task, ...]
    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor
    last_observations: Tensor
    records: dict[str, Tensor]
    infos: dict[str, Tensor]

    @property
    def num_steps(self) -> int:
        """Number of real environment steps."""
        return int(self.mask.sum())

    def returns(self) -> Tensor:
        """Undiscounted return of every episode, float32 [task, episode]."""
        return self.rewards.sum(-1)

    def next_observations(self) -> Tensor:
        """The observation after every real step, [task, episode, time, obs]; what the mask hides is arbitrary."""
        following = self.observations.roll(-1, dims=2)
        last = (self.mask.sum(-1) - 1)[..., None, None].expand(*following.shape[:2], 1, following.shape[3])
        return following.scatter(2, last, self.last_observations.unsqueeze(2))

    def successes(self) -> Tensor | None:
        """True where an episode reported success at any step, bool [task, episode]; None if never reported."""
        success = self.infos.get("success")
        return None if success is None else ((success > 0) & self.mask).any(-1)


def concatenate(parts: Sequence[Trajectories]) -> Trajectories:
    """Join trajectories of different tasks along the task axis."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, object] = {"tasks": tuple(task for part in parts for task in part.tasks)}
    for field in fields(Trajectories):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], Tensor):
            joined[field.name] = torch.cat(values)
        elif isinstance(values[0], dict):
            joined[field.name] = {name: torch.cat([v[name] for v in values]) for name in values[0]}
    return Trajectories(**joined)  # type: ignore[arg-type]
