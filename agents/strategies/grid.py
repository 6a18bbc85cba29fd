"""A strategy for GridNavi, on many tasks at once: search the grid, then go straight to the goal."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Outcome
from metarl.trajectories import Trajectories

Cell = tuple[int, int]


class SearchThenGo:
    """Visits the candidate cells until one pays, stays there, and walks straight there in later episodes.

    On the 5 x 5 grid of GridNavi no strategy does better. From the second step on, every step of the first episode
    reaches another candidate, 14 of 21. The other 7 lie on a straight path from (0, 0), so that from the second
    episode on the goal is reached as soon as if it were known.

    Args:
        size: Number of cells along a side; episodes start in (0, 0).
        candidates: Cells that may be the goal, as (x, y).
        horizon: Steps of an episode; the next episode continues the search.
    """

    sequential = True

    def __init__(self, size: int, candidates: Sequence[Cell], horizon: int) -> None:
        if not candidates or any(not (0 <= x < size and 0 <= y < size) for x, y in candidates):
            raise ValueError(f"candidates must be cells of a grid of {size} x {size}, got {list(candidates)}")
        self.order = np.array(search_order(candidates, horizon))  # [candidate, 2]
        self._goals = np.zeros((0, 2), dtype=np.int64)
        self._goal_known = np.zeros(0, dtype=np.bool_)
        self._visited = np.zeros((0, len(self.order)), dtype=np.bool_)

    def select(self, tasks: slice) -> "SearchThenGo":
        """The strategy itself: it starts every trial in the same state."""
        return self

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start new trials, one per task; nothing is random."""
        if num_parallel != 1:
            raise ValueError(f"a trial's episodes follow one another, got {num_parallel} in parallel")
        num_tasks = len(task_seeds)
        self._goals = np.zeros((num_tasks, 2), dtype=np.int64)
        self._goal_known = np.zeros(num_tasks, dtype=np.bool_)
        self._visited = np.zeros((num_tasks, len(self.order)), dtype=np.bool_)

    def begin_episode(self) -> None:
        """Start the walk over; the visited cells and the goal are remembered."""

    def act(self, observations: Tensor) -> Actions:
        """Moves [task, 1] from the cells observed [task, 1, 2]: no-op 0, up 1, right 2, down 3, left 4."""
        cells = observations[:, 0].numpy().round().astype(np.int64)
        unvisited = self.order[self._visited.argmin(1)]
        east, north = (np.where(self._goal_known[:, None], self._goals, unvisited) - cells).T
        sideways = np.where(east > 0, 2, np.where(east < 0, 4, 0))
        actions = np.where(north > 0, 1, np.where(north < 0, 3, sideways))[:, None]
        return Actions(actions, torch.from_numpy(actions), {})

    def observe(self, outcome: Outcome) -> None:
        """Remember the cell that was reached, and whether it pays."""
        cells = outcome.observations[:, 0].numpy().round().astype(np.int64)
        alive = outcome.alive[:, 0].numpy()
        pays = alive & (outcome.rewards[:, 0].numpy() > 0)
        self._goals = np.where(pays[:, None], cells, self._goals)
        self._goal_known |= pays
        self._visited |= alive[:, None] & (cells[:, None] == self.order).all(-1)

    def adapt(self, trajectories: Trajectories) -> "SearchThenGo":
        """The strategy itself: it adapts while it acts."""
        return self


def search_order(candidates: Sequence[Cell], horizon: int) -> list[Cell]:
    """The candidates in the order of a walk from (0, 0) that starts over every `horizon` steps.

    It goes to the nearest unvisited candidate; of several, to the one furthest left, and of these to the highest.

    Raises:
        ValueError: If an episode is too short to reach a candidate.
    """
    unvisited, order = set(candidates), []
    cell, left = (0, 0), horizon
    while unvisited:
        steps, x, height = min((abs(x - cell[0]) + abs(y - cell[1]), x, -y) for x, y in unvisited)
        target = (x, -height)
        if steps > left:
            if cell == (0, 0):
                raise ValueError(f"the cell {target} is {steps} steps away, and an episode has only {horizon}")
            cell, left = (0, 0), horizon
            continue
        unvisited.discard(target)
        order.append(target)
        cell, left = target, left - steps
    return order
