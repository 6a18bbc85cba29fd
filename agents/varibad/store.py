"""The latest trials of a run, which VariBAD's beliefs are learned from.

Beliefs that learn from the last collection alone forget what it does not show. Where rewards are rare, a policy
that misses them leaves a batch of zeros, from which the decoder learns that there are none; beliefs then tell
nothing, and the policy misses rewards more often.

Unlike the replay of `metarl.learning.replay` it lies in the checkpoint, and not in a file that grows with every
step: agents that learn from their last trials take many more steps than those with a replay.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from metarl.learning.trials import TrialSteps
from metarl.trajectories import map_observations


class TrialStore:
    """A ring of trials with their outcomes, on the CPU.

    Args:
        capacity: Number of trials; the oldest are overwritten.
        longest: Greatest number of steps of a trial.
    """

    def __init__(self, capacity: int, longest: int) -> None:
        self.capacity, self.longest = capacity, longest
        self.num_added = 0
        self.tasks = [""] * capacity
        self._steps: TrialSteps | None = None  # [time, place, ...], made when the first trials come
        self._mask = torch.zeros(longest, capacity, dtype=torch.bool)

    def add(self, steps: TrialSteps, mask: Tensor, tasks: Sequence[object]) -> None:
        """Store trials; of more than there is room for, the last ones.

        Args:
            steps: Steps of the trials, [time, trial, ...], on the CPU.
            mask: True for real steps, [time, trial], on the CPU.
            tasks: Task of each trial, for messages.
        """
        first = max(0, len(tasks) - self.capacity)
        places = self._next(len(tasks))
        time = len(mask)
        if self._steps is None:
            self._steps = steps.map(lambda part: part.new_zeros(self.longest, self.capacity, *part.shape[2:]))

        def copy(stored: Tensor, new: Tensor) -> Tensor:
            return stored[:time].index_copy_(1, places, new[:, first:])

        for stored, new in zip(self._steps, steps, strict=True):
            map_observations(copy, stored, new)
        self._mask[:, places] = False
        self._mask[:time, places] = mask[:, first:]
        for place, task in zip(places.tolist(), tasks[first:], strict=True):
            self.tasks[place] = str(task)
        self.num_added += len(tasks)

    def _next(self, num_trials: int) -> Tensor:
        """Places of so many new trials; of more than there is room for, the last ones."""
        first = max(0, num_trials - self.capacity)
        return torch.arange(self.num_added + first, self.num_added + num_trials) % self.capacity

    @contextmanager
    def adding(self, steps: TrialSteps, mask: Tensor, tasks: Sequence[object]) -> Iterator[None]:
        """Trials that are stored as by `add`, unless the block raises a FloatingPointError.

        Only what they overwrite is copied, so that the size of the store costs an update nothing.
        """
        count, names, places = self.num_added, list(self.tasks), self._next(len(tasks))
        before = None if self._steps is None else self._steps.map(lambda part: part[:, places])
        real = self._mask[:, places]
        self.add(steps, mask, tasks)
        try:
            yield
        except FloatingPointError:
            self.num_added, self.tasks, self._mask[:, places] = count, names, real
            if before is None or self._steps is None:
                self._steps = None
            else:
                for stored, part in zip(self._steps, before, strict=True):
                    map_observations(lambda into, rows: into.index_copy_(1, places, rows), stored, part)
            raise

    def draw(self, num_trials: int, generator: torch.Generator) -> tuple[TrialSteps, Tensor, list[str]]:
        """Different trials, drawn uniformly: steps [time, trial, ...], mask [time, trial], and their tasks."""
        assert self._steps is not None, "there must be trials to draw from"
        chosen = torch.randperm(min(self.num_added, self.capacity), generator=generator)[:num_trials]
        mask = self._mask[:, chosen]
        time = int(mask.sum(0).max())
        steps = self._steps.map(lambda part: part[:time].index_select(1, chosen))
        return steps, mask[:time], [self.tasks[place] for place in chosen.tolist()]

    def state_dict(self) -> dict[str, Any]:
        """All trials, and how many were added."""
        steps = None if self._steps is None else self._steps._asdict()
        return {"steps": steps, "mask": self._mask, "tasks": list(self.tasks), "num_added": self.num_added}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            ValueError: if it is of a store of another size.
        """
        if state["mask"].shape != self._mask.shape:
            sizes = [f"{shape[1]} trials of {shape[0]} steps" for shape in (self._mask.shape, state["mask"].shape)]
            raise ValueError(f"the store of trials must have {sizes[0]}, got {sizes[1]}")
        self._steps = None if state["steps"] is None else TrialSteps(**state["steps"])
        self._mask, self.tasks, self.num_added = state["mask"], list(state["tasks"]), int(state["num_added"])
