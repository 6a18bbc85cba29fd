"""A strategy for point navigation that is told the goals: what a learner cannot do better than."""

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Outcome
from metarl.trajectories import Trajectories


class GoToGoal:
    """Goes straight to the goal along each axis; no policy returns more, as each offset shrinks as fast as it can.

    Args:
        goals: one per task or, for trials that repeat tasks, per trial, [task, 2].
        step: the longest move along an axis.
    """

    sequential = True

    def __init__(self, goals: np.ndarray, step: float) -> None:
        self.goals, self.step = goals, step

    def select(self, tasks: slice) -> "GoToGoal":
        """For some of the tasks."""
        return GoToGoal(self.goals[tasks], self.step)

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start new trials, one per task; nothing is random.

        Raises:
            ValueError: if there are not as many as goals.
        """
        if (len(task_seeds), num_parallel) != (len(self.goals), 1):
            raise ValueError(
                f"expected {len(self.goals)} tasks and their episodes in turn, got {len(task_seeds)} tasks and "
                f"{num_parallel} episodes in parallel"
            )

    def begin_episode(self) -> None:
        """The goal stays."""

    def act(self, observations: Tensor) -> Actions:
        """Moves [task, 1, 2] from the places observed, [task, 1, 2]."""
        moves = (self.goals[:, None] - observations.numpy()).clip(-self.step, self.step)
        return Actions(moves, torch.from_numpy(moves / self.step).float(), {})

    def observe(self, outcome: Outcome) -> None:
        """There is nothing to learn."""

    def adapt(self, trajectories: Trajectories) -> "GoToGoal":
        """Itself."""
        return self
