"""metarl train EXPERIMENT: train in a new run folder, and evaluate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from metarl.experiments.arguments import UsageError, parse
from metarl.experiments.catalogue import (
    benchmark_of_word,
    experiment_of_algorithm,
    experiment_of_word,
    reward_of_word,
    title,
)
from metarl.experiments.configuration import ALGORITHMS, Experiment
from metarl.experiments.console import say
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.loading import prepare_run
from metarl.experiments.outside import OwnWords, Source, names_object
from metarl.experiments.queue import Planned
from metarl.experiments.runs import Run, make_folder, make_run
from metarl.experiments.seeds import Member, finish_group, parse_seeds
from metarl.experiments.working import work

HELP = """usage: metarl train EXPERIMENT [--out DIR] [any field of the configuration]
       metarl train EXPERIMENT ... --seeds 3 [--out DIR] [any field]

EXPERIMENT is one of
  NAME                        an experiment of `metarl list`
  ALGORITHM --benchmark NAME  promp, maml-trpo, rl2, pearl or varibad, with settings
                              for the benchmark's kind; of `metarl list benchmarks`, a
                              YAML family, or FILE.py:FAMILY of your own
  FILE.py:NAME, module:NAME   an Experiment of your own, or a function that returns one

`metarl train EXPERIMENT --help` describes an experiment's fields."""


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

    experiment: Annotated[Experiment | FewshotExperiment, tyro.conf.arg(name="")]
    reward: str | None = None
    out: Path | None = None
    seeds: str | None = None


def command(words: list[str]) -> int:
    """Run `metarl train`; returns the exit status."""
    if words[:1] in (["-h"], ["--help"]):
        say(HELP)
        return 0
    if not words or words[0].startswith("-"):
        raise UsageError("train needs an experiment: a name of `metarl list`, or FILE.py:NAME")
    count = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    prepared = [prepared_by(word, words[count:]) for word in words[:count]]
    out, seeds = prepared[0].out, prepared[0].seeds
    if seeds is None:
        if count > 1:
            raise UsageError(f"expected one experiment, got {', '.join(words[:count])}; several need --seeds")
        return _train_one(prepared[0], out)
    return _train_group(prepared, out, parse_seeds(seeds))


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
        words = {part: source.word for part, source in self.sources.items()}
        return OwnWords(words.get("experiment"), words.get("benchmark"), words.get("reward"))

    def run(self) -> Run:
        """The run before there is a folder."""
        return prepare_run(self.name, self.experiment, {part: s.to_json() for part, s in self.sources.items()})


def prepared_by(word: str, options: list[str]) -> Prepared:
    """An experiment by its word, with the options applied to it."""
    sources: dict[str, Source] = {}
    reward = None
    if (reward_word := _option(options, "--reward")[0]) is not None:
        reward, sources["reward"] = reward_of_word(reward_word)
    benchmark_word, rest = _benchmark_word(options) if word in ALGORITHMS else (None, options)
    if benchmark_word is None:
        named = experiment_of_word(word)
    else:
        named, benchmark_source = experiment_of_algorithm(word, benchmark_word, reward)
        if benchmark_source is not None:
            sources["benchmark"] = benchmark_source
    default = TrainArguments(experiment=named.experiment)
    arguments = parse(TrainArguments, rest, f"metarl train {word}", default)
    experiment, name = arguments.experiment, named.name
    if named.source is not None:
        sources["experiment"] = named.source
    if reward is not None:
        if not isinstance(experiment, Experiment):
            raise UsageError(f"--reward is of meta-RL on YAML families, got the few-shot experiment {word}")
        experiment = replace(experiment, reward=reward)
    if isinstance(experiment, Experiment):
        assert isinstance(named.experiment, Experiment)
        if isinstance(experiment.benchmark, str) and names_object(experiment.benchmark):
            benchmark, sources["benchmark"] = benchmark_of_word(experiment.benchmark)
            experiment = replace(experiment, benchmark=benchmark)
        if experiment.benchmark != named.experiment.benchmark:
            name = title(experiment)
    return Prepared(name, experiment, sources, arguments.out, arguments.seeds)


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


def _train_one(prepared: Prepared, out: Path | None) -> int:
    run = prepared.run()
    introduction = run.introduction()  # what cannot be made leaves no folder behind
    run = make_run(run, out)
    for line in introduction:
        say(line)
    say(f"run folder {run.folder}")
    return work(run, prepared.own)


def _train_group(prepared: list[Prepared], out: Path | None, seeds: tuple[int, ...]) -> int:
    """Train every experiment with every seed, in one folder, on the same test tasks."""
    by_name = {each.name: each for each in prepared}
    if len(by_name) < len(prepared):
        raise UsageError(f"expected distinct experiments, got {', '.join(each.name for each in prepared)}")
    pairs = [(name, seed) for name in by_name for seed in seeds]
    runs = {(name, seed): with_seed(by_name[name], seed).run() for name, seed in pairs}
    for name in by_name:
        runs[name, seeds[0]].introduction()  # what cannot be made leaves no folder behind
    folder = make_folder(out, prepared[0].name if len(prepared) == 1 else "seeds")
    members = []
    for (name, seed), run in runs.items():
        inside = folder if len(prepared) == 1 else folder / name
        inside.mkdir(exist_ok=True)
        made = make_run(run, inside / f"seed{seed}")
        label = f"seed {seed}" if len(prepared) == 1 else f"{name} {seed}"
        members.append(Member(made.folder, label, by_name[name].own))
    say(f"{len(members)} runs in {folder}")
    return finish_group(folder, members)


def with_seed(prepared: Prepared, seed: int) -> Prepared:
    """The experiment with a seed; its test tasks are drawn by seed 0 unless it names another."""
    experiment = prepared.experiment
    if isinstance(experiment, Experiment) and experiment.evaluation.task_seed is None:
        experiment = replace(experiment, evaluation=replace(experiment.evaluation, task_seed=0))
    return replace(prepared, experiment=replace(experiment, seed=seed))


def _benchmark_word(words: list[str]) -> tuple[str | None, list[str]]:
    """The value of --benchmark, None if it is not there, and the words without it.

    Help without a benchmark describes the fields as for point navigation.
    """
    value, rest = _option(words, "--benchmark")
    return ("point" if value is None and {"-h", "--help"} & set(words) else value), rest


def _option(words: list[str], option: str) -> tuple[str | None, list[str]]:
    """The value of an option, None if it is not there, and the words without it."""
    for place, word in enumerate(words):
        name, separator, value = word.partition("=")
        if name == option and separator:
            return value, words[:place] + words[place + 1 :]
        if name == option and place + 1 < len(words):
            return words[place + 1], words[:place] + words[place + 2 :]
    return None, words
