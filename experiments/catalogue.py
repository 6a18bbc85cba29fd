"""Experiments that can be trained, by the word that a user types: a preset, an installed one, or FILE.py:NAME."""

import difflib
import re
from pathlib import Path
from typing import NamedTuple

from torch import nn

from metarl.agent import AgentConfig
from metarl.envs import benchmark_names
from metarl.envs.dynamics.files import is_family_file
from metarl.envs.dynamics.rewards import Reward
from metarl.envs.gymnasium.family import GymnasiumFamily
from metarl.experiments.configuration import ALGORITHMS, Experiment
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.fewshot_settings import DATA, LEARNERS, fewshot_settings, learners_of, settings_for_data
from metarl.experiments.outside import Source, call_if_function, installed, load_object, names_object
from metarl.experiments.presets.table import PRESETS, RL_PRESETS
from metarl.experiments.settings import settings_for
from metarl.fewshot.backbones import BackboneConfig, OwnBackbone
from metarl.fewshot.sources import DataConfig
from metarl.tasks import Benchmark


class Named(NamedTuple):
    """An experiment that was found by a word.

    Attributes:
        name: Name of its runs.
        experiment: Configuration.
        source: Origin of the experiment; None for a preset.
    """

    name: str
    experiment: Experiment | FewshotExperiment
    source: Source | None = None


def experiment_of_word(word: str) -> Named:
    """The experiment that a word names.

    Raises:
        ValueError: if there is none, with what may have been meant; or if a user's file cannot be used.
    """
    if word in PRESETS:
        return Named(word, PRESETS[word].configuration)
    if word in ALGORITHMS:
        raise ValueError(
            f"{word} is an algorithm and needs a benchmark: `metarl train {word} --benchmark point`, gridnavi, "
            "half-cheetah-vel, ml1-reach, ...; `metarl list benchmarks` has all, FILE.yaml and FILE.py:FAMILY are "
            "your own"
        )
    if word in LEARNERS:
        data = next(data for data in DATA if word in learners_of(data))
        raise ValueError(
            f"{word} is a few-shot learner and needs data: `metarl train {word} --benchmark {data}`; "
            f"data: {', '.join(each for each in DATA if word in learners_of(each))}, or FILE.py:NAME of your own"
        )
    if names_object(word):
        return _outside(word)
    points = installed()
    if word in points:
        named = _outside(points[word].value, word)
        assert named.source is not None
        return named._replace(source=Source(word, named.source.sha256))
    if word.endswith(".py"):
        raise ValueError(f"{word} must say what to take of the file: expected {word}:NAME")
    raise ValueError(f"unknown experiment {word!r}; {_meant(word, [*PRESETS, *points])}")


def experiment_of_algorithm(
    algorithm: str, word: str, reward: Reward | None = None
) -> tuple[Named, Source | None]:
    """The experiment that trains an algorithm on the benchmark of a word, and the origin of a user's benchmark.

    Args:
        algorithm: Name of the algorithm, or of a few-shot learner.
        word: Name of the benchmark, a YAML family file, or FILE.py:NAME; or of the data of a few-shot learner.
        reward: Reward of a user's own for a YAML family; None for the family's.

    Raises:
        ValueError: if there is no such benchmark.
    """
    if word in DATA:
        return Named(*fewshot_settings(algorithm, word)), None
    own, source = benchmark_of_word(word) if names_object(word) else (None, None)
    if isinstance(own, DataConfig):
        if algorithm not in LEARNERS:
            raise ValueError(
                f"{word} is data of few-shot learners, such as protonet; got the meta-RL algorithm {algorithm}"
            )
        return Named(name_on_data(word, algorithm), settings_for_data(algorithm, own)), source
    if algorithm not in ALGORITHMS:
        learnt = ", ".join(data for data in DATA if algorithm in learners_of(data))
        raise ValueError(
            f"{algorithm} is a few-shot learner, of {learnt}; got the benchmark {word!r}; data of your own are "
            "FILE.py:NAME"
        )
    experiment = settings_for(algorithm, word if own is None else own, reward)
    return Named(title(experiment), experiment), source


def benchmark_of_word(word: str) -> tuple[Benchmark | DataConfig, Source]:
    """The benchmark that FILE.py:NAME or module:NAME names, or a family's with all of its tasks; or few-shot data.

    Raises:
        ValueError: if the file cannot be used, or holds something else there.
    """
    value, source = load_object(word)
    value = call_if_function(value, word)
    if isinstance(value, GymnasiumFamily):
        value = value.benchmark()
    if not isinstance(value, Benchmark | DataConfig):
        raise ValueError(
            f"{word} must be a Benchmark, a GymnasiumFamily or the DataConfig of few-shot tasks, or a function "
            f"without arguments that returns one, got {type(value).__name__}"
        )
    return value, source


def backbone_of_word(word: str) -> tuple[BackboneConfig, Source]:
    """The network that FILE.py:NAME or module:NAME names: a module, what makes one, or its configuration.

    Raises:
        ValueError: if the file cannot be used, or holds something else there.
    """
    value, source = load_object(word)
    if isinstance(value, type) and issubclass(value, BackboneConfig):
        value = call_if_function(value, word)
    if isinstance(value, BackboneConfig):
        return value, source
    if not callable(value) or (isinstance(value, type) and not issubclass(value, nn.Module)):
        raise ValueError(
            f"{word} must be a torch.nn.Module, a function or class that makes one from a NetworkSpec and a "
            f"random stream or without arguments, or a BackboneConfig, got {_kind(value)}"
        )
    return OwnBackbone(value), source


def reward_of_word(word: str) -> tuple[Reward, Source]:
    """The reward that FILE.py:NAME or module:NAME names: a function, or an object that is called like one.

    Raises:
        ValueError: if the file cannot be used, or holds something else there.
    """
    if not names_object(word):
        raise ValueError(f"--reward must be FILE.py:NAME or module:NAME, got {word!r}")
    value, source = load_object(word)
    if not callable(value) or isinstance(value, type):
        raise ValueError(
            f"{word} must be a function of (motion, actions) that returns named terms, or an object like one, "
            f"got {_kind(value)}"
        )
    return value, source


def title(experiment: Experiment) -> str:
    """The name of what an experiment does: its benchmark and its algorithm."""
    benchmark = experiment.benchmark
    if isinstance(benchmark, Benchmark):
        name = benchmark.name
    else:
        name = Path(benchmark).stem if is_family_file(benchmark) else benchmark
    return f"{_slug(name)}-{_agent_name(experiment.agent)}"


def name_on_data(word: str, learner: str) -> str:
    """A name of the file, of what is taken of it, and of the agent or learner, unless that is part of the name."""
    file, _, part = word.rpartition(":")
    stem = Path(file).stem if file.endswith(".py") else file.rpartition(".")[2]
    name = f"{_slug(stem)}-{_slug(part)}"
    return name if learner in name else f"{name}-{learner}"


def _outside(word: str, name: str | None = None) -> Named:
    """The experiment of FILE.py:NAME or module:NAME; by default named after the word and its agent."""
    value, source = load_object(word)
    value = call_if_function(value, word)
    if isinstance(value, Benchmark | GymnasiumFamily | DataConfig):
        what = "few-shot data" if isinstance(value, DataConfig) else "a benchmark or a family"
        raise ValueError(f"{word} is {what}, expected an experiment; give it as --benchmark {word}")
    if isinstance(value, nn.Module | BackboneConfig):
        raise ValueError(
            f"{word} is a network, expected an experiment; give it to one, such as `metarl train LEARNER "
            f"--benchmark DATA --backbone {word}`"
        )
    if not isinstance(value, Experiment | FewshotExperiment):
        raise ValueError(
            f"{word} must be an Experiment or a FewshotExperiment, or a function without arguments that returns "
            f"one, got {type(value).__name__}"
        )
    return Named(name or _name_of_word(word, value), value, source)


def _name_of_word(word: str, experiment: Experiment | FewshotExperiment) -> str:
    """A name of the file, of what is taken of it, and of the agent or learner: cartpole-rl2, mine-small-rl2."""
    if isinstance(experiment, Experiment):
        return name_on_data(word, _agent_name(experiment.agent))
    return name_on_data(word, _slug(type(experiment.learner).__name__.removesuffix("Config")))


def _kind(value: object) -> str:
    """What a value is, in words."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _agent_name(config: AgentConfig) -> str:
    short = {known: algorithm for algorithm, known in ALGORITHMS.items()}
    return short.get(type(config)) or _slug(type(config).__name__.removesuffix("Config"))


def _meant(word: str, known: list[str]) -> str:
    """What somebody may have meant who typed a name that there is not."""
    if word in benchmark_names():
        using = [name for name, preset in RL_PRESETS.items() if preset.configuration.benchmark == word]
        with_it = f"experiments on it: {', '.join(using)}" if using else "no experiment uses it"
        return f"{word} is a benchmark; {with_it}; or `metarl train {'|'.join(ALGORITHMS)} --benchmark {word}`"
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    close = close or [name for name in known if word in name][:3]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return "`metarl list` shows those that there are; or give FILE.py:NAME"


def _slug(name: str) -> str:
    """A name in lower case with dashes, for folders."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1-\2", name)
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "experiment"
