"""Supervised few-shot learning on the bi-level core: take a module and data, train a learner, adapt, predict."""

from metarl.fewshot.adapted import adapted_network
from metarl.fewshot.backbones import BackboneConfig, NetworkSpec, OwnBackbone, StandardBackbone
from metarl.fewshot.data.augmentation import Augmentation, Distortion
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.data.sinusoids import Harmonics, Sinusoids
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.learner import Learner, LearnerConfig, LearnerSetup, learn_task
from metarl.fewshot.learners.adml import Adml, AdmlConfig
from metarl.fewshot.learners.baseline import Baseline, BaselineConfig
from metarl.fewshot.learners.cavia import Cavia, CaviaConfig
from metarl.fewshot.learners.fine_tuning import FineTuning, FineTuningConfig
from metarl.fewshot.learners.implicit_maml import ImplicitMaml, ImplicitMamlConfig
from metarl.fewshot.learners.kernel_regression import KernelRegression, KernelRegressionConfig
from metarl.fewshot.learners.label_propagation import LabelPropagation, LabelPropagationConfig
from metarl.fewshot.learners.logistic import Logistic, LogisticConfig
from metarl.fewshot.learners.mahalanobis import Mahalanobis, MahalanobisConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.matching import Matching, MatchingConfig
from metarl.fewshot.learners.optimal_transport import OptimalTransport, OptimalTransportConfig
from metarl.fewshot.learners.proto_maml import ProtoMaml, ProtoMamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.relation import Relation, RelationConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.learners.ridge import Ridge, RidgeConfig
from metarl.fewshot.learners.siamese import Siamese, SiameseConfig
from metarl.fewshot.learners.support_vectors import SupportVector, SupportVectorConfig
from metarl.fewshot.objectives import task_scores
from metarl.fewshot.outer import OuterConfig, OwnOuter
from metarl.fewshot.sources import DataConfig, Sources, TaskSpec

__all__ = [
    "Adml",
    "AdmlConfig",
    "Augmentation",
    "BackboneConfig",
    "Baseline",
    "BaselineConfig",
    "Cavia",
    "CaviaConfig",
    "ClassData",
    "ClassEpisodes",
    "DataConfig",
    "Distortion",
    "Episodes",
    "Examples",
    "FineTuning",
    "FineTuningConfig",
    "Harmonics",
    "ImplicitMaml",
    "ImplicitMamlConfig",
    "KernelRegression",
    "KernelRegressionConfig",
    "LabelPropagation",
    "LabelPropagationConfig",
    "Learner",
    "LearnerConfig",
    "LearnerSetup",
    "Logistic",
    "LogisticConfig",
    "Mahalanobis",
    "MahalanobisConfig",
    "Maml",
    "MamlConfig",
    "Matching",
    "MatchingConfig",
    "NetworkSpec",
    "OptimalTransport",
    "OptimalTransportConfig",
    "OuterConfig",
    "OwnBackbone",
    "OwnOuter",
    "ProtoMaml",
    "ProtoMamlConfig",
    "Prototypical",
    "PrototypicalConfig",
    "Relation",
    "RelationConfig",
    "Reptile",
    "ReptileConfig",
    "Ridge",
    "RidgeConfig",
    "Siamese",
    "SiameseConfig",
    "Sinusoids",
    "Sources",
    "StandardBackbone",
    "SupportVector",
    "SupportVectorConfig",
    "TaskSpec",
    "adapted_network",
    "learn_task",
    "task_scores",
]
