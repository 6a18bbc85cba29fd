"""The tasks of classes of images: how many ways, shots and queries, and which classes are for what."""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self, cast

import torch
from torch import Tensor

from metarl.fewshot.data.augmentation import AUGMENTATIONS, Augmented
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.data.decoding import decode_image
from metarl.fewshot.data.groups import GroupDraws, GroupKind, Groups
from metarl.fewshot.data.unequal import UnequalEpisodes, UnequalSizes
from metarl.fewshot.sources import DataConfig, OtherSizes, Sources, TaskSpec, TrainLabels
from metarl.runs.configs import MOST_TASKS, Configuration, check_counts

MAX_SIZE = 2048
SPLITS = ("train", "validation", "test")
SplitName = Literal["train", "validation", "test"]


class Splits(NamedTuple):
    """Three sets of classes that share none; validation may be empty."""

    train: ClassData
    validation: ClassData
    test: ClassData


@dataclass(frozen=True)
class EpisodesConfig(Configuration):
    """Sizes of N-way K-shot tasks; training takes the same ones unless it has its own.

    Attributes:
        num_ways: Number of classes per task, N.
        num_shots: Number of support examples per class, K.
        num_queries: Number of query examples per class.
        train_ways: Number of classes per training task; None for num_ways.
        train_shots: Number of support examples per class in training; None for num_shots.
        train_queries: Number of query examples per class in training; None for num_queries.
        within_groups: Tasks whose classes are all of one group, one alphabet of Omniglot or one folder of class
            folders: none of them, the held-out ones, or all. Groups of too few classes are left out.
        groups: Groups of classes within a tree of folders: the folder that a class lies in, or every folder above
            it, so that tasks are of wide and of narrow groups.
        group_draws: Frequency of the groups that tasks are drawn from: as often as each has classes, or all alike.
        train_labels: Labels of training tasks: 0 to N - 1 within each "task", or the number of the "class" among
            all that are trained on, for classifiers of all classes.
        unequal: Tasks whose ways and shots differ, drawn as Meta-Dataset draws them: none of them, the held-out
            ones, or all. Ways are then at most num_ways, queries at most num_queries, and num_shots is not used.
        min_ways: Least number of classes of a task, where they differ.
        max_support: Largest number of support examples of a task, where they differ.
        max_class_support: Largest share of a class in the size of the support set, where they differ.
        leave_out_small: Classes with fewer examples than a task takes are left out, instead of refused.
    """

    num_ways: int = 5
    num_shots: int = 1
    num_queries: int = 15
    train_ways: int | None = None
    train_shots: int | None = None
    train_queries: int | None = None
    within_groups: Literal["none", "held_out", "all"] = "none"
    groups: GroupKind = "parents"
    group_draws: GroupDraws = "by_size"
    train_labels: TrainLabels = "task"
    unequal: Literal["none", "held_out", "all"] = "none"
    min_ways: int = 5
    max_support: int = 500
    max_class_support: int = 100
    leave_out_small: bool = False

    def __post_init__(self) -> None:
        check_counts(self, "min_ways", "max_support", "max_class_support", most=MOST_TASKS)
        if self.unequal != "none":
            self.unequal_sizes(self.held_out)
        check_counts(self, "num_ways", "num_shots", "num_queries", most=MOST_TASKS)
        check_counts(self, "train_ways", "train_shots", "train_queries", most=MOST_TASKS)

    def unequal_sizes(self, sizes: tuple[int, int, int]) -> UnequalSizes:
        """The limits of tasks of unequal ways, shots and queries, of which the sizes are the most."""
        ways, _, queries = sizes
        return UnequalSizes(self.min_ways, ways, queries, self.max_support, self.max_class_support)

    def groups_of(self, data: ClassData) -> Groups:
        """The groups of classes, by their names."""
        return Groups.by_name(data.names, self.groups, self.group_draws)

    @property
    def held_out(self) -> tuple[int, int, int]:
        """Ways, shots and queries of held-out tasks."""
        return self.num_ways, self.num_shots, self.num_queries

    @property
    def train(self) -> tuple[int, int, int]:
        """Ways, shots and queries of training tasks."""
        return (
            self.train_ways or self.num_ways,
            self.train_shots or self.num_shots,
            self.train_queries or self.num_queries,
        )


class ClassTasks(DataConfig):
    """Tasks of classes, of which some are trained on and others held out: the base of frozen dataclasses.

    Attributes:
        episodes: Ways, shots and queries of the tasks.
    """

    episodes: EpisodesConfig
    place: ClassVar[str] = "folder"
    """Name of the field that says where the data are read from."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""

    @property
    def distorted(self) -> Augmented:
        """Random distortion of training examples."""
        return "none"

    @abstractmethod
    def read(self, device: torch.device) -> tuple[ClassData, Splits]:
        """The classes to train on, and those of every split to evaluate on.

        Raises:
            ValueError: if examples are missing or damaged.
        """

    @property
    def tasks(self) -> TaskSpec:
        """Classification of examples of one shape."""
        episodes = self.episodes
        ways, equal = episodes.num_ways, episodes.unequal == "none"
        shape = self.input_shape
        return TaskSpec("classification", shape, ways, episodes.train_ways, episodes.train_labels, equal)

    def make(self, device: torch.device) -> Sources:
        """Training episodes, augmented as configured, and plain ones from every split that has classes."""
        train, splits = self.read(device)

        def source(
            name: str,
            part: ClassData,
            sizes: tuple[int, int, int],
            augmented: Augmented,
            *,
            within: bool,
            unequal: bool,
            labels: TrainLabels = "task",
        ) -> ClassEpisodes | UnequalEpisodes:
            ways, shots, queries = sizes
            if self.episodes.leave_out_small and not unequal:
                part = part.with_at_least(shots + queries)
            distortion, groups = AUGMENTATIONS[augmented], self.episodes.groups_of(part) if within else None
            try:
                if unequal:
                    limits = self.episodes.unequal_sizes(sizes)
                    return UnequalEpisodes(part, limits, augmentation=distortion, groups=groups, labels=labels)
                return ClassEpisodes(
                    part,
                    num_ways=ways,
                    num_shots=shots,
                    num_queries=queries,
                    augmentation=distortion,
                    groups=groups,
                    labels=labels,
                )
            except ValueError as error:
                raise ValueError(f"{name} classes: {error}") from error

        within, unequal = self.episodes.within_groups, self.episodes.unequal
        held_out = {
            name: source(
                name,
                part,
                self.episodes.held_out,
                "none",
                within=within != "none",
                unequal=unequal != "none",
            )
            for name, part in splits._asdict().items()
            if part.names
        }
        training = source(
            "train",
            train,
            self.episodes.train,
            self.distorted,
            within=within == "all",
            unequal=unequal == "all",
            labels=self.episodes.train_labels,
        )
        return Sources(training, dict(held_out))

    def describe(self) -> str:
        """The size of a held-out task in words."""
        ways, shots, queries = self.episodes.held_out
        within = "" if self.episodes.within_groups == "none" else ", within a group"
        if self.episodes.unequal != "none":
            return f"{self.episodes.min_ways} to {ways} ways, unequal shots, up to {queries} queries{within}"
        return f"{ways} ways, {shots} shots, {queries} queries{within}"

    def resized(self, sizes: OtherSizes) -> Self:
        """The same data with other held-out tasks or from another folder; training tasks keep their sizes."""
        ways, shots, queries = self.episodes.held_out
        train_ways, train_shots, train_queries = self.episodes.train
        if sizes.num_shots is not None and self.episodes.unequal != "none":
            raise ValueError(f"the number of shots differs from task to task, got {sizes.num_shots}; leave it out")
        episodes = replace(
            self.episodes,
            num_ways=sizes.num_ways or ways,
            num_shots=sizes.num_shots or shots,
            num_queries=sizes.num_queries or queries,
            train_ways=train_ways,
            train_shots=train_shots,
            train_queries=train_queries,
        )
        place = {} if sizes.folder is None else {self.place: sizes.folder}
        resized: Any = self  # subclasses are dataclasses
        return cast(Self, replace(resized, episodes=episodes, **place))


@dataclass(frozen=True)
class ImageClasses(ClassTasks):
    """Square images by class, of which some classes are trained on and others held out.

    Attributes:
        folder: Folder of the images.
        episodes: Ways, shots and queries of the tasks.
        augmentation: Random distortion of training images, or of classes too, whose images are all turned, sheared
            and perhaps mirrored alike and so become other classes; or of images, bent too, and of all classes of a
            task alike, which leaves them as hard to tell apart.
        size: Width of the square images, in pixels.
    """

    folder: str
    episodes: EpisodesConfig = field(default_factory=EpisodesConfig)
    augmentation: Augmented = "none"
    size: int = 28

    def __post_init__(self) -> None:
        check_counts(self, "size", most=MAX_SIZE)

    num_channels = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        return self.num_channels, self.size, self.size

    @property
    def distorted(self) -> Augmented:
        """Random distortion of training images."""
        return self.augmentation

    def decode(self, content: bytes, name: str) -> Tensor:
        """The image of a file's content as training has it, bytes [channel, size, size].

        Raises:
            ValueError: if it is no image; the message has its name.
        """
        return decode_image(content, name, self.size, colour=self.num_channels == 3)
