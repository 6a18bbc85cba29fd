"""Episodes: few-shot tasks as tensors, a whole meta-batch at a time."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.objectives import IGNORED, is_classification


class Examples(NamedTuple):
    """Labelled examples of several tasks.

    Attributes:
        inputs: Inputs [task, row, *input].
        targets: Class indices int64 [task, row], or numbers to predict [task, row, out].
    """

    inputs: Tensor
    targets: Tensor

    @staticmethod
    def of_one_task(inputs: Tensor, targets: Tensor) -> "Examples":
        """The examples of a single task, inputs [row, *input] and targets [row] or [row, out].

        Classes may be of any integer type, or of bool.
        """
        if not targets.is_floating_point():
            targets = targets.long()
        if len(inputs) != len(targets):
            raise ValueError(f"expected as many targets as inputs, got {len(targets)} and {len(inputs)}")
        return Examples(inputs.unsqueeze(0), targets.unsqueeze(0))

    def rows(self, indices: Tensor) -> "Examples":
        """Chosen rows of every task, by indices [task, chosen]."""
        tasks = torch.arange(len(indices), device=indices.device).unsqueeze(1)
        return Examples(self.inputs[tasks, indices], self.targets[tasks, indices])

    def real(self) -> "Examples":
        """The rows of a single task that are not padding."""
        if self.targets.is_floating_point():
            return self
        rows = self.targets[0] != IGNORED
        return Examples(self.inputs[:, rows], self.targets[:, rows])

    def join(self, other: "Examples") -> "Examples":
        """The examples of both, row after row."""
        return Examples(torch.cat([self.inputs, other.inputs], 1), torch.cat([self.targets, other.targets], 1))


class Episodes(NamedTuple):
    """Support sets to adapt to and query sets to be judged on, of the same tasks."""

    support: Examples
    query: Examples

    @property
    def num_tasks(self) -> int:
        """Tasks in the batch."""
        return len(self.support.inputs)

    @property
    def is_ragged(self) -> bool:
        """Whether rows are padding, because tasks differ in their ways or shots."""
        return any(bool((part.targets == IGNORED).any()) for part in self if is_classification(part.targets))

    def alone(self) -> "list[Episodes]":
        """Every task by itself, without its padding."""
        return [Episodes(*(part.real() for part in task)) for task in self.split(1)]

    def select(self, tasks: slice) -> "Episodes":
        """Some of the tasks."""
        return Episodes(*(Examples(part.inputs[tasks], part.targets[tasks]) for part in self))

    def split(self, num_tasks: int) -> "list[Episodes]":
        """The same tasks in batches of at most this many."""
        pieces = [torch.split(tensor, num_tasks) for examples in self for tensor in examples]
        return [Episodes(Examples(a, b), Examples(c, d)) for a, b, c, d in zip(*pieces, strict=True)]


def by_task(episodes: Episodes) -> Episodes:
    """The same tasks with places among their own classes for targets, whatever numbers the classes have."""
    support: list[Tensor] = []
    query: list[Tensor] = []
    for known, new in zip(episodes.support.targets, episodes.query.targets, strict=True):
        classes = known[known != IGNORED].unique()
        for places, numbers in ((support, known), (query, new)):
            places.append(torch.searchsorted(classes, numbers).masked_fill(numbers == IGNORED, IGNORED))
    return Episodes(
        Examples(episodes.support.inputs, torch.stack(support)),
        Examples(episodes.query.inputs, torch.stack(query)),
    )


class EpisodeSource(Protocol):
    """A distribution over few-shot tasks."""

    def sample(self, num_tasks: int, rng: np.random.Generator) -> Episodes:
        """Independent tasks; the same ones whenever the generator is in the same state."""
