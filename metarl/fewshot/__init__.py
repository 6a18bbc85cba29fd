"""Supervised few-shot learning on the bi-level core: take a module and data, train a learner, adapt, predict."""

from metarl.fewshot.data.classes import Augmentation, ClassData, ClassEpisodes, Distortion
from metarl.fewshot.data.sinusoids import Harmonics, Sinusoids
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.learner import Learner, OuterConfig, adapt
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.objectives import task_scores

__all__ = [
    "Augmentation",
    "ClassData",
    "ClassEpisodes",
    "Distortion",
    "Episodes",
    "Examples",
    "Harmonics",
    "Learner",
    "Maml",
    "MamlConfig",
    "OuterConfig",
    "Prototypical",
    "PrototypicalConfig",
    "Sinusoids",
    "adapt",
    "task_scores",
]
