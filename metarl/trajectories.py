"""Trajectories: recorded episodes as arrays ordered [task, episode, time, ...]."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.observations import Arrays, map_parts
from metarl.tasks import Task

Observations = Any
"""Observations with any leading axes: a tensor, or a dictionary of tensors by the names of the space's parts.

Which of the two is up to the environment's space, so no type can say it: what is made for lists of numbers alone,
as most actors of one family are, may take a Tensor.
"""

_TENSOR_KINDS = {
    np.dtype(np.float64): np.float32,
    np.dtype(np.float16): np.float32,
    np.dtype(np.uint16): np.int32,
    np.dtype(np.uint32): np.int64,
    np.dtype(np.uint64): np.int64,
}


def as_tensors(arrays: Arrays) -> Observations:
    """Copies of observations as tensors: floats as float32, whole numbers in their own width."""

    def convert(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(_TENSOR_KINDS.get(values.dtype, values.dtype), order="C"))

    return map_parts(convert, arrays)


def map_observations(change: Callable[..., Tensor], first: Observations, *others: Observations) -> Observations:
    """The change made to every part of observations; see `metarl.observations.map_parts`."""
    return map_parts(change, first, *others)


def observation_parts(observations: Observations) -> list[Tensor]:
    """The parts of observations, of which there is at least one."""
    return list(observations.values()) if isinstance(observations, dict) else [observations]


@dataclass(frozen=True)
class Trajectories:
    """Episodes of several tasks, padded to one horizon; the mask says which steps are real.

    The episodes of a task ran in parallel, or, by a sequential actor, one after the other as one trial.

    Attributes:
        tasks: Task of each task index.
        observations: Observations o_t before action t, each part [task, episode, time, *shape] in the space's kind
            of numbers: float32 for floats, and whole numbers as they are (uint8 images stay uint8).
        actions: Actions as the policy put them out, before any scaling: float32 [task, episode, time, act] if
            continuous, int64 [task, episode, time] for one choice and [task, episode, time, choice] for several.
        rewards: Rewards r_t, float32 [task, episode, time]; zero where the mask is false.
        terminated: True where the MDP ended at t, bool [task, episode, time].
        truncated: True where the time limit cut the episode at t, bool [task, episode, time].
        mask: True where step t took place, bool [task, episode, time].
        last_observations: Observation after the last real step, each part [task, episode, *shape].
        records: Numbers that the actor recorded at each step, by name, [task, episode, time, ...].
        infos: Numbers that the environment reported at each step, by name, float32 [task, episode, time].
    """

    tasks: tuple[Task, ...]
    observations: Observations
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor
    last_observations: Observations
    records: dict[str, Tensor]
    infos: dict[str, Tensor]

    @property
    def num_steps(self) -> int:
        """Number of real environment steps."""
        return int(self.mask.sum())

    def returns(self) -> Tensor:
        """Undiscounted return of every episode, float32 [task, episode]."""
        return self.rewards.sum(-1)

    def next_observations(self) -> Observations:
        """The observation after every real step, like `observations`; what the mask hides is arbitrary."""
        last_step = (self.mask.sum(-1) - 1).clamp(min=0)

        def following(observations: Tensor, last: Tensor) -> Tensor:
            shifted = observations.roll(-1, dims=2)
            index = last_step.view(*last_step.shape, *([1] * (shifted.dim() - 2)))
            return shifted.scatter(2, index.expand_as(last.unsqueeze(2)), last.unsqueeze(2))

        return map_observations(following, self.observations, self.last_observations)

    def successes(self) -> Tensor | None:
        """True where an episode reported success at any step, bool [task, episode]; None if never reported."""
        success = self.infos.get("success")
        return None if success is None else ((success > 0) & self.mask).any(-1)


def concatenate(parts: Sequence[Trajectories]) -> Trajectories:
    """Join trajectories of different tasks along the task axis."""
    if len(parts) == 1:
        return parts[0]
    tasks = tuple(task for part in parts for task in part.tasks)
    return from_arrays(tasks, [to_arrays(part) for part in parts])


TrajectoryArrays = dict[str, np.ndarray | dict[str, np.ndarray]]
"""The tensors of trajectories as arrays, by field; the form in which they travel between processes."""


def to_arrays(trajectories: Trajectories) -> TrajectoryArrays:
    """The tensors of trajectories as arrays that share their memory."""
    return {
        field.name: map_parts(lambda part: part.numpy(), getattr(trajectories, field.name))
        for field in fields(Trajectories)
        if field.name != "tasks"
    }


def from_arrays(tasks: tuple[Task, ...], parts: Sequence[TrajectoryArrays]) -> Trajectories:
    """Trajectories of the tasks from arrays of some after others of them; the arrays are copied, in any case."""

    def join(*values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.concatenate(values))

    joined = {name: map_parts(join, *(part[name] for part in parts)) for name in parts[0]}
    return Trajectories(tasks=tasks, **joined)
