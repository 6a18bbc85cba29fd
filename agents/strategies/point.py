"""A strategy for point navigation that knows the goals: an upper bound for every learner."""

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Outcome
from metarl.trajectories import Trajectories


class GoToGoal:
    """Goes straight to the goal along each axis; no policy returns more, as each offset shrinks as fast as it can.

    Args:
        goals: Goal of every task or, for trials that repeat tasks, of every trial, [task, 2].
        step: Longest move along an axis.
    """

    sequential = True

    def __init__(self, goals: np.ndarray, step: float) -> None:
        self.goals, self.step = goals, step

    def select(self, tasks: slice) -> "GoToGoal":
        """The same strategy for a part of the tasks."""
        return GoToGoal(self.goals[tasks], self.step)

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start new trials, one per task; nothing is random.

        Raises:
            ValueError: If there are not as many tasks as goals, or episodes of a task run in parallel.
        """
        if (len(task_seeds), num_parallel) != (len(self.goals), 1):
            raise ValueError(
                f"expected {len(self.goals)} tasks and their episodes in turn, got {len(task_seeds)} tasks and "
                f"{num_parallel} episodes in parallel"
            )

    def begin_episode(self) -> None:
        """An episode changes nothing: the goal stays the same."""

    def act(self, observations: Tensor) -> Actions:
        """Moves [task, 1, 2] from the observed positions, [task, 1, 2]."""
        moves = (self.goals[:, None] - observations.numpy()).clip(-self.step, self.step)
        return Actions(moves, torch.from_numpy(moves / self.step).float(), {})

    def observe(self, outcome: Outcome) -> None:
        """There is nothing to learn."""

    def adapt(self, trajectories: Trajectories) -> "GoToGoal":
        """The strategy itself: it knows the goals already."""
        return self
