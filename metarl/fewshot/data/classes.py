"""Labelled examples by class, and N-way K-shot episodes drawn from them by index.

All examples lie in one tensor, class by class, as bytes if they are images. A meta-batch is a few random keys and
two gathers, whatever the numbers of tasks, classes and examples: no loop, no loader processes.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.data.augmentation import Augmentation
from metarl.fewshot.data.groups import Groups, of_classes
from metarl.fewshot.episodes import Episodes, Examples, as_inputs, as_tensor
from metarl.fewshot.sources import TrainLabels
from metarl.runs.configs import check_counts
from metarl.runs.reading import shorten
from metarl.runs.seeding import draw_seed, torch_generator

Numbers = Tensor | np.ndarray | Sequence[Tensor | np.ndarray] | Sequence[float] | Sequence[Sequence[Any]]
"""Tensors, arrays and lists of numbers."""


@dataclass(frozen=True)
class ClassData:
    """The examples of some classes.

    Attributes:
        names: Names of the classes.
        examples: Examples [example, *input], one class after the other; bytes stand for numbers in [0, 1].
        counts: Number of examples of each class, int64 [class].
    """

    names: tuple[str, ...]
    examples: Tensor
    counts: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.names, tuple) or isinstance(self.examples, np.ndarray | list | tuple):
            kinds = f"{type(self.names).__name__} and {type(self.examples).__name__}"
            raise TypeError(
                f"expected a tuple of names and a tensor of examples, got {kinds}; ClassData.of(examples, labels) "
                "and ClassData.join({name: examples}) take arrays and lists"
            )
        if (
            not isinstance(self.counts, Tensor)
            or self.counts.dtype != torch.int64
            or bool((self.counts < 0).any())
        ):
            raise TypeError(f"counts must be a tensor of int64, zero or more each, got {shorten(self.counts)}")
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise ValueError(f"class names must differ, got {twice[0]!r} twice")
        if len(self.names) != len(self.counts) or int(self.counts.sum()) != len(self.examples):
            raise ValueError(
                f"expected a count for each of {len(self.names)} classes, {len(self.examples)} examples in all, "
                f"got {len(self.counts)} counts that add up to {int(self.counts.sum())}"
            )

    @staticmethod
    def of(examples: Numbers, labels: Tensor | np.ndarray | Sequence[int] | Sequence[str]) -> "ClassData":
        """The classes of examples [example, *input] and their labels [example], in any order.

        Tensors, arrays and lists will do.

        Args:
            examples: Examples; floats of NumPy and of lists become float32.
            labels: Whole numbers or text, which names the classes.

        Raises:
            TypeError: If examples are no numbers, or labels neither whole numbers nor text.
            ValueError: If there are no examples, or not a label for each.
        """
        examples, values = as_examples(examples), _as_labels(labels)
        if values.shape != examples.shape[:1]:
            raise ValueError(f"expected one label per example, shape ({len(examples)},), got {values.shape}")
        if not len(values):
            raise ValueError("expected one example or more, got none")
        names, places = np.unique(values, return_inverse=True)
        order = torch.from_numpy(places.argsort(kind="stable")).to(examples.device)
        return ClassData(tuple(map(str, names.tolist())), examples[order], torch.from_numpy(np.bincount(places)))

    @staticmethod
    def join(parts: Mapping[str, Numbers]) -> "ClassData":
        """The classes whose examples [example, *input] are given by name, as tensors, arrays or lists.

        Raises:
            TypeError: If examples are no numbers.
            ValueError: If there are no classes, or examples differ in their shapes or number formats.
        """
        tensors = [(str(name), as_examples(examples)) for name, examples in parts.items()]
        counts = torch.tensor([len(examples) for _, examples in tensors], dtype=torch.int64)
        return ClassData(tuple(name for name, _ in tensors), _together(tensors), counts)

    @property
    def starts(self) -> Tensor:
        """Index of the first example of each class, int64 [class]."""
        return self.counts.cumsum(0) - self.counts

    def select(self, names: Sequence[str]) -> "ClassData":
        """Some of the classes.

        Raises:
            ValueError: naming a class that is not there.
        """
        places = {name: index for index, name in enumerate(self.names)}
        unknown = [name for name in names if name not in places]
        if unknown:
            raise ValueError(f"unknown class {unknown[0]!r}; there are {len(places)}, such as {self.names[0]!r}")
        starts, counts = self.starts.tolist(), self.counts.tolist()
        chosen = [places[name] for name in names]
        first = chosen[0] if chosen else 0
        if chosen == list(range(first, first + len(chosen))):  # neighbours are not copied
            place = starts[first] if chosen else 0
            examples = self.examples[place : place + sum(counts[c] for c in chosen)]
        else:
            rows = torch.cat([torch.arange(starts[c], starts[c] + counts[c]) for c in chosen])
            examples = self.examples[rows.to(self.examples.device)]
        return ClassData(tuple(names), examples, self.counts[chosen])

    def with_at_least(self, num_examples: int) -> "ClassData":
        """The classes that have so many examples or more."""
        pairs = zip(self.names, self.counts.tolist(), strict=True)
        names = [name for name, count in pairs if count >= num_examples]
        return self if len(names) == len(self.names) else self.select(names)

    def with_classes_of(self, other: "ClassData") -> "ClassData":
        """The classes of both."""
        parts = [(data.names[0], data.examples) for data in (self, other) if data.names]
        examples = _together(parts) if parts else self.examples
        return ClassData(self.names + other.names, examples, torch.cat([self.counts, other.counts]))

    def with_rotations(self) -> "ClassData":
        """Each class of square images and its rotations by 90, 180 and 270 degrees, as classes of their own.

        All images of a class turn alike: that is what makes the rotations classes (Santoro et al. 2016).
        """
        if self.examples.dim() < 3 or self.examples.shape[-1] != self.examples.shape[-2]:
            raise ValueError(f"rotations need square images, got examples of {tuple(self.examples.shape[1:])}")
        turned = [torch.rot90(self.examples, turns, (-2, -1)) for turns in range(4)]
        names = tuple(f"{name}/rot{90 * turns:03}" for turns in range(4) for name in self.names)
        return ClassData(names, torch.cat(turned), self.counts.repeat(4))

    def to(self, device: torch.device) -> "ClassData":
        """The same with its examples on a device."""
        return ClassData(self.names, self.examples.to(device), self.counts)


def as_examples(examples: Numbers) -> Tensor:
    """Examples [example, *input] as a tensor, see `as_tensor`; a sequence of tensors or arrays is stacked.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If they are a single number, or differ in their shapes.
    """
    if isinstance(examples, Sequence) and all(isinstance(part, Tensor | np.ndarray) for part in examples):
        parts = [as_tensor(part) for part in examples if isinstance(part, Tensor | np.ndarray)]
        shapes = list(dict.fromkeys(tuple(part.shape) for part in parts))
        if len(shapes) > 1:
            raise ValueError(f"examples must have one shape, got {shapes[0]} and {shapes[1]}")
        return torch.stack(parts) if parts else torch.empty(0)
    tensor = as_tensor(np.asarray(examples) if isinstance(examples, Sequence) else examples)
    if not tensor.dim():
        raise ValueError("expected examples of shape [example, *input], got a single number")
    return tensor


def check_class_data(data: object) -> None:
    """Raise a TypeError unless a source's data are classes with their examples."""
    if not isinstance(data, ClassData):
        raise TypeError(
            f"data must be ClassData, got {type(data).__name__}; ClassData.of(examples, labels) makes it"
        )


def _as_labels(labels: Tensor | np.ndarray | Sequence[int] | Sequence[str]) -> np.ndarray:
    """Labels as an array of whole numbers or of text."""
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values.flat):  # as pandas has text
        values = values.astype(str)
    if values.size and values.dtype.kind not in "biuU":
        hint = "; convert whole numbers to integers, such as labels.long()" if values.dtype.kind == "f" else ""
        first = shorten(values.flat[0].item() if values.dtype.kind == "f" else values.flat[0])
        raise TypeError(f"labels must be whole numbers or text, got {first} of {values.dtype}{hint}")
    return values


def _together(parts: Sequence[tuple[str, Tensor]]) -> Tensor:
    """The examples of several classes, each with its name, in one tensor."""
    if not parts:
        raise ValueError("expected the examples of one class or more, got none")
    first, like = parts[0]
    for name, examples in parts:
        if examples.shape[1:] != like.shape[1:] or examples.dtype != like.dtype:
            raise ValueError(
                f"examples of all classes must have one shape and number format, got {_form(like)} of {first!r} "
                f"and {_form(examples)} of {name!r}"
            )
    return torch.cat([examples for _, examples in parts])


def _form(examples: Tensor) -> str:
    return f"{tuple(examples.shape[1:])} {str(examples.dtype).removeprefix('torch.')}"


class DrawnTask(NamedTuple):
    """One task of some classes.

    Attributes:
        classes: Places of its classes in the data.
        support: Numbers of the support examples within each class.
        query: Numbers of the query examples within each class.
    """

    classes: tuple[int, ...]
    support: tuple[tuple[int, ...], ...]
    query: tuple[tuple[int, ...], ...]


@runtime_checkable
class ClassSource(Protocol):
    """A distribution over tasks of classes, or a list of them, which may be asked of other examples and labels.

    Attributes:
        data: Classes and their examples.
        augmentation: Distortion of what is drawn; None for none.
    """

    data: ClassData
    augmentation: Augmentation | None

    def sample(self, num_tasks: int, rng: np.random.Generator) -> Episodes:
        """Tasks; the same ones whenever the generator is in the same state."""

    def with_data(self, data: ClassData) -> Self:
        """The same draws of other examples of the same classes, such as their features."""

    def with_labels(self, labels: TrainLabels) -> Self:
        """The same draws with targets of another kind."""


class OfClasses:
    """A source of tasks of some classes, whose draws do not depend on the examples and on the kind of targets.

    Attributes:
        data: Classes and their examples.
        labels: Targets of the tasks: places among their own classes, or indices of all classes.
    """

    data: ClassData
    labels: TrainLabels

    def with_labels(self, labels: TrainLabels) -> Self:
        """The same episodes with targets of another kind; the same draws from the same generator."""
        copied = copy.copy(self)
        copied.labels = labels
        return copied

    def with_data(self, data: ClassData) -> Self:
        """The same draws of other examples of the same classes, such as their features."""
        copied = copy.copy(self)
        copied.data = data
        return copied


class ClassEpisodes(OfClasses):
    """N-way K-shot episodes from classes.

    Args:
        data: Classes and their examples.
        num_ways: Number of classes per task, N.
        num_shots: Number of support examples per class, K.
        num_queries: Number of query examples per class.
        augmentation: Distortion of what is drawn; None for none.
        groups: Groups of the classes, such as alphabets; the classes of a task are then of one group, drawn among
            those that have at least N. None if any classes go together.
        labels: Targets of the tasks: places among their own classes, or indices of all classes.

    Raises:
        ValueError: if there are too few classes, or a class has too few examples; the message names it.
    """

    def __init__(
        self,
        data: ClassData,
        *,
        num_ways: int,
        num_shots: int,
        num_queries: int,
        augmentation: Augmentation | None = None,
        groups: Groups | None = None,
        labels: TrainLabels = "task",
    ) -> None:
        if labels == "class" and augmentation is not None and augmentation.changes_classes:
            raise ValueError(
                "labels by class need classes as they are, got distorted ones, which become others; take "
                "--data.augmentation images or none"
            )
        check_class_data(data)
        self.labels = labels
        self.data = data
        self.num_ways, self.num_shots, self.num_queries = num_ways, num_shots, num_queries
        check_counts(self, "num_ways", "num_shots", "num_queries")
        if len(data.names) < num_ways:
            raise ValueError(f"{num_ways}-way episodes need at least {num_ways} classes, got {len(data.names)}")
        fewest = int(data.counts.argmin())
        needed = num_shots + num_queries
        if data.counts[fewest] < needed:
            raise ValueError(
                f"class {data.names[fewest]!r} has {int(data.counts[fewest])} examples, expected at least "
                f"{needed}: {num_shots} for the support set and {num_queries} for the query set"
            )
        self.augmentation = augmentation
        self.groups = groups
        self._starts = data.starts
        self._drawn = None if groups is None else of_classes(groups, data.names).with_at_least(num_ways)

    def sample(self, num_tasks: int, rng: np.random.Generator) -> Episodes:
        """Tasks with rows class by class, the classes in random order."""
        generator = torch_generator(draw_seed(rng))
        classes, chosen = self._draw(num_tasks, generator)
        rows = (self._starts[classes].unsqueeze(-1) + chosen).to(self.data.examples.device)
        support, query = rows[..., : self.num_shots], rows[..., self.num_shots :]
        maps = (
            None
            if self.augmentation is None
            else self.augmentation.draw_classes(num_tasks, self.num_ways, generator)
        )
        labels = classes if self.labels == "class" else torch.arange(self.num_ways).expand(num_tasks, -1)
        labels = labels.to(rows.device)
        return Episodes(
            self._examples(support, labels, maps, generator), self._examples(query, labels, maps, generator)
        )

    def draw(self, num_tasks: int, rng: np.random.Generator) -> list[DrawnTask]:
        """The tasks that `sample` gives, as numbers of their classes and examples."""
        classes, chosen = self._draw(num_tasks, torch_generator(draw_seed(rng)))
        shots = self.num_shots
        return [
            DrawnTask(
                tuple(of_task),
                tuple(tuple(few[:shots]) for few in rows),
                tuple(tuple(few[shots:]) for few in rows),
            )
            for of_task, rows in zip(classes.tolist(), chosen.tolist(), strict=True)
        ]

    def _draw(self, num_tasks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Classes [task, way], and their examples that are chosen, [task, way, example]."""
        # The largest of independent random keys are a draw without replacement.
        class_keys = torch.rand(num_tasks, len(self.data.names), generator=generator)
        if self._drawn is not None:
            drawn = torch.multinomial(self._drawn.weights, num_tasks, replacement=True, generator=generator)
            class_keys.masked_fill_(~self._drawn.members[drawn], -1.0)
        classes = class_keys.topk(self.num_ways).indices
        counts = self.data.counts[classes].unsqueeze(-1)
        keys = torch.rand(num_tasks, self.num_ways, int(self.data.counts.max()), generator=generator)
        keys.masked_fill_(torch.arange(keys.shape[-1]) >= counts, -1.0)
        return classes, keys.topk(self.num_shots + self.num_queries).indices

    def _examples(self, rows: Tensor, labels: Tensor, maps: Tensor | None, generator: torch.Generator) -> Examples:
        """The examples at rows [task, way, shot], of labels [task, way], mapped by [task, way, 2, 3]."""
        num_tasks, num_ways, num_shots = rows.shape
        inputs = as_inputs(self.data.examples[rows.flatten()])
        if self.augmentation is not None:
            each = None if maps is None else maps.flatten(0, 1).repeat_interleave(num_shots, 0)
            inputs = self.augmentation(inputs, each, generator)
        targets = labels.repeat_interleave(num_shots, 1)
        return Examples(inputs.view(num_tasks, num_ways * num_shots, *inputs.shape[1:]), targets)
