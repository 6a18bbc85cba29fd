"""What a few-shot experiment is, and how it is stored in a run folder."""

from dataclasses import dataclass, field
from typing import Any, Literal

from metarl.experiments import codec
from metarl.experiments.configuration import Device
from metarl.fewshot.backbones import Downsampling
from metarl.fewshot.data.omniglot import OmniglotSplit, Resize
from metarl.fewshot.learners.adml import AdmlConfig
from metarl.fewshot.learners.cavia import CaviaConfig
from metarl.fewshot.learners.implicit_maml import ImplicitMamlConfig
from metarl.fewshot.learners.kernel_regression import KernelRegressionConfig
from metarl.fewshot.learners.maml import MamlConfig
from metarl.fewshot.learners.matching import MatchingConfig
from metarl.fewshot.learners.proto_maml import ProtoMamlConfig
from metarl.fewshot.learners.prototypical import PrototypicalConfig
from metarl.fewshot.learners.relation import RelationConfig
from metarl.fewshot.learners.reptile import ReptileConfig
from metarl.fewshot.learners.siamese import SiameseConfig
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig
from metarl.runs.configs import check_counts, check_not_negative


@dataclass(frozen=True)
class EpisodesConfig:
    """N-way K-shot; training takes the same numbers unless it has its own.

    Attributes:
        num_ways: classes per task.
        num_shots: support examples per class.
        num_queries: query examples per class.
        train_ways: classes per training task.
        train_shots: support examples per class in training.
        train_queries: query examples per class in training.
    """

    num_ways: int = 5
    num_shots: int = 1
    num_queries: int = 15
    train_ways: int | None = None
    train_shots: int | None = None
    train_queries: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "num_ways", "num_shots", "num_queries", "train_ways", "train_shots", "train_queries")


@dataclass(frozen=True)
class CurveData:
    """Points on curves.

    Attributes:
        num_shots: support points.
        train_queries: query points in training.
    """

    num_shots: int = 10
    train_queries: int = 10

    def __post_init__(self) -> None:
        check_counts(self, "num_shots", "train_queries")


@dataclass(frozen=True)
class SinusoidData(CurveData):
    """Sinusoids of Finn et al. 2017; test tasks have 100 even query points.

    Attributes:
        num_shots: support points.
        train_queries: query points in training.
    """


@dataclass(frozen=True)
class HarmonicData(CurveData):
    """Harmonics of Lacoste et al. 2018.

    Attributes:
        num_shots: support points.
        train_queries: query points in training.
    """


Augmented = Literal["none", "images", "classes"]


@dataclass(frozen=True)
class OmniglotData:
    """Omniglot.

    Attributes:
        folder: holds images_background(.zip) and images_evaluation(.zip), or the two small archives.
        split: which classes are for what.
        episodes: ways, shots and queries.
        rotations: which splits have rotations by 90, 180 and 270 degrees as classes of their own.
        augmentation: distort training images at random, or classes too, whose images are all turned, sheared and
            perhaps mirrored alike and so become other classes.
        train_on_validation: train on the validation classes too.
        size: of the square images, in pixels.
        resize: antialiased, or the nearest pixel of many older codes.
    """

    folder: str = "data/omniglot"
    split: OmniglotSplit = "eight_alphabets"
    episodes: EpisodesConfig = field(default_factory=EpisodesConfig)
    rotations: Literal["none", "train", "all"] = "train"
    augmentation: Augmented = "none"
    train_on_validation: bool = False
    size: int = 28
    resize: Resize = "antialias"


@dataclass(frozen=True)
class ClassFolderData:
    """A folder of class folders of images.

    Attributes:
        folder: holds one folder of images for every class.
        split_file: JSON, {"train": [class, ...], "validation": [...], "test": [...]}.
        episodes: ways, shots and queries.
        augmentation: distort training images at random, or classes too, whose images are all turned, sheared and
            perhaps mirrored alike and so become other classes.
        size: of the square images, in pixels.
        colour: three channels instead of one.
    """

    folder: str = "data/images"
    split_file: str = "data/split.json"
    episodes: EpisodesConfig = field(default_factory=EpisodesConfig)
    augmentation: Augmented = "none"
    size: int = 84
    colour: bool = True


@dataclass(frozen=True)
class BackboneConfig:
    """The network: a perceptron for numbers, Conv4 for images.

    Attributes:
        hidden_sizes: of the perceptron.
        num_features: that the perceptron puts out for learners that compare features.
        num_filters: of every convolution.
        downsampling: pool, or the quarter of the work with strides.
        rectified: whether features end with a ReLU, as published. Without it cosines range from -1 to 1.
        precision: of the convolutions; bfloat16 is for learners that compare images, and takes two thirds of the
            time where the processor computes in it, more where it does not.
    """

    hidden_sizes: tuple[int, ...] = (40, 40)
    num_features: int = 40
    num_filters: int = 64
    downsampling: Downsampling = "pool"
    rectified: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_counts(self, "num_features", "num_filters")
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden_sizes must be positive, got {self.hidden_sizes}")


DataConfig = SinusoidData | HarmonicData | OmniglotData | ClassFolderData
LearnerConfig = (
    MamlConfig
    | ReptileConfig
    | ImplicitMamlConfig
    | CaviaConfig
    | AdmlConfig
    | ProtoMamlConfig
    | PrototypicalConfig
    | KernelRegressionConfig
    | MatchingConfig
    | RelationConfig
    | SiameseConfig
)
_TAGS: codec.Tags = {
    "kind": {
        "sinusoids": SinusoidData,
        "harmonics": HarmonicData,
        "omniglot": OmniglotData,
        "class-folders": ClassFolderData,
    },
    "algorithm": {
        "maml": MamlConfig,
        "reptile": ReptileConfig,
        "implicit-maml": ImplicitMamlConfig,
        "cavia": CaviaConfig,
        "adml": AdmlConfig,
        "proto-maml": ProtoMamlConfig,
        "prototypical": PrototypicalConfig,
        "kernel-regression": KernelRegressionConfig,
        "matching": MatchingConfig,
        "relation": RelationConfig,
        "siamese": SiameseConfig,
    },
}


@dataclass(frozen=True)
class FewshotExperiment:
    """One experiment, whole: data, learner, network, budget.

    Attributes:
        data: where tasks come from.
        learner: the algorithm and its hyperparameters.
        backbone: the network.
        training: how long to train.
        evaluation: how to evaluate.
        seed: of everything random.
        device: where networks are trained; auto takes CUDA when it is there.
    """

    data: DataConfig
    learner: LearnerConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    training: FewshotTrainingConfig = field(default_factory=FewshotTrainingConfig)
    evaluation: FewshotEvaluationConfig = field(default_factory=FewshotEvaluationConfig)
    seed: int = 0
    device: Device = "auto"

    def __post_init__(self) -> None:
        check_not_negative(self, "seed")


def data_name(experiment: FewshotExperiment) -> str:
    """What an experiment's tasks are: "sinusoids", "omniglot", ..."""
    kind: str = encode(experiment)["data"]["kind"]
    return kind


def encode(experiment: FewshotExperiment) -> Any:
    """An experiment as JSON types."""
    return codec.encode(experiment, _TAGS)


def decode(data: object, template: FewshotExperiment | None = None) -> FewshotExperiment:
    """The experiment that `encode` wrote.

    Args:
        data: decoded JSON.
        template: An experiment with the classes and objects that are not built in; None for none.

    Raises:
        ValueError: naming the field that is unknown, missing or of a wrong type.
    """
    experiment: FewshotExperiment = codec.decode(FewshotExperiment, data, "experiment", _TAGS, template)
    return experiment
