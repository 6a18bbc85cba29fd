"""Plain Gymnasium environments for tests of what runs such, importable by worker processes."""

import os
import time
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
