"""Experiments by the words of a command line: `rl2 --benchmark point --agent.outer-lr 1e-3`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from metarl.envs.dynamics.rewards import Reward
from metarl.experiments.arguments import UsageError, parse, take_option
from metarl.experiments.catalogue import (
    Named,
    backbone_of_word,
    benchmark_of_word,
    experiment_of_algorithm,
    experiment_of_word,
    name_on_data,
    reward_of_word,
    title,
)
from metarl.experiments.configuration import ALGORITHMS, Experiment
from metarl.experiments.fewshot.configuration import FewshotExperiment, with_backbone, with_objective
from metarl.experiments.fewshot_settings import DATA, LEARNERS, learners_of, with_data
from metarl.experiments.loading import prepare_run
from metarl.experiments.outside import OwnWords, Source, names_object
from metarl.experiments.queue import Planned
from metarl.experiments.runs import Run
from metarl.experiments.seeds import parse_seeds
from metarl.fewshot.sources import DataConfig
from metarl.tasks import Benchmark


@dataclass(frozen=True)
class TrainArguments:
    """Train an experiment in a new run folder.

    Attributes:
        experiment: Configuration; every field can be overridden.
        reward: FILE.py:NAME of a reward of your own, instead of that of a YAML family: a function of a step's
            motion and actions that returns named terms.
        out: Run folder to make; by default the next free runs/NAME-seedN, or runs/NAME with several seeds.
        seeds: Seeds of several runs in one folder, on the same test tasks, side by side as cores allow: a number
            of seeds, or a list like 0,3,7. Several experiments before the options are trained alike.
    """

    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    reward: str | None = None
    out: Path | None = None
    seeds: str | None = None


@dataclass(frozen=True)
class FewshotTrainArguments:
    """Train a few-shot experiment in a new run folder.

    Attributes:
        experiment: Configuration; every field can be overridden.
        benchmark: FILE.py:NAME of data of your own, instead of the experiment's: a DataConfig, or a function that
            returns one, whose own fields follow as --data.num-ways 5.
        backbone: Network, standard, residual or compact, or FILE.py:NAME of your own: a torch.nn.Module, or a
            function or class that makes one. Fields of the network follow as --backbone.num-filters 32.
        objective: Loss and score, by-targets, cross-entropy, binary-cross-entropy, squared-error or
            gaussian-likelihood, whose own fields follow as --objective.label-smoothing 0.1.
        out: Run folder to make; by default the next free runs/NAME-seedN, or runs/NAME with several seeds.
        seeds: Seeds of several runs in one folder, on the same test tasks, side by side as cores allow: a number
            of seeds, or a list like 0,3,7. Several experiments before the options are trained alike.
    """

    experiment: Annotated[FewshotExperiment, tyro.conf.arg(name="")]
    benchmark: str | None = None
    backbone: str | None = None
    objective: str | None = None
    out: Path | None = None
    seeds: str | None = None


@dataclass(frozen=True)
class Prepared:
    """An experiment with its overridden fields, and where it comes from."""

    name: str
    experiment: Experiment | FewshotExperiment
    sources: dict[str, Source]
    out: Path | None
    seeds: str | None

    @property
    def own(self) -> OwnWords:
        """Words for what is a user's own."""
        return OwnWords.of(self.sources)

    def run(self) -> Run:
        """The run before there is a folder."""
        return prepare_run(self.name, self.experiment, {part: s.to_json() for part, s in self.sources.items()})


def prepared_by(word: str, options: list[str]) -> Prepared:
    """An experiment by its word, with the options applied to it."""
    sources: dict[str, Source] = {}
    reward = None
    if (reward_word := take_option(options, "--reward")[0]) is not None:
        reward, sources["reward"] = reward_of_word(reward_word)
    by_name = word in ALGORITHMS or word in LEARNERS
    benchmark_word, rest = _benchmark_word(word, options) if by_name else (None, options)
    if benchmark_word is None:
        named = experiment_of_word(word)
    else:
        named, benchmark_source = experiment_of_algorithm(word, benchmark_word, reward)
        if benchmark_source is not None:
            sources["benchmark"] = benchmark_source
    if named.source is not None:
        sources["experiment"] = named.source
    if isinstance(named.experiment, FewshotExperiment):
        if reward is not None:
            raise UsageError(f"--reward is of meta-RL on YAML families, got the few-shot experiment {word}")
        return _fewshot(word, named.name, named.experiment, rest, sources)
    return _rl(word, named, rest, sources, reward)


def _rl(
    word: str, named: Named, options: list[str], sources: dict[str, Source], reward: Reward | None
) -> Prepared:
    """A meta-RL experiment with the options applied to it."""
    for option in ("--objective", "--backbone"):
        if take_option(options, option)[0] is not None:
            raise UsageError(f"{option} is of few-shot experiments, got the meta-RL experiment {word}")
    assert isinstance(named.experiment, Experiment)
    arguments = parse(TrainArguments, options, f"metarl train {word}", TrainArguments(named.experiment))
    experiment, name = arguments.experiment, named.name
    if reward is not None:
        experiment = replace(experiment, reward=reward)
    if isinstance(experiment.benchmark, str) and names_object(experiment.benchmark):
        benchmark, sources["benchmark"] = benchmark_of_word(experiment.benchmark)
        if not isinstance(benchmark, Benchmark):
            raise UsageError(f"{experiment.benchmark} is few-shot data, got the meta-RL experiment {word}")
        experiment = replace(experiment, benchmark=benchmark)
    if experiment.benchmark != named.experiment.benchmark:
        name = title(experiment)
    return Prepared(name, experiment, sources, arguments.out, arguments.seeds)


def _fewshot(
    word: str, name: str, experiment: FewshotExperiment, options: list[str], sources: dict[str, Source]
) -> Prepared:
    """A few-shot experiment with the options that name its parts applied first, as fields follow from these."""
    data, rest = take_option(options, "--benchmark")
    if data is not None:
        if not names_object(data):
            raise UsageError(
                f"--benchmark of {word} must be FILE.py:NAME of data of your own, got {data!r}; `metarl train "
                "LEARNER --benchmark DATA` trains a learner on data by name"
            )
        own, sources["benchmark"] = benchmark_of_word(data)
        if not isinstance(own, DataConfig):
            raise UsageError(f"{data} is a benchmark of meta-RL, got the few-shot experiment {word}")
        name, experiment = name_on_data(data, _learner_name(word)), with_data(experiment, own)
    backbone, rest = take_option(rest, "--backbone")
    if backbone is not None and names_object(backbone):
        network, sources["backbone"] = backbone_of_word(backbone)
        experiment = replace(experiment, backbone=network)
    elif backbone is not None:
        experiment = with_backbone(experiment, backbone)
    objective, rest = take_option(rest, "--objective")
    if objective is not None:
        experiment = with_objective(experiment, objective)
    default = FewshotTrainArguments(experiment)
    arguments = parse(FewshotTrainArguments, rest, f"metarl train {word}", default)
    return Prepared(name, arguments.experiment, sources, arguments.out, arguments.seeds)


def _learner_name(word: str) -> str:
    """The part of an experiment's name that its learner has; that of the variable, of one of a file."""
    starts = [f"{start}-" for start in DATA.values() if word.startswith(f"{start}-")]
    return word.removeprefix(starts[0]) if starts else word.rpartition(":")[2].lower()


def planned(words: Sequence[str]) -> list[Planned]:
    """The runs that the words of one `metarl train` name, before there are folders; one without --seeds.

    Raises:
        ValueError: if they name no single experiment, or a folder to make.
    """
    if not words or words[0].startswith("-"):
        raise UsageError(f"expected an experiment first, got {words[0] if words else 'nothing'!r}")
    if {"-h", "--help"} & set(words):
        raise UsageError(f"help is not a training; see `metarl train {words[0]} --help`")
    prepared = prepared_by(words[0], list(words[1:]))
    if prepared.out is not None:
        raise UsageError("the list's folder holds all its runs; leave --out away")
    seeds = (prepared.experiment.seed,) if prepared.seeds is None else parse_seeds(prepared.seeds)
    return [Planned(prepared.name, seed, prepared.own, with_seed(prepared, seed).run) for seed in seeds]


def experiment(word: str, *options: str) -> Experiment | FewshotExperiment:
    """The experiment that `metarl train` would train, from the same words.

        metarl.train(metarl.experiment("rl2", "--benchmark", "point", "--agent.outer-lr", "1e-3"))

    Args:
        word: Name of a preset or of an algorithm, or FILE.py:NAME.
        options: Options and their values.

    Raises:
        ValueError: if the words name no experiment, or a folder or several seeds, which `metarl.train` is given.
    """
    prepared = prepared_by(word, list(options))
    if prepared.out is not None or prepared.seeds is not None:
        raise UsageError("an experiment has no --out and no --seeds; give a folder to metarl.train")
    return prepared.experiment


def with_seed(prepared: Prepared, seed: int) -> Prepared:
    """The experiment with a seed; its test tasks are drawn by seed 0 unless it names another."""
    experiment = prepared.experiment
    if isinstance(experiment, Experiment) and experiment.evaluation.task_seed is None:
        experiment = replace(experiment, evaluation=replace(experiment.evaluation, task_seed=0))
    return replace(prepared, experiment=replace(experiment, seed=seed))


def _benchmark_word(word: str, words: list[str]) -> tuple[str | None, list[str]]:
    """The value of --benchmark, None if it is not there, and the words without it.

    Help without a benchmark describes the fields as for point navigation, or for the first data of a learner.
    """
    value, rest = take_option(words, "--benchmark")
    if value is not None or not {"-h", "--help"} & set(words):
        return value, rest
    return "point" if word in ALGORITHMS else next(data for data in DATA if word in learners_of(data)), rest
