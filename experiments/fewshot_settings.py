"""Few-shot settings by name of learner and data: `metarl train protonet --benchmark omniglot`.

Where a preset trains the learner on the data, its settings are taken. Other settings follow from the presets: the
learner and its network are those of Omniglot or of sinusoids, the data and the length of training those of the
data's own presets.
"""

from collections.abc import Mapping
from dataclasses import replace

from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.presets.table import FEWSHOT_PRESETS

DATA: Mapping[str, str] = {
    "sinusoids": "sinusoid",
    "harmonics": "harmonic",
    "omniglot": "omniglot",
    "class-folders": "class-folders",
}
"""Names of data, and what the names of their presets begin with."""
_LIKE = {"harmonics": "sinusoids", "class-folders": "omniglot"}
"""Data whose presets have the settings of learners that a data's own presets lack."""


def learners_of(data: str) -> list[str]:
    """Names of the learners of data: those of its presets, and of the presets of data like it."""
    own = _learners(data)
    return [*own, *(name for name in (_learners(_LIKE[data]) if data in _LIKE else ()) if name not in own)]


def fewshot_settings(learner: str, data: str) -> tuple[str, FewshotExperiment]:
    """The name and the configuration of the experiment that trains a learner on data.

    Args:
        learner: Name of the learner, such as maml or protonet.
        data: Name of the data: sinusoids, harmonics, omniglot or class-folders.

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
    # Learners that take steps at test time train otherwise than those that compare features.
    base = next(
        (each for each in own if bool(each.evaluation.num_steps) == bool(like.evaluation.num_steps)), own[0]
    )
    return name, replace(
        base,
        learner=like.learner,
        backbone=like.backbone,
        evaluation=replace(base.evaluation, num_steps=like.evaluation.num_steps),
    )


def _learners(data: str) -> list[str]:
    start = f"{DATA[data]}-"
    return [name.removeprefix(start) for name in FEWSHOT_PRESETS if name.startswith(start)]


LEARNERS = tuple(dict.fromkeys(name for data in DATA for name in learners_of(data)))
"""Names of all learners."""
