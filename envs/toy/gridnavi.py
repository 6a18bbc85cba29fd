"""GridNavi: find a hidden goal cell, then go straight back to it (Zintgraf et al. 2020, arXiv:1910.08348)."""

from collections.abc import Mapping, Sequence

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from metarl.envs.pictures import AGENT, GOAL, LINES, Plane
from metarl.envs.vector import Infos, NumpyFamily, TaskVectorEnv
from metarl.learning.relabelling import RecordedSteps
from metarl.tasks import Parameter, Task

SIZE = 5
MOVES = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])  # no-op, up, right, down, left
NEAR_START = {(0, 0), (0, 1), (1, 1), (1, 0)}
GOALS = [(x, y) for x in range(SIZE) for y in range(SIZE) if (x, y) not in NEAR_START]


class GridNavi(NumpyFamily):
    """A 5 x 5 grid from the corner (0, 0); reward 1 on the goal, which can be stayed on, and -0.1 elsewhere.

    The observation is the cell (x, y); the actions are no-op, up, right, down and left. 15 steps.
    """

    name = "gridnavi"
    horizon = 15
    parameters = (Parameter("goal", size=2, choices=tuple(float(x) for x in range(SIZE))),)

    def task_reached(self, steps: RecordedSteps, rng: np.random.Generator) -> Task:
        """A cell that was visited and may be a goal; any goal if none was."""
        visited = [cell for cell in map(tuple, np.asarray(steps.next_observations).tolist()) if cell in GOALS]
        cells = visited or GOALS
        return Task.of(self.name, goal=cells[rng.integers(len(cells))])

    def rewards_in(self, task: Task, steps: RecordedSteps) -> np.ndarray:
        """Rewards with another goal, [step]."""
        return _rewards(np.asarray(steps.next_observations), np.array(task["goal"]))

    def new_env(self, num_envs: int, max_episode_steps: int, autoreset_mode: AutoresetMode | str) -> "GridNaviEnv":
        """Create an environment of many grids, one per row."""
        return GridNaviEnv(self, num_envs, max_episode_steps, autoreset_mode)


def _rewards(cells: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Rewards in cells [row, 2], with a goal each [row, 2] or one [2]."""
    return np.where((cells == goals).all(1), 1.0, -0.1)


class GridNaviEnv(TaskVectorEnv):
    """Walkers on grids, one goal each."""

    def __init__(
        self,
        family: GridNavi,
        num_envs: int,
        max_episode_steps: int,
        autoreset_mode: AutoresetMode | str,
    ) -> None:
        super().__init__(
            family,
            num_envs,
            spaces.Box(0.0, SIZE - 1.0, (2,), np.float32),
            spaces.Discrete(len(MOVES)),
            max_episode_steps=max_episode_steps,
            autoreset_mode=autoreset_mode,
        )
        self._cells = np.zeros((num_envs, 2), dtype=np.int64)
        self._goals = np.zeros((num_envs, 2))

    def _set_task_params(self, params: Mapping[str, np.ndarray], tasks: Sequence[Task]) -> None:
        self._goals = params["goal"]

    def _begin(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, Infos]:
        self._cells[rows] = 0
        return self._cells[rows].astype(np.float32), {}

    def _simulate(
        self, actions: np.ndarray, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Infos]:
        index: slice | np.ndarray = slice(None) if rows is None else rows
        cells = np.clip(self._cells[index] + MOVES[actions], 0, SIZE - 1)
        self._cells[index] = cells
        rewards = _rewards(cells, self._goals[index])
        there = rewards > 0
        return cells.astype(np.float32), rewards, np.zeros(len(cells), dtype=np.bool_), {"success": there * 1.0}

    def render_row(self, row: int) -> np.ndarray:
        """The grid, the goal cell and the walker."""
        plane = Plane((-0.5, SIZE - 0.5))
        plane.square(tuple(self._goals[row]), 1.0, GOAL)
        for border in np.arange(-0.5, SIZE):
            plane.line((-0.5, border), (SIZE - 0.5, border), LINES)
            plane.line((border, -0.5), (border, SIZE - 0.5), LINES)
        x, y = self._cells[row].tolist()
        plane.disk((x, y), 0.3, AGENT)
        return plane.pixels()
