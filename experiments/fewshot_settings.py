"""Few-shot settings by name of learner and data: `metarl train protonet --benchmark omniglot`.

Where a preset trains the learner on the data, its settings are taken. Other settings follow from the presets: the
learner, its network, its evaluation and how its training tasks are labelled and distorted are those of Omniglot or
of sinusoids, the data and the length of training those of the data's own presets.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.presets.table import FEWSHOT_PRESETS
from metarl.fewshot.data.class_tasks import EpisodesConfig
from metarl.fewshot.sources import DataConfig

DATA: Mapping[str, str] = {
    "sinusoids": "sinusoid",
    "harmonics": "harmonic",
    "omniglot": "omniglot",
    "class-folders": "class-folders",
    "table": "table",
}
"""Names of data, and what the names of their presets begin with."""
_LIKE = {"harmonics": "sinusoids", "class-folders": "omniglot", "table": "omniglot"}
"""Data whose presets have the settings of learners that a data's own presets lack."""
_OF_OMNIGLOT = ("lake", "protonet-mixed")
"""Presets of ways to draw Omniglot's tasks, and not of a learner."""
_OF_IMAGES = (
    "relation",
    "adml",
    "matching-full-context",
    "optimal-transport",
    "protonet-augmented",
    "protonet-compact",
    "ridge-resnet12",
)
"""Learners whose settings are for images alone."""


def learners_of(data: str) -> list[str]:
    """Names of the learners of data: those of its presets, and of the presets of data like it."""
    own = _learners(data)
    others = _learners(_LIKE[data]) if data in _LIKE else []
    left_out = (*_OF_OMNIGLOT, *(_OF_IMAGES if data == "table" else ()))
    return [*own, *(name for name in others if name not in own and name not in left_out)]


def fewshot_settings(learner: str, data: str) -> tuple[str, FewshotExperiment]:
    """The name and the configuration of the experiment that trains a learner on data.

    Args:
        learner: Name of the learner, such as maml or protonet.
        data: Name of the data: sinusoids, harmonics, omniglot, class-folders or table.

    Raises:
        ValueError: if there is no such learner of the data.
    """
    known = learners_of(data)
    if learner not in known:
        raise ValueError(f"{learner} cannot be trained on {data}; learners of it: {', '.join(known)}")
    name = f"{DATA[data]}-{learner}"
    if name in FEWSHOT_PRESETS:
        return name, FEWSHOT_PRESETS[name].configuration
    like = FEWSHOT_PRESETS[f"{DATA[_LIKE[data]]}-{learner}"].configuration
    own = [FEWSHOT_PRESETS[f"{DATA[data]}-{each}"].configuration for each in _learners(data)]
    # Learners that compare features are trained on episodes with ways of their own, others on those of the test.
    base = next((each for each in own if _has_train_ways(each) == _has_train_ways(like)), own[0])
    return name, replace(
        base,
        data=_prepared_alike(base.data, like.data),
        learner=like.learner,
        backbone=like.backbone,
        evaluation=like.evaluation,
    )


def settings_for_data(learner: str, data: DataConfig) -> FewshotExperiment:
    """The configuration of the experiment that trains a learner on data of a user's own.

    Settings are those of class folders for images, of tables for other classes, and of sinusoids for numbers.

    Args:
        learner: Name of the learner, such as maml or protonet.
        data: Data to train on.

    Raises:
        ValueError: if the learner is not for such tasks.
    """
    tasks = data.tasks
    like = "sinusoids" if tasks.kind == "regression" else "table"
    if tasks.kind == "classification" and len(tasks.input_shape) == 3:
        like = "class-folders"
    known = learners_of(like)
    if learner not in known:
        what = f"tasks of {tasks.kind} with inputs of shape {tasks.input_shape}"
        raise ValueError(f"{learner} cannot be trained on {what}; learners of it: {', '.join(known)}")
    return with_data(fewshot_settings(learner, like)[1], data)


def with_data(experiment: FewshotExperiment, data: DataConfig) -> FewshotExperiment:
    """The experiment on other data, whose training tasks have the labels that its learner needs."""
    episodes, own = getattr(data, "episodes", None), getattr(experiment.data, "episodes", None)
    if isinstance(episodes, EpisodesConfig) and isinstance(own, EpisodesConfig):
        changed = {"episodes": replace(episodes, train_labels=own.train_labels)}
        data = replace(data, **changed)  # type: ignore[type-var]  # a dataclass, as it has episodes
    return replace(experiment, data=data)


def _has_train_ways(experiment: FewshotExperiment) -> bool:
    return getattr(getattr(experiment.data, "episodes", None), "train_ways", None) is not None


def _prepared_alike(data: Any, like: Any) -> Any:
    """Data whose training tasks have the labels, and the images the distortions, of a learner elsewhere."""
    if hasattr(data, "episodes") and hasattr(like, "episodes"):
        data = replace(data, episodes=replace(data.episodes, train_labels=like.episodes.train_labels))
    if hasattr(data, "augmentation") and hasattr(like, "augmentation"):
        data = replace(data, augmentation=like.augmentation)
    return data


def _learners(data: str) -> list[str]:
    start = f"{DATA[data]}-"
    return [name.removeprefix(start) for name in FEWSHOT_PRESETS if name.startswith(start)]


LEARNERS = tuple(dict.fromkeys(name for data in DATA for name in learners_of(data)))
"""Names of all learners."""
