"""Few-shot experiments: their fields, the objects that they become, and their form in a run folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import torch

from metarl.experiments.configuration import Device
from metarl.fewshot.backbones import BackboneConfig, OwnBackbone, StandardBackbone
from metarl.fewshot.conformance import check_learner, tasks_of
from metarl.fewshot.data.images import ClassFolderData
from metarl.fewshot.data.mixed import MixedData
from metarl.fewshot.data.omniglot import OmniglotData
from metarl.fewshot.data.sinusoids import HarmonicData, SinusoidData
from metarl.fewshot.data.tables import TableData
from metarl.fewshot.evaluation import check_views
from metarl.fewshot.learner import Learner, LearnerConfig, LearnerSetup, ModuleLearner
from metarl.fewshot.learners.adml import AdmlConfig
from metarl.fewshot.learners.baseline import BaselineConfig
from metarl.fewshot.learners.cavia import CaviaConfig
from metarl.fewshot.learners.fine_tuning import FineTuningConfig
from metarl.fewshot.learners.implicit_maml import ImplicitMamlConfig
from metarl.fewshot.learners.kernel_regression import KernelRegressionConfig
from metarl.fewshot.learners.label_propagation import LabelPropagationConfig
from metarl.fewshot.learners.logistic import LogisticConfig
from metarl.fewshot.learners.mahalanobis import MahalanobisConfig
from metarl.fewshot.learners.maml import MamlConfig
from metarl.fewshot.learners.matching import MatchingConfig
from metarl.fewshot.learners.optimal_transport import OptimalTransportConfig
from metarl.fewshot.learners.proto_maml import ProtoMamlConfig
from metarl.fewshot.learners.prototypical import PrototypicalConfig
from metarl.fewshot.learners.relation import RelationConfig
from metarl.fewshot.learners.reptile import ReptileConfig
from metarl.fewshot.learners.ridge import RidgeConfig
from metarl.fewshot.learners.siamese import SiameseConfig
from metarl.fewshot.learners.support_vectors import SupportVectorConfig
from metarl.fewshot.objectives import (
    BinaryCrossEntropy,
    ByTargets,
    CrossEntropy,
    GaussianLikelihood,
    Objective,
    SquaredError,
)
from metarl.fewshot.residual import CompactBackbone, ResidualBackbone
from metarl.fewshot.sources import DataConfig
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig
from metarl.nets.devices import check_device
from metarl.runs import codec
from metarl.runs.configs import Configuration, check_kind, check_seed
from metarl.runs.loggers import LoggerName, check_loggers
from metarl.runs.seeding import torch_generator
from metarl.runs.warm_start import check_warm_start

OBJECTIVES: Mapping[str, type[Objective]] = {
    "by-targets": ByTargets,
    "cross-entropy": CrossEntropy,
    "binary-cross-entropy": BinaryCrossEntropy,
    "squared-error": SquaredError,
    "gaussian-likelihood": GaussianLikelihood,
}
"""Objectives by name."""

BACKBONES: Mapping[str, type[StandardBackbone | ResidualBackbone | CompactBackbone]] = {
    "standard": StandardBackbone,
    "residual": ResidualBackbone,
    "compact": CompactBackbone,
}
"""Networks by name."""

_PARTS: Mapping[str, type] = {
    "data": DataConfig,
    "learner": LearnerConfig,
    "backbone": BackboneConfig,
    "objective": Objective,
}

_TAGS: codec.Tags = {
    "kind": {
        "sinusoids": SinusoidData,
        "harmonics": HarmonicData,
        "omniglot": OmniglotData,
        "class-folders": ClassFolderData,
        "table": TableData,
        "mixed": MixedData,
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
        "baseline": BaselineConfig,
        "ridge": RidgeConfig,
        "logistic": LogisticConfig,
        "svm": SupportVectorConfig,
        "mahalanobis": MahalanobisConfig,
        "label-propagation": LabelPropagationConfig,
        "optimal-transport": OptimalTransportConfig,
        "fine-tuning": FineTuningConfig,
    },
    "objective": OBJECTIVES,
    "architecture": {**BACKBONES, "own": OwnBackbone},
}


@dataclass(frozen=True)
class FewshotExperiment(Configuration):
    """One experiment, whole: data, learner, network, budget.

    Attributes:
        data: Data that tasks are drawn from.
        learner: Learner and its hyperparameters.
        backbone: Network that is trained.
        training: Length and batch sizes of the training.
        evaluation: Numbers of tasks and adaptation steps of evaluations.
        seed: Seed of all random streams of the run.
        device: Device of the networks; cuda:N is a numbered GPU, mps one of Apple's, and auto takes CUDA where it
            is available.
        loggers: Places that metrics are logged to; csv is always one of them.
        init_from: Folder of another run of the same learner and network, whose weights training starts from.
        init_without: Parts of those weights that are not taken and start fresh: names of sub-modules, or of single
            tensors.
        objective: Loss that tasks are learned by, and score that is reported.
    """

    data: DataConfig
    learner: LearnerConfig
    backbone: BackboneConfig = field(default_factory=StandardBackbone)
    training: FewshotTrainingConfig = field(default_factory=FewshotTrainingConfig)
    evaluation: FewshotEvaluationConfig = field(default_factory=FewshotEvaluationConfig)
    seed: int = 0
    device: Device = "auto"
    loggers: tuple[LoggerName, ...] = ("csv", "tensorboard")
    init_from: str | None = None
    init_without: tuple[str, ...] = ()
    objective: Objective = field(default_factory=ByTargets)

    def __post_init__(self) -> None:
        for name, kind in _PARTS.items():
            part = getattr(self, name)
            check_kind(name, part, kind)
            if not is_dataclass(part):  # by whose fields it is written
                raise TypeError(
                    f"{name} must be a dataclass: write @dataclass(frozen=True) above class {type(part).__name__}"
                )
        check_seed(self)
        check_device(self.device)
        check_loggers(self.loggers)
        check_warm_start(self.init_from, self.init_without)


def with_objective(experiment: FewshotExperiment, name: str) -> FewshotExperiment:
    """The experiment with an objective by name; one of that kind that it has keeps its fields.

    Raises:
        ValueError: if there is no such objective.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}; known: {', '.join(OBJECTIVES)}")
    kind = OBJECTIVES[name]
    return experiment if type(experiment.objective) is kind else replace(experiment, objective=kind())


def with_backbone(experiment: FewshotExperiment, name: str) -> FewshotExperiment:
    """The experiment with a network by name; one of that kind that it has keeps its fields.

    Raises:
        ValueError: if there is no such network.
    """
    if name not in BACKBONES:
        raise ValueError(
            f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}, or FILE.py:NAME of one of your own"
        )
    kind = BACKBONES[name]
    return experiment if type(experiment.backbone) is kind else replace(experiment, backbone=kind())


def make_learner(experiment: FewshotExperiment, device: torch.device) -> Learner:
    """The untrained learner of an experiment; its initial weights follow from the seed.

    Raises:
        ValueError: if the learner does not fit the data, the network or the evaluation.
    """
    training, tasks = experiment.training, tasks_of(experiment.data)
    experiment.objective.check_tasks(is_classes=tasks.kind == "classification", num_outputs=tasks.num_outputs)
    setup = LearnerSetup(
        tasks=tasks,
        backbone=experiment.backbone,
        num_updates=training.iterations * training.updates_per_iteration,
        generator=torch_generator(experiment.seed),
        device=device,
        objective=experiment.objective,
    )
    learner = experiment.learner.make(setup)
    check_learner(learner, experiment.learner)
    own = learner.objective if isinstance(learner, ModuleLearner) else ByTargets()
    if own != experiment.objective:
        raise ValueError(
            f"{type(learner).__name__} has a loss of its own, got the objective "
            f"{type(experiment.objective).__name__}; leave it out"
        )
    check_views(learner, tasks.input_shape, experiment.evaluation.views)
    return learner


def data_name(experiment: FewshotExperiment) -> str:
    """The name of an experiment's data: "sinusoids", "omniglot", ..."""
    kind: str = encode(experiment)["data"]["kind"]
    return kind


def encode(experiment: FewshotExperiment) -> Any:
    """An experiment as JSON types."""
    return codec.encode(experiment, _TAGS)


def decode(data: object, template: FewshotExperiment | None = None) -> FewshotExperiment:
    """The experiment that `encode` wrote.

    Args:
        data: Decoded JSON.
        template: An experiment with the classes and objects that are not built in; None for none.

    Raises:
        ValueError: naming the field that is unknown, missing or of a wrong type.
    """
    if isinstance(data, dict) and isinstance(data.get("backbone"), dict):  # the first runs name no architecture
        data = data | {"backbone": {"architecture": "standard"} | data["backbone"]}
    experiment: FewshotExperiment = codec.decode(FewshotExperiment, data, "experiment", _TAGS, template)
    return experiment
