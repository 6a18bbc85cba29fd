"""Confusions of a classifier of few examples, and how far its probabilities can be believed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.data.classes import ClassEpisodes
from metarl.fewshot.episodes import Examples, by_task
from metarl.fewshot.learner import Learner


@dataclass(frozen=True)
class Diagnosis:
    """Predictions on many tasks, by class.

    Attributes:
        names: Names of the classes.
        confusion: Number of queries of each class that were taken for each class, int64 [true class, predicted].
        probabilities: Probability of the predicted class of every query, [query].
        right: Whether the prediction of every query was right, bool [query].
    """

    names: tuple[str, ...]
    confusion: Tensor
    probabilities: Tensor
    right: Tensor

    @property
    def accuracy(self) -> float:
        """The fraction of queries that were right."""
        return float(self.right.double().mean())

    @property
    def by_class(self) -> dict[str, float]:
        """The fraction of right queries of every class that was drawn, from the least."""
        totals = self.confusion.sum(1)
        shares = self.confusion.diagonal().double() / totals
        order = shares.argsort()  # of classes that were never drawn the share is NaN, and last
        return {self.names[place]: float(shares[place]) for place in order.tolist() if totals[place] > 0}

    @property
    def confused(self) -> list[tuple[str, str, int]]:
        """Pairs of a class and another that it was taken for, with the number of times, from the largest."""
        apart = self.confusion.clone().fill_diagonal_(0)
        places = apart.flatten().argsort(descending=True, stable=True)
        size = len(self.names)
        pairs = [(place // size, place % size) for place in places.tolist()]
        return [(self.names[a], self.names[b], int(apart[a, b])) for a, b in pairs if apart[a, b] > 0]

    def calibration(self, num_bins: int = 15) -> float:
        """The expected calibration error (Naeini et al. 2015), see `calibration_error`."""
        return calibration_error(self.probabilities, self.right, num_bins)


def diagnose(
    learner: Learner,
    source: ClassEpisodes,
    rng: np.random.Generator,
    *,
    num_tasks: int,
    num_steps: int,
    tasks_at_once: int = 20,
) -> Diagnosis:
    """Predict the queries of tasks and count what is taken for what.

    Args:
        learner: Trained learner; it is left as it is.
        source: Source of the tasks.
        rng: Random stream that the tasks are drawn from.
        num_tasks: Number of tasks.
        num_steps: Number of adaptation steps, of learners that have them.
        tasks_at_once: Number of tasks that are held in memory together.
    """
    drawn = source.with_labels("class")
    size = len(source.data.names)
    confusion = torch.zeros(size * size, dtype=torch.int64)
    probabilities, right = [], []
    for start in range(0, num_tasks, tasks_at_once):
        episodes = drawn.sample(min(tasks_at_once, num_tasks - start), rng)
        relabelled = by_task(episodes)
        support: Examples = relabelled.support
        outputs = learner.adapt(support, num_steps)[-1](relabelled.query.inputs).cpu()
        best, places = outputs.double().softmax(-1).max(-1)
        classes = torch.stack([targets.unique() for targets in episodes.support.targets]).cpu()
        predicted = classes.gather(1, places)
        true = episodes.query.targets.cpu()
        confusion += torch.bincount((true * size + predicted).flatten(), minlength=size * size)
        probabilities.append(best.flatten())
        right.append((predicted == true).flatten())
    return Diagnosis(source.data.names, confusion.view(size, size), torch.cat(probabilities), torch.cat(right))


def calibration_error(probabilities: Tensor, right: Tensor, num_bins: int = 15) -> float:
    """The mean distance of probability and accuracy over bins of equal width, each weighted by its queries.

    Args:
        probabilities: Probability of the predicted class of every query, [query].
        right: Whether the prediction was right, bool [query].
        num_bins: Number of bins of [0, 1].
    """
    bins = (probabilities * num_bins).long().clamp_max(num_bins - 1)
    gaps = torch.zeros(num_bins, dtype=torch.float64)
    gaps.index_add_(0, bins, probabilities.double() - right.double())
    return float(gaps.abs().sum() / len(probabilities))
