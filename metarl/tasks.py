"""Tasks as data: what a task is, a distribution over tasks, and a benchmark of two of them.

A task can be logged, hashed, compared, written by hand into a JSON file and set on an environment. Nothing
here knows a simulator: a distribution names a family and makes the vector environment that runs it.
"""

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces

from metarl.observations import Arrays
from metarl.runs.files import write_json
from metarl.runs.reading import read_json, shorten

Value = float | tuple[float, ...]


@dataclass(frozen=True)
class Task:
    """One task: the family it belongs to and its parameters, as named numbers.

    Attributes:
        family: Name of the task family, e.g. "half-cheetah-dir".
        params: Pairs (name, number or tuple of numbers), kept sorted by name. `Task.of` takes keywords.
    """

    family: str
    params: tuple[tuple[str, Value], ...]

    def __post_init__(self) -> None:
        frozen = tuple(sorted((str(name), _freeze(value)) for name, value in self.params))
        object.__setattr__(self, "params", frozen)

    @staticmethod
    def of(family: str, **params: float | Sequence[float]) -> "Task":
        """A task from keywords: `Task.of("point", goal=(0.1, 0.2))`."""
        return Task(family, tuple(params.items()))  # type: ignore[arg-type]  # frozen on construction

    def __getitem__(self, name: str) -> Value:
        return dict(self.params)[name]

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON types; `Task.from_json` is its inverse."""
        params = {name: list(v) if isinstance(v, tuple) else v for name, v in self.params}
        return {"family": self.family, "params": params}

    @staticmethod
    def from_json(data: object) -> "Task":
        """The task that a decoded JSON object describes.

        Raises:
            ValueError: if the object is not {"family": name, "params": {name: finite number or list}}.
        """
        if not isinstance(data, dict) or set(data) != {"family", "params"}:
            raise ValueError(f'a task must be {{"family": ..., "params": {{...}}}}, got {shorten(data)}')
        family, params = data["family"], data["params"]
        if not isinstance(family, str) or not isinstance(params, dict):
            raise ValueError(
                f'a task\'s "family" must be a string and its "params" an object, got {shorten(data)}'
            )
        return Task(family, tuple(params.items()))


def _freeze(value: Any) -> Value:
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(_number(x, value) for x in value)
    return _number(value, value)


def _number(x: Any, value: Any) -> float:
    if type(x) is float:  # asking the number tower takes ten times as long, and tasks have tens of numbers
        return x
    if isinstance(x, bool) or not isinstance(x, numbers.Real):
        raise ValueError(f"a task parameter must be a number or a list of numbers, got {shorten(value)}")
    try:
        return float(x)
    except OverflowError as error:
        raise ValueError("a task parameter must be finite, got an integer too large for a float") from error


@dataclass(frozen=True)
class Parameter:
    """One named task parameter: its size (0 for a plain number) and the values it may take.

    Attributes:
        low: Least value of each component, inclusive.
        high: Greatest value of each component, inclusive.
        choices: Only allowed values; all between the bounds if empty.
    """

    name: str
    size: int = 0
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[float, ...] = ()

    def check(self, value: Value) -> None:
        """Raise a ValueError unless the value has this parameter's size and range."""
        size = len(value) if isinstance(value, tuple) else 0
        if size != self.size:
            expected = f"a list of {self.size} numbers" if self.size else "one number"
            raise ValueError(f"parameter {self.name!r} must be {expected}, got {shorten(value)}")
        for x in value if isinstance(value, tuple) else (value,):
            if not math.isfinite(x):
                raise ValueError(f"parameter {self.name!r} must be finite, got {shorten(value)}")
            if self.choices and x not in self.choices:
                raise ValueError(f"parameter {self.name!r} must be one of {list(self.choices)}, got {x!r}")
            if not self.low <= x <= self.high:
                raise ValueError(f"parameter {self.name!r} must be in [{self.low:g}, {self.high:g}], got {x!r}")


class Transition(NamedTuple):
    """The outcome of one simulated step, for the rows (sub-environments) that were stepped.

    Attributes:
        observations: Observations after the step, before any reset, each part [row, *shape].
        rewards: Rewards of the step, shape [row].
        terminated: True where the MDP ended, shape [row].
        truncated: True where the time limit was reached, shape [row].
        infos: Named arrays, each of shape [row, ...].
    """

    observations: Arrays
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    infos: dict[str, np.ndarray]


class HasSpaces(Protocol):
    """Anything that says what one environment's observations and actions are; a policy is made for it."""

    @property
    def single_observation_space(self) -> spaces.Space[Any]:
        """Space of one sub-environment's observations."""

    @property
    def single_action_space(self) -> spaces.Space[Any]:
        """Space of one sub-environment's actions."""


class TaskEnv(Protocol):
    """A vector environment whose sub-environments take tasks; see `metarl.envs.vector.TaskVectorEnv`."""

    max_episode_steps: int
    single_observation_space: spaces.Space[Any]
    single_action_space: spaces.Space[Any]

    @property
    def num_envs(self) -> int:
        """Number of sub-environments, the rows."""

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Give every sub-environment its task; takes effect at the next reset."""

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every sub-environment; observations come nested as their space is."""

    def advance(self, actions: np.ndarray, rows: np.ndarray | None = None) -> Transition:
        """Step the given rows (all by default) once, without any automatic reset."""

    def close(self) -> None:
        """Release threads and processes."""


@runtime_checkable
class Resizable(Protocol):
    """An environment that keeps its threads and processes when its number of rows changes."""

    def resize(self, num_envs: int) -> bool:
        """Take another number of rows, as if it were made with it; False where it must be made anew."""


class TaskFamily(ABC):
    """A kind of task: its name, its parameters and the environment that runs it."""

    name: str
    parameters: tuple[Parameter, ...]
    horizon: int

    @abstractmethod
    def make_env(self, num_envs: int, *, horizon: int | None = None, num_threads: int | None = None) -> TaskEnv:
        """A vector environment for this family.

        Args:
            num_envs: Number of sub-environments.
            horizon: Steps after which an episode is truncated; the family's own by default.
            num_threads: Number of threads that simulate; one per core by default.
        """

    def check(self, task: Task) -> None:
        """Raise a ValueError that says what is wrong unless the task belongs to this family."""
        if task.family != self.name:
            raise ValueError(f"expected tasks of family {self.name!r}, got {shorten(task.family)}")
        expected, names = {p.name for p in self.parameters}, {name for name, _ in task.params}
        if expected != names:
            raise ValueError(
                f"a task of family {self.name!r} must have exactly the parameters {sorted(expected)}, "
                f"got {shorten(sorted(names))}"
            )
        for parameter in self.parameters:
            parameter.check(task[parameter.name])

    def stack(self, tasks: Sequence[Task]) -> dict[str, np.ndarray]:
        """The tasks' parameters as float64 arrays of shape [task] or [task, size], checked."""
        distinct = {task: place for place, task in enumerate(dict.fromkeys(tasks))}
        for task in distinct:
            self.check(task)
        places = np.array([distinct[task] for task in tasks], dtype=np.int64)
        params = [dict(task.params) for task in distinct]
        return {p.name: np.array([of[p.name] for of in params], dtype=np.float64)[places] for p in self.parameters}


class TaskDistribution(ABC):
    """A probability distribution p(T) over the tasks of one family."""

    family: TaskFamily

    @abstractmethod
    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw tasks with a generator that the caller owns."""

    def exhausted_by(self, tasks: Sequence[Task]) -> bool:
        """Whether the tasks hold every task of the distribution; never true of one that is not a finite list."""
        return False


@dataclass(frozen=True)
class FiniteTasks(TaskDistribution):
    """A uniform distribution over a finite list, stratified.

    A sample holds every task the same number of times, give or take one, in random order: each place of the
    sample is still uniform, and a meta-batch of 40 tasks with two directions holds 20 of each.
    """

    family: TaskFamily
    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError(f"a finite distribution over {self.family.name!r} must have at least one task")
        for task in self.tasks:
            self.family.check(task)

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw tasks, each of the list equally often give or take one."""
        if num_tasks < 1:
            raise ValueError(f"expected at least one task to draw, got {num_tasks}")
        rounds = -(-num_tasks // len(self.tasks))
        drawn = np.concatenate([rng.permutation(len(self.tasks)) for _ in range(rounds)])[:num_tasks]
        return [self.tasks[i] for i in rng.permutation(drawn)]

    def exhausted_by(self, tasks: Sequence[Task]) -> bool:
        """Whether the tasks hold every task of the list."""
        return set(self.tasks) <= set(tasks)


def sample_distinct(tasks: TaskDistribution, num_tasks: int, rng: np.random.Generator) -> list[Task]:
    """Draw tasks to measure on, none of them twice unless there are too few; then each as often, give or take one.

    Args:
        tasks: Distribution of the tasks.
        num_tasks: Number of tasks.
        rng: Source of the draws.
    """
    drawn = tasks.sample(num_tasks, rng)
    distinct = dict.fromkeys(drawn)
    if isinstance(tasks, FiniteTasks) or len(distinct) == num_tasks:
        return drawn
    for _ in range(_MORE_DRAWS):
        distinct |= dict.fromkeys(tasks.sample(num_tasks, rng))
        if len(distinct) >= num_tasks:
            break
    chosen = list(distinct)[:num_tasks]
    return [chosen[place % len(chosen)] for place in range(num_tasks)]


_MORE_DRAWS = 20
"""Number of times that tasks are drawn again before there are held to be no others."""


@dataclass(frozen=True)
class Benchmark:
    """A training and a test distribution, and what to know about them.

    Attributes:
        name: Name of the benchmark, as `metarl list benchmarks` shows it.
        train: Tasks to meta-train on.
        test: Tasks to evaluate on.
        shared: True where the literature tests on the training tasks (two directions, say).
        description: One line: task parameters, reward, source.
    """

    name: str
    train: TaskDistribution
    test: TaskDistribution
    shared: bool
    description: str

    @property
    def family(self) -> TaskFamily:
        """The task family that both distributions draw from."""
        return self.train.family


def load_tasks(path: Path, family: TaskFamily) -> list[Task]:
    """The tasks in a JSON file, a list of {"family": ..., "params": {...}}, checked against a family.

    Raises:
        ValueError: naming the file, the task's number and what is wrong with it.
    """
    data = read_json(path, "task file")
    if not isinstance(data, list) or not data:
        raise ValueError(f"the task file {path} must hold a non-empty list of tasks, got {type(data).__name__}")
    tasks = []
    for number, entry in enumerate(data):
        try:
            task = Task.from_json(entry)
            family.check(task)
        except (ValueError, TypeError) as error:
            raise ValueError(f"task {number} of {path}: {error}") from error
        tasks.append(task)
    return tasks


def save_tasks(path: Path, tasks: Sequence[Task]) -> None:
    """Write tasks to a JSON file that `load_tasks` reads."""
    write_json(path, [task.to_json() for task in tasks])
