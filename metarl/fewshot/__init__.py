"""Supervised few-shot learning on the bi-level core: take a module and data, train a learner, adapt, predict."""

from metarl.fewshot.classes import Augmentation, ClassData, ClassEpisodes, Distortion
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.learner import Learner, OuterConfig, adapt
from metarl.fewshot.maml import Maml, MamlConfig
from metarl.fewshot.objectives import task_scores
from metarl.fewshot.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.sinusoids import Harmonics, Sinusoids

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
