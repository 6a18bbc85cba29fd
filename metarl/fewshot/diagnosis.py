"""Confusions of a classifier of few examples, accuracy by shots, and how far probabilities can be believed."""

import copy
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.data.classes import ClassEpisodes, ClassSource
from metarl.fewshot.episodes import Episodes, Examples, by_task
from metarl.fewshot.evaluation import check_least, drawn_tasks, embedded, prepared
from metarl.fewshot.learner import Learner, check_numbers
from metarl.fewshot.metric import MetricLearner, class_means
from metarl.fewshot.objectives import check_outputs, task_scores

Projection = Literal["pca", "tsne"]

_NONE = -1  # where a query was taken for no class of its task


@dataclass(frozen=True)
class Diagnosis:
    """Predictions on many tasks, by class.

    Attributes:
        names: Names of the classes.
        confusion: Number of queries of each class that were taken for each class, int64 [true class, predicted].
        of_none: Number of queries of each class that were taken for no class of their task, where a network has
            more outputs than tasks have classes, int64 [true class].
        probabilities: Probability of the predicted class of every query, [query].
        right: Whether the prediction of every query was right, bool [query].
        shots: Number of support examples of every query's class, int64 [query].
        accuracies: Fraction of right queries of every task, [task].
    """

    names: tuple[str, ...]
    confusion: Tensor
    of_none: Tensor
    probabilities: Tensor
    right: Tensor
    shots: Tensor
    accuracies: Tensor

    @property
    def accuracy(self) -> float:
        """The mean over tasks of the fraction of queries that were right, which an evaluation reports."""
        return float(self.accuracies.double().mean())

    @property
    def num_queries(self) -> Tensor:
        """The number of queries of each class, int64 [class]."""
        return self.confusion.sum(1) + self.of_none

    @property
    def by_class(self) -> dict[str, float]:
        """The fraction of right queries of every class that was drawn, from the least."""
        totals = self.num_queries
        shares = self.confusion.diagonal().double() / totals
        order = shares.argsort()  # of classes that were never drawn the share is NaN, and last
        return {self.names[place]: float(shares[place]) for place in order.tolist() if totals[place] > 0}

    @property
    def by_shots(self) -> dict[int, float]:
        """The fraction of right queries by their class's support examples: 1, 2 and 3, 4 to 7, 8 to 15, ...

        Keys are the least numbers. Where all classes have as many, `accuracy_by_shots` tells more.
        """
        powers = self.shots.double().log2().floor().long()
        numbers = sorted(set(powers.tolist()))
        return {2**power: float(self.right[powers == power].double().mean()) for power in numbers}

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

    def reliability(self, num_bins: int = 15) -> list[tuple[float, float, int]]:
        """Mean probability, accuracy and number of queries of every bin of probabilities that has some."""
        bins = _bins(self.probabilities, num_bins)
        there = [
            (self.probabilities[bins == place], self.right[bins == place]) for place in sorted(set(bins.tolist()))
        ]
        return [(float(p.mean()), float(right.double().mean()), len(p)) for p, right in there]


def diagnose(
    learner: Learner,
    source: ClassSource,
    rng: np.random.Generator,
    *,
    num_tasks: int,
    num_steps: int,
    views: int = 1,
    tasks_at_once: int = 20,
) -> Diagnosis:
    """Predict the queries of tasks and count what is taken for what.

    A prediction is the greatest output, as in evaluations, whose accuracy on the same tasks is the same. The score
    of an objective of one's own may be something else than accuracy.

    Args:
        learner: Trained learner; it is left as it is.
        source: Source of the tasks.
        rng: Random stream that the tasks are drawn from.
        num_tasks: Number of tasks.
        num_steps: Number of adaptation steps, of learners that have them.
        views: Number of views of an image whose mean features a learner that compares them takes.
        tasks_at_once: Number of tasks that are held in memory together.

    Raises:
        FloatingPointError: If an output is not a number.
        TypeError: If tasks are not of classes.
        ValueError: If a number is too small, or the learner cannot predict so many classes or compare such views.
    """
    if not isinstance(source, ClassSource):
        raise TypeError(f"expected a source of classes, such as ClassEpisodes, got {type(source).__name__}")
    check_least(0, num_steps=num_steps)
    adapt, features = prepared(learner, source, views)
    assert isinstance(features, ClassSource)
    parts = []
    # Classes have the outputs that evaluations give them, on which learners that adapt a last layer depend.
    by_class = drawn_tasks(features.with_labels("class"), copy.deepcopy(rng), num_tasks, tasks_at_once)
    by_place = drawn_tasks(features.with_labels("task"), rng, num_tasks, tasks_at_once)
    for (done, (support, query)), (_, named) in zip(by_place, by_class, strict=True):
        outputs = adapt(support, num_steps)[-1](query.inputs)
        check_outputs(outputs, query.targets)
        _check_outputs(learner, outputs, done - len(outputs))
        parts.append(_judged(outputs.cpu(), support.targets.cpu(), query.targets.cpu(), named))
    true, predicted, probabilities, shots, accuracies = map(torch.cat, zip(*parts, strict=True))
    size, is_none = len(source.data.names), predicted == _NONE
    pairs = (true * size + predicted)[~is_none]
    return Diagnosis(
        source.data.names,
        torch.bincount(pairs, minlength=size * size).view(size, size),
        torch.bincount(true[is_none], minlength=size),
        probabilities,
        predicted == true,
        shots,
        accuracies,
    )


class _Judged(NamedTuple):
    """The queries of some tasks, all in a row, and the accuracy of each task.

    Attributes:
        true: Classes, int64 [query].
        predicted: Classes that queries were taken for, _NONE for none of the task's, int64 [query].
        probabilities: Probabilities of what was predicted, [query].
        shots: Number of support examples of each query's class, int64 [query].
        accuracies: Fraction of right queries, [task].
    """

    true: Tensor
    predicted: Tensor
    probabilities: Tensor
    shots: Tensor
    accuracies: Tensor


def _judged(outputs: Tensor, support: Tensor, query: Tensor, named: Episodes) -> _Judged:
    """What the outputs [task, row, out] say of queries.

    Args:
        outputs: Outputs for the queries.
        support: Places of the support examples' classes among those of the task, [task, row].
        query: Places of the queries' classes, [task, row].
        named: The same tasks with indices of all classes for targets.
    """
    num_ways, true = int(support.max()) + 1, named.query.targets.cpu()
    classes = true.new_zeros(len(true), num_ways).scatter(1, support, named.support.targets.cpu())
    best, chosen = outputs.double().softmax(-1).amax(-1), outputs.argmax(-1)
    is_own = chosen < num_ways  # a network may have more outputs than the task has classes
    predicted = classes.gather(1, chosen.clamp_max(num_ways - 1)).masked_fill(~is_own, _NONE)
    counts = torch.stack([torch.bincount(places, minlength=num_ways) for places in support])
    right = (predicted == true).double().mean(1)
    return _Judged(true.flatten(), predicted.flatten(), best.flatten(), counts.gather(1, query).flatten(), right)


def _check_outputs(learner: Learner, outputs: Tensor, place: int) -> None:
    """Raise a FloatingPointError that names the first task of outputs [task, row, way] that are not numbers."""
    check_numbers(learner, ~outputs.isnan().flatten(1).any(1), "an output", place)


def accuracy_by_shots(
    learner: Learner,
    source: ClassEpisodes,
    rng: np.random.Generator,
    *,
    shots: Sequence[int],
    num_tasks: int,
    num_steps: int,
    views: int = 1,
    tasks_at_once: int = 20,
) -> dict[int, np.ndarray]:
    """The accuracy on every task from some of its support examples of each class, on the same queries.

    Tasks are of the classes that `diagnose` judges by. Their examples are others, drawn as for the most shots.

    Args:
        learner: Trained learner; it is left as it is.
        source: Source of the tasks.
        rng: Random stream that the tasks are drawn from.
        shots: Numbers of support examples per class; the fewer are the first of the more.
        num_tasks: Number of tasks.
        num_steps: Number of adaptation steps, of learners that have them.
        views: Number of views of an image whose mean features a learner that compares them takes.
        tasks_at_once: Number of tasks that are held in memory together.

    Returns:
        Accuracies [task] by the number of support examples.

    Raises:
        FloatingPointError: If an output is not a number.
        ValueError: If a class has too few examples, naming it, or a number is too small.
    """
    if not shots or not all(isinstance(number, Integral) and number >= 1 for number in shots):
        raise ValueError(f"shots must be whole numbers of 1 or more, at least one of them, got {list(shots)}")
    check_least(0, num_steps=num_steps)
    most = max(shots)
    wide = ClassEpisodes(
        source.data,
        num_ways=source.num_ways,
        num_shots=most,
        num_queries=source.num_queries,
        groups=source.groups,
    )
    adapt, wide = embedded(learner, wide, views=views)
    parts: dict[int, list[Tensor]] = {number: [] for number in shots}
    for done, (support, query) in drawn_tasks(wide, rng, num_tasks, tasks_at_once):
        for number, accuracies in parts.items():
            rows = (most * torch.arange(wide.num_ways).unsqueeze(1) + torch.arange(number)).flatten()
            few = support.rows(rows.expand(len(support.inputs), -1).to(support.inputs.device))
            outputs = adapt(few, num_steps)[-1](query.inputs)
            _check_outputs(learner, outputs, done - len(outputs))
            accuracies.append(task_scores(outputs, query.targets).cpu())
    return {number: torch.cat(accuracies).double().numpy() for number, accuracies in parts.items()}


class EmbeddedTask(NamedTuple):
    """The features of one task in a plane.

    Attributes:
        names: Names of the classes.
        support: Places of the support examples, [row, 2].
        support_classes: Classes of the support examples, int64 [row].
        query: Places of the queries, [row, 2].
        query_classes: Classes of the queries, int64 [row].
        right: Whether the prediction of every query is right, bool [row].
        prototypes: Places of the classes' mean features, [class, 2].
    """

    names: tuple[str, ...]
    support: np.ndarray
    support_classes: np.ndarray
    query: np.ndarray
    query_classes: np.ndarray
    right: np.ndarray
    prototypes: np.ndarray


def embed_task(
    learner: MetricLearner, source: ClassSource, rng: np.random.Generator, *, projection: Projection = "pca"
) -> EmbeddedTask:
    """Draw one task and lay its features and their means by class out in a plane.

    Args:
        learner: Trained learner that embeds every example by itself.
        source: Source of the task.
        rng: Random stream that the task is drawn from.
        projection: Way into the plane: principal components, or t-SNE where scikit-learn is installed.

    Raises:
        ValueError: If scikit-learn is not installed and needed.
    """
    drawn = source.with_labels("class").sample(1, rng).alone()[0]
    classes = sorted(set(drawn.support.targets[0].tolist()))
    support, query = by_task(drawn)
    features = [learner.features(part.inputs[0]) for part in (support, query)]
    known = Examples(features[0].unsqueeze(0), support.targets)
    right = learner.adapt_to_features(known, 0)[0](features[1].unsqueeze(0)).argmax(-1) == query.targets
    vectors = [part.flatten(1) for part in features]
    means = class_means(vectors[0].unsqueeze(0), support.targets)[0]
    plane = projected(torch.cat([*vectors, means]).double().cpu().numpy(), projection)
    first, second = len(vectors[0]), len(vectors[0]) + len(vectors[1])
    return EmbeddedTask(
        tuple(source.data.names[place] for place in classes),
        plane[:first],
        support.targets[0].cpu().numpy(),
        plane[first:second],
        query.targets[0].cpu().numpy(),
        right[0].cpu().numpy(),
        plane[second:],
    )


def check_projection(projection: Projection) -> None:
    """Raise a ValueError unless what a projection needs is installed."""
    if projection == "tsne" and importlib.util.find_spec("sklearn") is None:
        raise ValueError("t-SNE needs scikit-learn; pip install scikit-learn, or take --projection pca")


def projected(features: np.ndarray, projection: Projection) -> np.ndarray:
    """Features [row, feature] in a plane, [row, 2].

    Raises:
        ValueError: If scikit-learn is not installed and needed.
    """
    check_projection(projection)
    if projection == "tsne":
        from sklearn.manifold import TSNE  # noqa: PLC0415  # slow to load, and need not be installed

        perplexity = min(30.0, (len(features) - 1) / 3)
        places: np.ndarray = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
        return places
    centred = features - features.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    components: np.ndarray = np.zeros((len(features), 2))
    components[:, : min(2, left.shape[1])] = (left * sizes)[:, :2]
    return components


def calibration_error(probabilities: Tensor, right: Tensor, num_bins: int = 15) -> float:
    """The mean distance of probability and accuracy over bins of equal width, each weighted by its queries.

    Args:
        probabilities: Probability of the predicted class of every query, [query].
        right: Whether the prediction was right, bool [query].
        num_bins: Number of bins of [0, 1].
    """
    bins = _bins(probabilities, num_bins)
    gaps = torch.zeros(num_bins, dtype=torch.float64)
    gaps.index_add_(0, bins, probabilities.double() - right.double())
    return float(gaps.abs().sum() / len(probabilities))


def _bins(probabilities: Tensor, num_bins: int) -> Tensor:
    return (probabilities * num_bins).long().clamp_max(num_bins - 1)
