"""Recorder: what an actor and its environments did at every step, as trajectories."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Outcome
from metarl.observations import Arrays, map_parts
from metarl.tasks import Task, TaskEnv, Transition
from metarl.trajectories import Observations, Trajectories, as_tensors, map_observations


class Recorder:
    """Preallocated arrays [task, parallel, round, time, ...] that fill up as time goes.

    Episodes run in parallel, or one in each round: parallel and round together are the episode axis.
    """

    def __init__(self, tasks: Sequence[Task], num_parallel: int, num_rounds: int, env: TaskEnv) -> None:
        self._tasks = tuple(tasks)
        self._batch = (len(tasks), num_parallel)
        self._shape = (*self._batch, num_rounds, env.max_episode_steps)
        self._round = 0
        self._observations: Observations | None = None
        self._last_observations: Observations | None = None
        self._actions = torch.empty(0)
        self._records: dict[str, Tensor] = {}
        self._infos: dict[str, Tensor] = {}
        self._rewards = torch.zeros(self._shape)
        self._terminated, self._truncated, self._mask = torch.zeros((3, *self._shape), dtype=torch.bool)

    def begin_episode(self, number: int) -> None:
        """Write what follows into this round."""
        self._round = number

    def write_choice(self, t: int, observations: Observations, chosen: Actions) -> None:
        """Store the observations and actions of step t."""
        if self._observations is None:
            self._observations = map_observations(self._like, observations)
            self._actions = self._like(chosen.actions)
            self._records = {name: self._like(value) for name, value in chosen.records.items()}
        at = (slice(None), slice(None), self._round, t)
        map_observations(lambda store, part: store.__setitem__(at, part), self._observations, observations)
        self._actions[at] = chosen.actions
        for name, value in chosen.records.items():
            self._records[name][at] = value

    def write_outcome(self, t: int, alive: np.ndarray, rows: np.ndarray | None, transition: Transition) -> Outcome:
        """Store the outcome of step t in the rows that took it."""

        def of_all(values: np.ndarray) -> np.ndarray:
            if rows is None:
                return values
            full = np.zeros((len(alive), *values.shape[1:]), dtype=values.dtype)
            full[rows] = values
            return full

        def spread(values: np.ndarray, dtype: type) -> Tensor:
            full = of_all(values.astype(dtype))
            return torch.from_numpy(full).view(*self._batch, *values.shape[1:])

        outcome = Outcome(
            observations=batched(map_parts(of_all, transition.observations), self._batch),
            rewards=spread(transition.rewards, np.float32),
            terminated=spread(transition.terminated, np.bool_),
            truncated=spread(transition.truncated, np.bool_),
            alive=torch.from_numpy(alive.copy()).view(self._batch),
            infos={name: spread(values, np.float32) for name, values in transition.infos.items()},
        )
        at = (slice(None), slice(None), self._round, t)
        self._rewards[at] = outcome.rewards
        self._terminated[at] = outcome.terminated
        self._truncated[at] = outcome.truncated
        self._mask[at] = outcome.alive
        for name, value in outcome.infos.items():
            if name not in self._infos:
                self._infos[name] = torch.zeros(self._shape)
            self._infos[name][at] = value
        return outcome

    def end_episode(self, last_observations: Arrays) -> None:
        """The observations after the last step of every row."""
        last = batched(last_observations, self._batch)
        if self._last_observations is None:
            self._last_observations = map_observations(self._like_last, last)
        at = (slice(None), slice(None), self._round)
        map_observations(lambda store, part: store.__setitem__(at, part), self._last_observations, last)

    def finish(self) -> Trajectories:
        """All that was written."""
        assert self._observations is not None
        assert self._last_observations is not None
        return Trajectories(
            tasks=self._tasks,
            observations=map_observations(_join_rounds, self._observations),
            actions=self._actions.flatten(1, 2),
            rewards=self._rewards.flatten(1, 2),
            terminated=self._terminated.flatten(1, 2),
            truncated=self._truncated.flatten(1, 2),
            mask=self._mask.flatten(1, 2),
            last_observations=map_observations(_join_rounds, self._last_observations),
            records={name: value.flatten(1, 2) for name, value in self._records.items()},
            infos={name: value.flatten(1, 2) for name, value in self._infos.items()},
        )

    def _like(self, step: Tensor) -> Tensor:
        return torch.zeros(*self._shape, *step.shape[2:], dtype=step.dtype)

    def _like_last(self, last: Tensor) -> Tensor:
        return torch.zeros(*self._shape[:3], *last.shape[2:], dtype=last.dtype)


def _join_rounds(values: Tensor) -> Tensor:
    """Parallel episodes and rounds as one episode axis."""
    return values.flatten(1, 2)


def batched(arrays: Arrays, batch: tuple[int, int]) -> Observations:
    """Observations of all rows as tensors [task, parallel, ...]."""
    return map_observations(lambda part: part.view(*batch, *part.shape[1:]), as_tensors(arrays))
