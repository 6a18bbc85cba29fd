"""What a host of environments has: the environments of some rows, and memory that it shares with its caller."""

import itertools
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Sequence
from ctypes import c_byte
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl.tasks import Task

Env = gymnasium.Env[np.ndarray, Any]
Rows = np.ndarray | None
"""Some environments of a host, by number; None for all."""


class Provider(Protocol):
    """Makes environments and gives them tasks; picklable."""

    name: str
    info_names: tuple[str, ...]

    def new_environment(self, kind: str) -> Env:
        """An environment of a kind, to be given one task after another."""

    def give_task(self, env: Env, task: Task) -> None:
        """Set the task of an environment; takes effect at its next reset."""

    def kind(self, task: Task) -> str:
        """Which environments can be given this task: those that were made for its kind."""


@dataclass(frozen=True)
class Arrays:
    """What processes share, by row."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    infos: np.ndarray

    def rows(self, rows: slice) -> "Arrays":
        """Views of some rows."""
        return Arrays(**{name: array[rows] for name, array in vars(self).items()})


@dataclass(frozen=True)
class Layout:
    """Where the arrays lie in shared memory: one after the other."""

    num_rows: int
    observations: spaces.Box
    actions: spaces.Space[Any]
    num_infos: int

    def _fields(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        shape = self.actions.shape
        if shape is None:
            raise ValueError(f"actions must be arrays or numbers, got {self.actions}")
        return {
            "observations": (self.observations.shape, self.observations.dtype),
            "actions": (shape, self.actions.dtype),
            "rewards": ((), np.dtype(np.float64)),
            "infos": ((self.num_infos,), np.dtype(np.float64)),
            "terminated": ((), np.dtype(np.bool_)),
            "truncated": ((), np.dtype(np.bool_)),
        }

    def memory(self) -> Any:
        """Room for the arrays, without a name: it goes when its last user does, however that ends."""
        return multiprocessing.get_context("spawn").RawArray(c_byte, self._num_bytes())

    def _num_bytes(self) -> int:
        return sum(self._size(*field) for field in self._fields().values())

    def arrays(self, memory: Any) -> Arrays:
        """The arrays in some memory."""
        found, offset = {}, 0
        for name, (shape, dtype) in self._fields().items():
            count = self.num_rows * int(np.prod(shape))
            found[name] = np.frombuffer(memory, dtype, count, offset).reshape(self.num_rows, *shape)
            offset += self._size(shape, dtype)
        return Arrays(**found)

    def _size(self, shape: tuple[int, ...], dtype: Any) -> int:
        size = self.num_rows * int(np.prod(shape)) * int(np.dtype(dtype).itemsize)
        return -(-size // 8) * 8


class Environments:
    """The environments of some rows, in the process that steps them.

    Args:
        provider: makes them.
        arrays: of the rows.
        alive: called between one environment and the next.
    """

    def __init__(self, provider: Provider, arrays: Arrays, alive: Callable[[], None]) -> None:
        self._provider, self._arrays, self._alive = provider, arrays, alive
        self._kept: dict[str, list[Env]] = defaultdict(list)
        self._envs: list[Env] = []

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Give every row an environment of its task's kind, and the task."""
        used: dict[str, int] = defaultdict(int)
        self._envs = []
        for task in tasks:
            kind = self._provider.kind(task)
            if used[kind] == len(self._kept[kind]):
                self._kept[kind].append(self._provider.new_environment(kind))
            env = self._kept[kind][used[kind]]
            used[kind] += 1
            self._provider.give_task(env, task)
            self._envs.append(env)
            self._alive()

    def reset(self, rows: Rows, seeds: Sequence[int]) -> None:
        """Start an episode in rows."""
        for row, seed in zip(self._numbers(rows), seeds, strict=True):
            observation = self._envs[row].reset(seed=seed)[0]
            expected = self._arrays.observations.shape[1:]
            if np.shape(observation) != expected:
                raise ValueError(f"expected observations of shape {expected}, got {np.shape(observation)}")
            self._arrays.observations[row] = observation
            self._alive()

    def step(self, rows: Rows) -> None:
        """One step of rows, with the actions in the shared array."""
        arrays, names = self._arrays, self._provider.info_names
        for row in self._numbers(rows):
            observation, reward, terminated, truncated, info = self._envs[row].step(self._action(row))
            arrays.observations[row] = observation
            arrays.rewards[row], arrays.terminated[row], arrays.truncated[row] = reward, terminated, truncated
            for column, name in enumerate(names):
                if name not in info:
                    raise ValueError(f"expected the info {name!r}, the environment reports {sorted(info)}")
                arrays.infos[row, column] = info[name]
            self._alive()

    def repeat(self, row: int, seed: int, actions: np.ndarray) -> None:
        """An episode of one row up to where it was."""
        self.reset(np.array([row]), [seed])
        for action in actions:
            self._arrays.actions[row] = action
            self.step(np.array([row]))

    def close(self) -> None:
        """Close all environments that were made."""
        for env in itertools.chain.from_iterable(self._kept.values()):
            env.close()
        self._kept.clear()

    def _action(self, row: int) -> Any:
        action = self._arrays.actions[row]
        return action.copy() if action.ndim else action

    def _numbers(self, rows: Rows) -> Sequence[int]:
        return range(len(self._envs)) if rows is None else [int(row) for row in rows]


@dataclass(frozen=True)
class Call:
    """One thing that a host is asked to do.

    Attributes:
        method: of `Environments`.
        arguments: for it.
        actions: that the step of these rows takes; put into the shared array first.
    """

    method: str
    arguments: tuple[Any, ...]
    actions: np.ndarray | None = None

    def place_actions(self, arrays: Arrays) -> None:
        """Put the actions, if there are any, where the environments find them."""
        if self.actions is not None:
            rows = self.arguments[0]
            arrays.actions[slice(None) if rows is None else rows] = self.actions


@dataclass(frozen=True)
class Settings:
    """What a host has.

    Attributes:
        provider: makes the environments.
        layout: of the shared memory.
        memory: shared.
        rows: of the vector environment that are this host's.
    """

    provider: Provider
    layout: Layout
    memory: Any
    rows: slice

    def arrays(self) -> Arrays:
        """Of this host's rows."""
        return self.layout.arrays(self.memory).rows(self.rows)
