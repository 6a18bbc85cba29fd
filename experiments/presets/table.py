"""The presets by name, in families of benchmarks or data that belong together."""

from collections.abc import Mapping

from metarl.experiments.configuration import Experiment
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.presets.bandits import BANDITS
from metarl.experiments.presets.class_folders import CLASS_FOLDERS
from metarl.experiments.presets.dynamics import DYNAMICS
from metarl.experiments.presets.gridnavi import GRIDNAVI
from metarl.experiments.presets.locomotion import LOCOMOTION, QUICKSTART
from metarl.experiments.presets.metaworld import METAWORLD
from metarl.experiments.presets.minigrid import MINIGRID
from metarl.experiments.presets.omniglot import OMNIGLOT
from metarl.experiments.presets.point import POINT
from metarl.experiments.presets.preset import FewshotPresets, Preset, Presets
from metarl.experiments.presets.sinusoids import SINUSOIDS
from metarl.experiments.presets.tables import TABLES
from metarl.experiments.presets.tabular import TABULAR
from metarl.experiments.presets.tmaze import TMAZE

RL_FAMILIES: Mapping[str, Presets] = {
    "quick start": QUICKSTART,
    "point robots": POINT,
    "bandits": BANDITS,
    "tabular MDPs": TABULAR,
    "grid navigation": GRIDNAVI,
    "T-mazes": TMAZE,
    "MiniGrid": MINIGRID,
    "locomotion": LOCOMOTION,
    "random dynamics": DYNAMICS,
    "Meta-World": METAWORLD,
}
FEWSHOT_FAMILIES: Mapping[str, FewshotPresets] = {
    "few-shot, sinusoids": SINUSOIDS,
    "few-shot, Omniglot": OMNIGLOT,
    "few-shot, folders of images": CLASS_FOLDERS,
    "few-shot, tables of features": TABLES,
}

RL_PRESETS: Presets = {name: preset for family in RL_FAMILIES.values() for name, preset in family.items()}
FEWSHOT_PRESETS: FewshotPresets = {
    name: preset for family in FEWSHOT_FAMILIES.values() for name, preset in family.items()
}
PRESETS: Mapping[str, Preset[Experiment] | Preset[FewshotExperiment]] = {**RL_PRESETS, **FEWSHOT_PRESETS}
"""Presets of all experiments by name; studies have a table of their own."""


def preset(name: str) -> Experiment:
    """The experiment of reinforcement learning with a name.

    Raises:
        ValueError: If there is none; the message names those that exist.
    """
    if name not in RL_PRESETS:
        raise ValueError(f"unknown experiment {name!r}; known: {', '.join(RL_PRESETS)}")
    return RL_PRESETS[name].configuration
