"""T-mazes: remember a sign along a corridor (Bakker 2001; Ni et al. 2023, arXiv:2307.03864).

The walker sees at the start which way to turn at the end, and never again. Falling behind costs from the first
step on, so that nothing has to be explored: what is measured is how long a memory lasts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from metarl.envs.pictures import AGENT, GOAL, LINES, Plane
from metarl.envs.vector import Infos, NumpyFamily, TaskVectorEnv
from metarl.tasks import Parameter, Task

MOVES = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])  # on, back, up, down
MOST_CELLS = 1_000_000


class TMaze(NumpyFamily):
    """A corridor of some length that ends in a junction, where the way up or the way down is right.

    The observation is three numbers: the right way, 1 or -1, at the start, else 0; whether the walker is at the
    start; whether it is at the junction. Actions are on, back, up and down. A step into a wall stays where it is.
    The right arm gives 1, the wrong one 0, and both end the episode. Every step after which the walker is not as
    far as it could be costs 1 / length, waiting at the junction too. An episode has a quarter more steps than are
    needed; going straight on and turning rightly returns 1, turning by chance 0.5.

    Args:
        length: Number of steps from the start to the junction.
    """

    parameters = (Parameter("way", choices=(-1.0, 1.0)),)

    def __init__(self, length: int) -> None:
        if not 1 <= length <= MOST_CELLS:
            raise ValueError(f"the length of a T-maze must be between 1 and {MOST_CELLS:,}, got {length}")
        self.length = length
        self.name = f"tmaze-{length}"
        self.horizon = length + length // 4 + 2

    def new_env(self, num_envs: int, max_episode_steps: int, autoreset_mode: AutoresetMode | str) -> "TMazeEnv":
        """Create an environment of many corridors, one per row."""
        return TMazeEnv(self, num_envs, max_episode_steps, autoreset_mode)


class TMazeEnv(TaskVectorEnv):
    """Walkers in corridors, one each."""

    def __init__(
        self,
        family: TMaze,
        num_envs: int,
        max_episode_steps: int,
        autoreset_mode: AutoresetMode | str,
    ) -> None:
        super().__init__(
            family,
            num_envs,
            spaces.Box(-1.0, 1.0, (3,), np.float32),
            spaces.Discrete(len(MOVES)),
            max_episode_steps=max_episode_steps,
            autoreset_mode=autoreset_mode,
        )
        self.length = family.length
        self._places = np.zeros(num_envs, dtype=np.int64)
        self._arms = np.zeros(num_envs, dtype=np.int64)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._ways = np.zeros(num_envs)

    def _set_task_params(self, params: Mapping[str, np.ndarray], tasks: Sequence[Task]) -> None:
        self._ways = params["way"]

    def _begin(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, Infos]:
        self._places[rows] = self._arms[rows] = self._steps[rows] = 0
        return self._observe(rows, first=True), {}

    def _simulate(
        self, actions: np.ndarray, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Infos]:
        index: slice | np.ndarray = slice(None) if rows is None else rows
        moves = MOVES[actions]
        at_junction = self._places[index] == self.length
        arms = np.where(at_junction, moves[:, 1], 0)
        self._places[index] = np.clip(self._places[index] + moves[:, 0], 0, self.length)
        self._arms[index] = arms
        self._steps[index] += 1
        ended = arms != 0
        right = ended & (arms == self._ways[index])
        behind = ~ended & (self._places[index] < self._steps[index])
        rewards = right * 1.0 - behind / self.length
        return self._observe(index, first=False), rewards, ended, {"success": right * 1.0}

    def _observe(self, index: slice | np.ndarray, *, first: bool) -> np.ndarray:
        places = self._places[index]
        way = self._ways[index] if first else np.zeros(len(places))
        return np.stack((way, places == 0, places == self.length), axis=1).astype(np.float32)

    def render_row(self, row: int) -> np.ndarray:
        """The corridor, the right arm, and the walker."""
        plane = Plane((-0.5, self.length + 0.5))
        middle, cell = self.length / 2, max(1.0, self.length / 20)
        plane.line((0.0, middle), (self.length, middle), LINES, width=3)
        plane.line((self.length, middle - cell), (self.length, middle + cell), LINES, width=3)
        plane.square((self.length, middle + cell * float(self._ways[row])), cell / 2, GOAL)
        plane.disk((float(self._places[row]), middle + cell * float(self._arms[row])), cell / 3, AGENT)
        return plane.pixels()
