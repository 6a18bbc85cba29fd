"""Conformance of data and learners of one's own: what they return is checked once, before a training begins."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.episodes import Episodes, EpisodeSource
from metarl.fewshot.learner import Learner
from metarl.fewshot.sources import DataConfig, Sources, TaskSpec

_OF_LEARNER = ("update", "adapt", "state_dict", "load_state_dict", "num_steps", "normalisation")
_OURS = "metarl."


def tasks_of(data: DataConfig) -> TaskSpec:
    """The kind and the sizes of the tasks of data.

    Raises:
        ValueError: if the data say something else.
    """
    tasks: object = data.tasks
    if not isinstance(tasks, TaskSpec):
        raise ValueError(
            f"{type(data).__name__}.tasks must be a TaskSpec(kind, input_shape, num_outputs), a property, got "
            f"{_kind(tasks)}"
        )
    if tasks.kind not in ("classification", "regression"):
        raise ValueError(
            f"{type(data).__name__}.tasks.kind must be classification or regression, got {tasks.kind!r}"
        )
    return tasks


def sources_of(data: DataConfig, device: torch.device) -> Sources:
    """The sources of the tasks of data.

    Raises:
        ValueError: if the data make something else.
    """
    sources: object = data.make(device)
    expected = f'{type(data).__name__}.make must return Sources(train, {{"test": ...}})'
    if not isinstance(sources, Sources):
        raise ValueError(f"{expected}, got {_kind(sources)}")
    if not isinstance(sources.held_out, Mapping) or not set(sources.held_out) & {"train", "validation", "test"}:
        raise ValueError(f"{expected}, got {_kind(sources.held_out)} for what is held out")
    for name, source in {"training": sources.train, **sources.held_out}.items():
        if not callable(getattr(source, "sample", None)):
            raise ValueError(f"{expected} of objects with a method sample, got {_kind(source)} for {name}")
    return sources


def try_data(data: DataConfig, sources: Sources) -> Episodes:
    """A task of every source, drawn by a random stream of its own; returns the one to train on.

    Raises:
        ValueError: if a source draws something else than its data say.
    """
    for name, source in sources.held_out.items():
        _try_source(data, source, name)
    return _try_source(data, sources.train, "training")


def _try_source(data: DataConfig, source: EpisodeSource, name: str) -> Episodes:
    tasks, where = tasks_of(data), f"the {name} tasks of {type(data).__name__}"
    episodes: object = source.sample(1, np.random.default_rng(0))
    if not isinstance(episodes, Episodes) or not all(isinstance(part, tuple) for part in episodes):
        raise ValueError(
            f"{where} must be Episodes(support, query) of Examples(inputs, targets), got {_kind(episodes)} from "
            f"{type(source).__name__}.sample"
        )
    for part in episodes:
        if part.inputs.dim() < 2 or tuple(part.inputs.shape[2:]) != tuple(tasks.input_shape):
            raise ValueError(
                f"{where} must have inputs of shape {('task', 'row', *tasks.input_shape)}, as its property tasks "
                f"says, got {tuple(part.inputs.shape)}"
            )
        if part.inputs.dtype != tasks.input_dtype and not tasks.input_dtype.is_floating_point:
            raise ValueError(
                f"{where} must have inputs of {tasks.input_dtype}, as its property tasks says, got "
                f"{part.inputs.dtype}; bytes are taken for images, so give torch.int64"
            )
        if part.targets.is_floating_point() == (tasks.kind == "classification"):
            expected = "whole numbers" if tasks.kind == "classification" else "floating-point numbers"
            raise ValueError(f"{where} are of {tasks.kind}: targets must be {expected}, got {part.targets.dtype}")
        if part.targets.shape[:2] != part.inputs.shape[:2]:
            raise ValueError(
                f"{where} must have a target for every input, got inputs {tuple(part.inputs.shape)} and targets "
                f"{tuple(part.targets.shape)}"
            )
    return episodes


def check_learner(learner: object, config: object) -> None:
    """Raise a ValueError, which names the configuration that made it, unless an object has a learner's parts."""
    missing = [name for name in _OF_LEARNER if not hasattr(learner, name)]
    if missing:
        raise ValueError(
            f"{type(config).__name__}.make must return a learner with {', '.join(_OF_LEARNER)}; got "
            f"{_kind(learner)}, without {missing[0]}"
        )


def try_learner(learner: Learner, episodes: Episodes) -> None:
    """Adapt a learner of one's own to a task, without steps.

    Raises:
        ValueError: if it returns no predictors, or these no outputs for the queries.
    """
    if type(learner).__module__.startswith(_OURS):
        return
    name = f"{type(learner).__name__}.adapt"
    with torch.random.fork_rng():
        predictors: object = learner.adapt(episodes.support, 0)
        if not isinstance(predictors, list) or not predictors or not callable(predictors[0]):
            raise ValueError(
                f"{name} must return a list of predictors, after 0, 1, ... steps, got "
                f"{'an empty list' if predictors == [] else _kind(predictors)}"
            )
        outputs: object = predictors[0](episodes.query.inputs)
    rows = tuple(episodes.query.targets.shape[:2])
    if not isinstance(outputs, Tensor) or outputs.dim() != 3 or tuple(outputs.shape[:2]) != rows:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else _kind(outputs)
        raise ValueError(f"predictors of {name} must return outputs of shape {(*rows, 'out')}, got {shape}")


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
