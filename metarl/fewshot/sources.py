"""Few-shot tasks before they are drawn: their sizes, their sources, and the configuration of both."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal, NamedTuple, Self

import torch

from metarl.fewshot.episodes import EpisodeSource
from metarl.runs.configs import Configuration

TaskKind = Literal["classification", "regression"]
TrainLabels = Literal["task", "class"]
PixelScale = Literal["unit", "imagenet"]

on_examples_read: ContextVar[Callable[[int, int], None] | None] = ContextVar("on_examples_read", default=None)
"""Function that is called with the numbers of examples that are read and of all, while data are read."""


class OtherSizes(NamedTuple):
    """Sizes and place of held-out tasks that are asked for instead of the data's own; None keeps what is there.

    Attributes:
        num_ways: Classes per task.
        num_shots: Support examples per class, or per task of numbers.
        num_queries: Query examples per class.
        folder: Folder or archive that the data are read from.
    """

    num_ways: int | None = None
    num_shots: int | None = None
    num_queries: int | None = None
    folder: str | None = None


class TaskSpec(NamedTuple):
    """The kind and the sizes of tasks, known before any data are read.

    Attributes:
        kind: Whether targets are classes or numbers.
        input_shape: Shape of one example.
        num_outputs: Classes per held-out task, or numbers per target.
        train_ways: Classes per training task; None if they are as many as in held-out tasks.
        train_labels: Targets of training tasks, places among a task's classes or indices of all classes.
        equal_ways: Whether all held-out tasks have as many classes.
        input_dtype: Number format of inputs; torch.int64 for tokens that a network looks up.
        pixel_scale: Scale that pixels in [0, 1] are brought to in front of the network; see
            `metarl.fewshot.pixels`.
    """

    kind: TaskKind
    input_shape: tuple[int, ...]
    num_outputs: int
    train_ways: int | None = None
    train_labels: TrainLabels = "task"
    equal_ways: bool = True
    input_dtype: torch.dtype = torch.float32
    pixel_scale: PixelScale = "unit"


class Sources(NamedTuple):
    """The distributions that tasks are drawn from.

    Attributes:
        train: Distribution of the tasks to train on.
        held_out: Distributions of the tasks to evaluate on, by the split's name: train, validation and test where
            classes are split, so that meta-overfitting shows, and test alone where tasks are drawn from a
            continuum.
    """

    train: EpisodeSource
    held_out: dict[str, EpisodeSource]


class DataConfig(Configuration, ABC):
    """The data of an experiment: a frozen dataclass that makes the sources of its tasks.

    Data of one's own are one file: a dataclass that derives from this, and an `EpisodeSource` or two.
    """

    @property
    @abstractmethod
    def tasks(self) -> TaskSpec:
        """The kind and the sizes of the tasks that `make` will give."""

    @abstractmethod
    def make(self, device: torch.device) -> Sources:
        """The sources of training and held-out tasks, with their tensors on a device.

        Raises:
            ValueError: if data are missing, damaged, or too few for the sizes of the tasks.
        """

    def describe(self) -> str:
        """The size of a held-out task in words, for titles."""
        size = self.tasks.num_outputs
        return f"{size} ways" if self.tasks.kind == "classification" else f"{size} numbers per target"

    def resized(self, sizes: OtherSizes) -> Self:
        """The same data with held-out tasks of other sizes, or read from another folder.

        Raises:
            ValueError: if the data have no such size.
        """
        if sizes != OtherSizes():
            raise ValueError(f"{type(self).__name__} has no ways, shots, queries or folder to choose; give none")
        return self
