"""Supervised few-shot learning on the bi-level core: take a module and data, train a learner, adapt, predict."""

from metarl.fewshot.backbones import BackboneConfig, NetworkSpec, OwnBackbone, StandardBackbone
from metarl.fewshot.data.augmentation import Augmentation, Distortion
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.data.sinusoids import Harmonics, Sinusoids
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.learner import Learner, LearnerConfig, LearnerSetup, learn_task
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.objectives import task_scores
from metarl.fewshot.outer import OuterConfig, OwnOuter
from metarl.fewshot.sources import DataConfig, Sources, TaskSpec

__all__ = [
    "Augmentation",
    "BackboneConfig",
    "ClassData",
    "ClassEpisodes",
    "DataConfig",
    "Distortion",
    "Episodes",
    "Examples",
    "Harmonics",
    "Learner",
    "LearnerConfig",
    "LearnerSetup",
    "Maml",
    "MamlConfig",
    "NetworkSpec",
    "OuterConfig",
    "OwnBackbone",
    "OwnOuter",
    "Prototypical",
    "PrototypicalConfig",
    "Sinusoids",
    "Sources",
    "StandardBackbone",
    "TaskSpec",
    "learn_task",
    "task_scores",
]
