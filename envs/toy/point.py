"""Point navigation: a point in the plane walks to a hidden goal. Vectorised in numpy."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from metarl.envs.pictures import AGENT, GOAL, LINES, Plane
from metarl.envs.vector import Infos, NumpyFamily, TaskVectorEnv
from metarl.learning.relabelling import RecordedSteps
from metarl.tasks import Parameter, Task


class PointFamily(NumpyFamily):
    """The point moves by its action, at most 0.1 along each axis; the observation is its position.

    Attributes:
        start_range: Range of the start, uniform in +-start_range along each axis; 0 is the origin.
        sparse: Whether only positions near the goal are rewarded.
        ends_at_goal: Whether the episode terminates within 0.01 of the goal along both axes.
    """

    parameters = (Parameter("goal", size=2, low=-10.0, high=10.0),)
    start_range: ClassVar[float] = 0.0
    sparse: ClassVar[bool] = False
    ends_at_goal: ClassVar[bool] = False

    def rewards(self, distances: np.ndarray) -> np.ndarray:
        """Rewards at so many distances from the goal."""
        return np.where(distances <= PointEnv.GOAL_RADIUS, 1.0 - distances, 0.0) if self.sparse else -distances

    def new_env(self, num_envs: int, max_episode_steps: int, autoreset_mode: AutoresetMode | str) -> "PointEnv":
        """Create an environment of many points, one per row."""
        return PointEnv(self, num_envs, max_episode_steps, autoreset_mode)


class Point(PointFamily):
    """Reward -|s - g|, start at the origin, ends at the goal, 100 steps (Finn et al. 2017)."""

    name = "point"
    horizon = 100
    ends_at_goal = True


class EndlessPoint(PointFamily):
    """Episodes end at the time limit alone, so that tasks differ in their rewards alone."""

    def task_reached(self, steps: RecordedSteps, rng: np.random.Generator) -> Task:
        """A place where the point was, as the goal."""
        places = np.asarray(steps.next_observations)
        return Task.of(self.name, goal=places[rng.integers(len(places))].clip(-10.0, 10.0))

    def rewards_in(self, task: Task, steps: RecordedSteps) -> np.ndarray:
        """Rewards with another goal, [step]."""
        return self.rewards(np.linalg.norm(np.asarray(steps.next_observations) - np.array(task["goal"]), axis=1))


class PointUniformStart(EndlessPoint):
    """Reward -|s - g|, start uniform in [-1, 1]^2, never ends, 20 steps (Rakelly et al. 2019)."""

    name = "point-uniform-start"
    horizon = 20
    start_range = 1.0


class SparsePoint(EndlessPoint):
    """Reward 1 - |s - g| within 0.2 of the goal and 0 elsewhere, 20 steps (Rakelly et al. 2019).

    The infos hold the dense reward -|s - g| as "dense_reward", which PEARL trains on.
    """

    name = "sparse-point"
    horizon = 20
    sparse = True


class SparsePoint100(SparsePoint):
    """Sparse-point with 100 steps (Zintgraf et al. 2020)."""

    name = "sparse-point-100"
    horizon = 100


class PointEnv(TaskVectorEnv):
    """Points in the plane, one goal each."""

    STEP = 0.1
    GOAL_RADIUS = 0.2
    family: PointFamily

    def __init__(
        self,
        family: PointFamily,
        num_envs: int,
        max_episode_steps: int,
        autoreset_mode: AutoresetMode | str,
    ) -> None:
        super().__init__(
            family,
            num_envs,
            spaces.Box(-np.inf, np.inf, (2,), np.float64),
            spaces.Box(-self.STEP, self.STEP, (2,), np.float32),
            max_episode_steps=max_episode_steps,
            autoreset_mode=autoreset_mode,
        )
        self._positions = np.zeros((num_envs, 2))
        self._goals = np.zeros((num_envs, 2))

    def _set_task_params(self, params: Mapping[str, np.ndarray], tasks: Sequence[Task]) -> None:
        self._goals = params["goal"]

    def _begin(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, Infos]:
        extent = self.family.start_range
        self._positions[rows] = 0.0
        if extent > 0:
            self._positions[rows] = np.stack([rng.uniform(-extent, extent, 2) for rng in rngs])
        return self._positions[rows], {}

    def _simulate(
        self, actions: np.ndarray, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Infos]:
        index: slice | np.ndarray = slice(None) if rows is None else rows
        self._positions[index] += np.clip(actions.astype(np.float64), -self.STEP, self.STEP)
        offsets = self._positions[index] - self._goals[index]
        distance = np.linalg.norm(offsets, axis=1)
        near = distance <= self.GOAL_RADIUS
        rewards = self.family.rewards(distance)
        arrived = np.logical_and.reduce(np.abs(offsets) < 0.01, axis=1)
        terminated = np.logical_and(arrived, self.family.ends_at_goal)
        infos = {"dense_reward": -distance, "success": near.astype(np.float64)}
        return self._positions[index], rewards, terminated, infos

    def render_row(self, row: int) -> np.ndarray:
        """The point and its goal in the plane, with the disk that counts as success."""
        position, goal = tuple(self._positions[row]), tuple(self._goals[row])
        reach = max(1.25, 1.1 * float(np.abs([position, goal]).max()))
        plane = Plane((-reach, reach))
        plane.line((-reach, 0.0), (reach, 0.0), LINES)
        plane.line((0.0, -reach), (0.0, reach), LINES)
        plane.disk(goal, self.GOAL_RADIUS, GOAL, filled=False)
        plane.disk(goal, reach / 60, GOAL)
        plane.disk(position, reach / 30, AGENT)
        return plane.pixels()
