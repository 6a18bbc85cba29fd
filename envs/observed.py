"""TaskObserved: a family whose environments show their task, for oracles that need not infer which it is.

A policy trained on it observes what others must infer, and so shows about how much adaptation can be worth. It is
a trained agent like the others, not a bound. The tasks are the wrapped family's own: an oracle and the agents that
it is compared with run on the very same ones.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from metarl.envs.vector import TaskVectorEnv
from metarl.observations import describe
from metarl.task_numbers import TaskNumbers
from metarl.tasks import FiniteTasks, Task, TaskDistribution, TaskFamily, Transition


class TaskObserved(TaskFamily):
    """A family whose observations end with the task's parameters, each scaled from its bounds to [-1, 1].

    Args:
        family: Family whose tasks are shown; its name and tasks stay the same.

    Raises:
        ValueError: if a parameter has no finite bounds.
    """

    def __init__(self, family: TaskFamily) -> None:
        self.family = family
        self.name, self.parameters, self.horizon = family.name, family.parameters, family.horizon
        self.numbers = TaskNumbers(family)

    def check(self, task: Task) -> None:
        """Check a task in the way of the wrapped family."""
        self.family.check(task)

    def make_env(
        self, num_envs: int, *, horizon: int | None = None, num_threads: int | None = None
    ) -> "TaskObservedEnv":
        """The family's environment, with its tasks shown."""
        env = self.family.make_env(num_envs, horizon=horizon, num_threads=num_threads)
        if not isinstance(env, TaskVectorEnv | TaskObservedEnv):
            raise TypeError(f"expected a family whose environments are TaskVectorEnvs, got {type(env).__name__}")
        return TaskObservedEnv(env, self)


class TaskObservedEnv(VectorWrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """A vector environment whose observations end with its tasks."""

    def __init__(self, env: "TaskVectorEnv | TaskObservedEnv", family: TaskObserved) -> None:
        inner: VectorEnv[np.ndarray, np.ndarray, np.ndarray] = env
        super().__init__(inner)
        self.family, self._tasked = family, env
        self.max_episode_steps: int = env.max_episode_steps
        space = env.single_observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"observations must be a list of numbers to be extended, got {describe(space)}")
        self._vectors = np.zeros((env.num_envs, family.numbers.size), dtype=space.dtype)
        ones = np.ones(self._vectors.shape[1], dtype=space.dtype)
        self.single_observation_space = spaces.Box(
            np.concatenate((space.low, -ones)), np.concatenate((space.high, ones)), dtype=space.dtype.type
        )
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def resize(self, num_envs: int) -> bool:
        """Take another number of rows, if the environment inside can."""
        resized = self._tasked.resize(num_envs)
        if resized:
            self.observation_space = batch_space(self.single_observation_space, num_envs)
        return resized

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The task of every sub-environment; empty before `set_tasks`."""
        return self._tasked.tasks

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Give every sub-environment its task; takes effect at the next reset."""
        self._tasked.set_tasks(tasks)
        self._vectors = self.family.numbers.vectors(tasks).astype(self._vectors.dtype)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode in every sub-environment."""
        observations, infos = self._tasked.reset(seed=seed, options=options)
        return self._extended(observations), infos

    def advance(self, actions: np.ndarray, rows: np.ndarray | None = None) -> Transition:
        """Step the given rows once, without any automatic reset."""
        after = self._tasked.advance(actions, rows)
        return after._replace(observations=self._extended(after.observations, rows))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every sub-environment and reset those that ended, as the autoreset mode says."""
        observations, rewards, terminated, truncated, infos = self._tasked.step(actions)
        if "final_obs" in infos:
            for row in np.flatnonzero(infos["_final_obs"]):
                infos["final_obs"][row] = np.concatenate((infos["final_obs"][row], self._vectors[row]))
        return self._extended(observations), rewards, terminated, truncated, infos

    @property
    def can_render(self) -> bool:
        """Whether rows can be drawn by `render_row`."""
        return self._tasked.can_render

    @property
    def render_fps(self) -> int:
        """Number of steps per second of the simulated world."""
        return self._tasked.render_fps

    @property
    def control_period_s(self) -> float | None:
        """Seconds of the simulated world between two actions."""
        return self._tasked.control_period_s

    def render_row(self, row: int) -> np.ndarray:
        """A picture of one sub-environment, uint8 [height, width, 3]; the shown task is not in it."""
        return self._tasked.render_row(row)

    def _extended(self, observations: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        vectors = self._vectors if rows is None else self._vectors[rows]
        extended: np.ndarray = np.concatenate((observations, vectors), axis=1)
        return extended


class TasksOf(TaskDistribution):
    """The tasks of a distribution, run in another family's environments.

    Args:
        family: Family that makes the environments; it must take the same tasks.
        tasks: Distribution that draws the tasks.
    """

    def __init__(self, family: TaskFamily, tasks: TaskDistribution) -> None:
        self.family, self._tasks = family, tasks

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw from the distribution."""
        return self._tasks.sample(num_tasks, rng)


def observed(tasks: TaskDistribution) -> TaskDistribution:
    """The same tasks, shown in the observations."""
    family = TaskObserved(tasks.family)
    return FiniteTasks(family, tasks.tasks) if isinstance(tasks, FiniteTasks) else TasksOf(family, tasks)
