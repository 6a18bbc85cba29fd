"""Tasks of unequal ways and shots, as Meta-Dataset draws them (Triantafillou et al. 2020, arXiv:1903.03096, 3.2).

For a task, with n_c examples of class c:

    ways N uniform in [min_ways, max_ways], classes uniform, of one group if there are groups
    queries per class    q = min(max_queries, min_c n_c // 2)
    support              |S| = min(max_support, sum_c ceil(beta min(max_class_support, n_c - q)))
    shots of class c     min(floor(R_c (|S| - N)) + 1, n_c - q),   R_c proportional to n_c exp(a_c)

with beta uniform in (0, 1] and a_c uniform in [log 1/2, log 2).

Without groups all classes are taken alike. Theirs takes an alphabet of Omniglot uniformly, as groups do that are
drawn alike, and a node of ImageNet's tree, whose place here every folder above a class has.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from metarl.fewshot.data.augmentation import Augmentation
from metarl.fewshot.data.classes import ClassData, DrawnTask, OfClasses, check_class_data
from metarl.fewshot.data.drawn import episodes_of
from metarl.fewshot.data.groups import Groups, of_classes
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.sources import TrainLabels
from metarl.runs.configs import MOST_TASKS, check_counts
from metarl.runs.seeding import draw_seed, torch_generator


@dataclass(frozen=True)
class UnequalSizes:
    """The limits that ways, shots and queries are drawn within; Meta-Dataset's own by default.

    Attributes:
        min_ways: Least number of classes per task.
        max_ways: Largest number of classes per task.
        max_queries: Largest number of query examples per class; all classes of a task have as many.
        max_support: Largest number of support examples of a task.
        max_class_support: Largest share of a class in the size of the support set.
    """

    min_ways: int = 5
    max_ways: int = 50
    max_queries: int = 10
    max_support: int = 500
    max_class_support: int = 100

    def __post_init__(self) -> None:
        check_counts(self, "min_ways", least=2, most=MOST_TASKS)
        check_counts(self, "max_ways", "max_queries", "max_support", "max_class_support", most=MOST_TASKS)
        if not self.min_ways <= self.max_ways <= self.max_support:
            raise ValueError(
                "expected min_ways <= max_ways <= max_support, got "
                f"{self.min_ways}, {self.max_ways} and {self.max_support}"
            )


class UnequalEpisodes(OfClasses):
    """Tasks that differ in their ways and shots.

    Args:
        data: Classes and their examples; classes of a single example are left out.
        sizes: Limits of ways, shots and queries.
        augmentation: Distortion of images that are drawn, not of classes; None for none.
        groups: Groups of the classes; the classes of a task are then of one group. None if any go together.
        labels: Targets of the tasks: places among their own classes, or indices of all classes.

    Raises:
        ValueError: If there are too few classes, or classes are to be distorted.
    """

    def __init__(
        self,
        data: ClassData,
        sizes: UnequalSizes,
        *,
        augmentation: Augmentation | None = None,
        groups: Groups | None = None,
        labels: TrainLabels = "task",
    ) -> None:
        if augmentation is not None and augmentation.changes_classes:
            raise ValueError(
                "tasks of unequal shots take classes as they are, got distorted ones; take --data.augmentation "
                "images or none"
            )
        check_class_data(data)
        self.data, self.sizes = data, sizes
        self.augmentation, self.labels = augmentation, labels
        self._counts = data.counts.numpy()
        enough = self._counts >= 2
        if enough.sum() < sizes.min_ways:
            raise ValueError(
                f"tasks of {sizes.min_ways} ways and more need as many classes of two examples or more, got "
                f"{enough.sum()}"
            )
        self._groups, self._shares = [np.flatnonzero(enough)], np.ones(1)
        if groups is not None:
            groups = of_classes(groups, data.names).with_at_least(sizes.min_ways, torch.from_numpy(enough))
            self._groups = [np.flatnonzero(members) for members in groups.members.numpy()]
            self._shares = (groups.weights / groups.weights.sum()).numpy()

    def sample(self, num_tasks: int, rng: np.random.Generator) -> Episodes:
        """Tasks, padded where they differ; see `metarl.fewshot.data.drawn.episodes_of`."""
        generator = torch_generator(draw_seed(rng))
        episodes = episodes_of(self.data, self.draw(num_tasks, rng), self.labels)
        if self.augmentation is None:
            return episodes
        distorted = [
            self.augmentation(part.inputs.flatten(0, 1), None, generator).view_as(part.inputs) for part in episodes
        ]
        return Episodes(*(Examples(x, part.targets) for x, part in zip(distorted, episodes, strict=True)))

    def draw(self, num_tasks: int, rng: np.random.Generator) -> list[DrawnTask]:
        """Tasks as numbers of their classes and examples."""
        return [self._task(rng) for _ in range(num_tasks)]

    def _task(self, rng: np.random.Generator) -> DrawnTask:
        sizes = self.sizes
        group = self._groups[0 if len(self._groups) == 1 else rng.choice(len(self._groups), p=self._shares)]
        num_ways = int(rng.integers(sizes.min_ways, min(sizes.max_ways, len(group)) + 1))
        classes = rng.choice(group, num_ways, replace=False)
        counts = self._counts[classes]
        num_queries = min(sizes.max_queries, int(counts.min()) // 2)
        left = counts - num_queries
        # The floor and one more is the ceiling of a number that is uniform in (0, 1].
        shares = np.floor(rng.uniform() * np.minimum(sizes.max_class_support, left)) + 1
        num_support = min(int(shares.sum()), sizes.max_support)
        weights = counts * np.exp(rng.uniform(math.log(0.5), math.log(2), num_ways))
        shots = np.minimum(np.floor(weights / weights.sum() * (num_support - num_ways)).astype(int) + 1, left)
        chosen = [
            rng.permutation(count)[: shot + num_queries].tolist()
            for count, shot in zip(counts, shots, strict=True)
        ]
        return DrawnTask(
            tuple(classes.tolist()),
            tuple(tuple(few[num_queries:]) for few in chosen),
            tuple(tuple(few[:num_queries]) for few in chosen),
        )
