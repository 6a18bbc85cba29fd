"""The environments of some rows, in the process that steps them, and the calls that it can be asked to make."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces

from metarl.envs.gymnasium.checks import Env, checked_env, checked_info, checked_reset, checked_step
from metarl.envs.gymnasium.global_random import GlobalRandom
from metarl.envs.gymnasium.shared_arrays import ArrayLayout, SharedArrays
from metarl.tasks import Task

Rows = np.ndarray | None
"""Some environments of a host, by number; None for all."""
_SAME_INFO = {"success": "is_success"}
"""Another name that environments use for an info."""


class EnvProvider(Protocol):
    """A maker of environments that gives them tasks; picklable, because every process has a copy."""

    name: str
    info_names: tuple[str, ...]
    steps_here_too: bool

    def spaces(self) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
        """Spaces of observations and of actions."""

    def new_environment(self, kind: str) -> Env:
        """An environment of a kind, to be given one task after another."""

    def give_task(self, env: Env, task: Task) -> None:
        """Set the task of an environment; takes effect at its next reset."""

    def kind(self, task: Task) -> str:
        """The kind of environments that can be given this task: those that were made for it."""


class HostRows:
    """The environments of the rows of one host.

    Args:
        provider: Maker of the environments.
        arrays: Shared arrays of these rows.
        alive: Function that is called between one environment and the next.
    """

    def __init__(self, provider: EnvProvider, arrays: SharedArrays, alive: Callable[[], None]) -> None:
        self._provider, self._arrays, self._alive = provider, arrays, alive
        self._made: dict[str, list[Env]] = defaultdict(list)
        self._envs: list[Env] = []
        self._places: list[str] = []
        self._random, self._reported = GlobalRandom(), [set[str]() for _ in arrays.rewards]
        self._warned = False
        self._warnings: list[str] = []

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Give every row an environment of its task's kind, and the task."""
        used: dict[str, int] = defaultdict(int)
        self._envs, self._places = [], []
        for task in tasks:
            place = _place(self._provider.name, task)
            kind = self._provider.kind(task)
            if used[kind] == len(self._made[kind]):
                self._made[kind].append(checked_env(place, self._provider.new_environment(kind)))
            env = self._made[kind][used[kind]]
            used[kind] += 1
            try:
                self._provider.give_task(env, task)
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise ValueError(f"{place}: setting the task failed with {reason}") from error
            self._envs.append(env)
            self._places.append(place)
            self._alive()

    def reset(self, rows: Rows, seeds: Sequence[int]) -> None:
        """Start an episode in rows."""
        numbers = self._numbers(rows)
        with self._random.of_rows(numbers):
            self._reset(numbers, seeds)
        self._warn_of_global_random()

    def _reset(self, numbers: Sequence[int], seeds: Sequence[int]) -> None:
        for row, seed in zip(numbers, seeds, strict=True):
            place = self._places[row]
            with self._random.of_row(row, seed):
                try:
                    result = self._envs[row].reset(seed=seed)
                except TypeError as error:
                    if "'seed'" not in str(error):
                        raise
                    raise ValueError(f"{place}: reset must take the keyword seed: {error}") from error
            self._arrays.observations[row] = checked_reset(place, result, self._arrays.observations[row])
            self._reported[row].clear()
            self._alive()

    def step(self, rows: Rows) -> None:
        """One step of rows, with the actions in the shared array."""
        numbers = self._numbers(rows)
        with self._random.of_rows(numbers):
            self._step(numbers)
        self._warn_of_global_random()

    def _step(self, numbers: Sequence[int]) -> None:
        arrays, names = self._arrays, self._provider.info_names
        for row in numbers:
            place = self._places[row]
            with self._random.of_row(row):
                result = self._envs[row].step(self._action(row))
            step = checked_step(place, result, arrays.observations[row])
            arrays.observations[row] = step.observation
            arrays.rewards[row], arrays.terminated[row] = step.reward, step.terminated
            arrays.truncated[row] = step.truncated
            reported = self._reported[row]
            for column, name in enumerate(names):
                key = name if name in step.info else _SAME_INFO.get(name, name)
                arrays.infos[row, column] = 0.0
                if key in step.info:
                    arrays.infos[row, column] = checked_info(place, key, step.info[key])
                    reported.add(name)
                elif (step.terminated or step.truncated) and name not in reported:
                    there = ", ".join(sorted(map(str, step.info))) or "none"
                    raise ValueError(
                        f"{place}: the info {name!r} of info_names was reported at no step of an episode; "
                        f"its last step has {there}"
                    )
            self._alive()

    def render(self, row: int) -> np.ndarray:
        """A picture of one row's environment, uint8 [height, width, 3].

        Raises:
            ValueError: if the environment cannot be drawn, or returns something else.
        """
        env, place = self._envs[row], self._places[row]
        own: Any = env.unwrapped
        if "rgb_array" not in (env.metadata or {}).get("render_modes", []):
            raise ValueError(f"{place}: the environment's metadata has no render mode rgb_array")
        own.render_mode = "rgb_array"  # most are made without one
        picture = env.render()
        if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.dtype != np.uint8:
            raise ValueError(
                f"{place}: render must return a picture, uint8 [height, width, 3], got {type(picture).__name__}"
            )
        return picture

    def repeat(self, row: int, seed: int, actions: np.ndarray) -> None:
        """An episode of one row up to where it was."""
        self.reset(np.array([row]), [seed])
        for action in actions:
            self._arrays.actions[row] = action
            self.step(np.array([row]))

    def close(self) -> None:
        """Close all environments that were made."""
        for env in itertools.chain.from_iterable(self._made.values()):
            env.close()
        self._made.clear()

    def take_warnings(self) -> list[str]:
        """Warnings for the user that were not taken before."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def _warn_of_global_random(self) -> None:
        if self._random.used and not self._warned:
            self._warned = True
            self._warnings.append(
                f"{self._provider.name}: the environment draws from numpy's or Python's global random numbers, "
                "which are now seeded with every reset; draw from self.np_random instead"
            )

    def _action(self, row: int) -> Any:
        action = self._arrays.actions[row]
        return action.copy() if action.ndim else action

    def _numbers(self, rows: Rows) -> Sequence[int]:
        return range(len(self._envs)) if rows is None else [int(row) for row in rows]


def _place(family: str, task: Task) -> str:
    """Family and task for messages: "pendulum (gravity=9.8)"."""
    params = ", ".join(f"{name}={value}" for name, value in task.params)
    text = f"{task.family or family} ({params})"
    return text if len(text) <= 80 else f"{task.family or family}"


@dataclass(frozen=True)
class Call:
    """One thing that a host is asked to do.

    Attributes:
        method: Name of a method of `HostRows`.
        arguments: Arguments of the method.
        actions: Actions of the rows that are stepped, put into the shared array first; None for other calls.
    """

    method: str
    arguments: tuple[Any, ...]
    actions: np.ndarray | None = None

    def place_actions(self, arrays: SharedArrays) -> None:
        """Put the actions, if there are any, into the shared array."""
        if self.actions is not None:
            rows = self.arguments[0]
            arrays.actions[slice(len(self.actions)) if rows is None else rows] = self.actions


@dataclass(frozen=True)
class HostSettings:
    """The settings of a host of environments.

    Attributes:
        provider: Maker of the environments.
        layout: Layout of the shared memory.
        memory: Memory that all processes share.
        rows: Rows of the vector environment that this host steps.
    """

    provider: EnvProvider
    layout: ArrayLayout
    memory: Any
    rows: slice

    def arrays(self) -> SharedArrays:
        """The shared arrays of this host's rows."""
        return self.layout.arrays(self.memory).rows(self.rows)
