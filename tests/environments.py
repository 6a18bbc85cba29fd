"""Plain Gymnasium environments for tests of what runs such, importable by worker processes."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl.envs import CustomFamily
from metarl.tasks import Parameter, Task

MARK = "METARL_TEST_MARK"
"""A file by this environment variable: whoever finds it absent makes it, and then goes wrong."""


class Walk(gymnasium.Env[np.ndarray, np.ndarray]):
    """A noisy walk: reward is minus the distance to a goal; what goes wrong is part of the task."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self) -> None:
        self.goal = 0.0
        self.trouble = 0.0
        self.position = 0.0
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.position, self.steps = float(self.np_random.normal()), 0
        if self.trouble == 400:  # another one at every start
            self.position = float(np.random.default_rng().normal())
        if self.trouble == 500 and self._armed() and self._first():
            os._exit(8)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.trouble == self.steps and self._first():
            os._exit(7)
        if self.trouble == -self.steps and self._first():
            time.sleep(60)
        if self.trouble == 100 + self.steps:
            raise ArithmeticError("the walker tripped")
        if self.trouble == 200 + self.steps:
            os._exit(9)
        self.position += float(action[0]) + 0.1 * float(self.np_random.normal())
        distance = abs(self.position - self.goal)
        return self._observe(), -distance, distance < 0.01, self.trouble == 300, {"success": distance < 0.5}

    def _observe(self) -> np.ndarray:
        return np.array([self.position, self.goal])

    @staticmethod
    def _armed() -> bool:
        """Whether resets are to go wrong: a file beside the mark says so."""
        return Path(os.environ[MARK] + ".armed").exists()

    @staticmethod
    def _first() -> bool:
        mark = Path(os.environ[MARK])
        first = not mark.exists()
        mark.touch()
        return first


def set_task(env: gymnasium.Env, task: Task) -> None:
    """Give a walk its goal, and its trouble."""
    assert isinstance(env, Walk)
    env.goal, env.trouble = task["goal"], task["trouble"]  # type: ignore[assignment]


WALKS = CustomFamily(
    "walk",
    (Parameter("goal", low=-10.0, high=10.0), Parameter("trouble")),
    make=Walk,
    set_task=set_task,
    horizon=6,
    info_names=("success",),
)


def walk(goal: float, trouble: float = 0.0) -> Task:
    """A task of WALKS."""
    return Task.of("walk", goal=goal, trouble=trouble)


class Corners(gymnasium.Env[Any, Any]):
    """A bright corner of an image says which of four actions earns 1: the corner's number plus the task's shift.

    An episode ends after a wrong action, or after three steps.
    """

    action_space = spaces.Discrete(4, start=1)

    def __init__(self, shape: tuple[int, ...] = (7, 7, 3)) -> None:
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.shift = self.corner = self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.steps += 1
        right = action - 1 == (self.corner + self.shift) % 4
        return self._observe(), float(right), not right or self.steps == 3, False, {"success": right}

    def _observe(self) -> Any:
        self.corner = int(self.np_random.integers(4))
        image = np.zeros(self.observation_space.shape or (), np.uint8)
        rows = slice(0, 3) if self.corner < 2 else slice(-3, None)
        columns = slice(0, 3) if self.corner % 2 else slice(-3, None)
        image[rows, columns] = 200
        return image


class Dictionary(Corners):
    """The same, in a dictionary beside a number of no meaning and the steps that were taken."""

    def __init__(self) -> None:
        super().__init__()
        parts = {
            "image": self.observation_space,
            "noise": spaces.Box(-1.0, 1.0, (2,)),
            "steps": spaces.Discrete(4),
        }
        self._image = self.observation_space
        self.observation_space = spaces.Dict(parts)  # type: ignore[assignment]

    def _observe(self) -> Any:
        everything, self.observation_space = self.observation_space, self._image
        image = super()._observe()
        self.observation_space = everything
        return {"image": image, "noise": self.np_random.uniform(-1, 1, 2).astype(np.float32), "steps": self.steps}


def set_shift(env: gymnasium.Env, task: Task) -> None:
    """Give corners their shift."""
    assert isinstance(env.unwrapped, Corners)
    env.unwrapped.shift = int(task["shift"])  # type: ignore[arg-type]


def corners(make: Any = Corners) -> CustomFamily:
    """Corners with any shift."""
    shift = Parameter("shift", choices=(0.0, 1.0, 2.0, 3.0))
    return CustomFamily("corners", (shift,), make=make, set_task=set_shift, horizon=4, info_names=("success",))


class Anything(gymnasium.Env[Any, Any]):
    """Random observations of a space; actions must be in a space; episodes end after one to four steps."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.steps += 1
        ended = self.steps == 4 or bool(self.np_random.random() < 0.3)
        return self.observation_space.sample(), float(np.sum(action)), ended, False, {}


def set_nothing(env: gymnasium.Env, task: Task) -> None:
    """All tasks are alike."""


def anything(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> CustomFamily:
    """A family of any spaces."""
    make = partial(Anything, observation_space, action_space)
    number = Parameter("number", choices=(0.0, 1.0))
    return CustomFamily("anything", (number,), make=make, set_task=set_nothing, horizon=5)


class Countdown(gymnasium.Env[np.ndarray, np.ndarray]):
    """Episodes of as many whole steps as the task says; the class counts the environments that were made."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.length = self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.normal(size=1), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.np_random.normal(size=1), float(action[0]), self.steps == self.length, False, {}


def set_length(env: gymnasium.Env, task: Task) -> None:
    """Give a countdown its length."""
    assert isinstance(env, Countdown)
    env.length = int(task["length"])  # type: ignore[arg-type]


COUNTDOWNS = CustomFamily(
    "countdown", (Parameter("length", low=1, high=7),), make=Countdown, set_task=set_length, horizon=6
)
