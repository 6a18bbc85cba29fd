"""metarl train EXPERIMENT: train in a new run folder, and evaluate."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from metarl.experiments.arguments import UsageError, parse
from metarl.experiments.catalogue import benchmark_of_word, experiment_of_algorithm, experiment_of_word, title
from metarl.experiments.configuration import ALGORITHMS, Experiment
from metarl.experiments.console import say
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.loading import prepare_run
from metarl.experiments.outside import names_object
from metarl.experiments.runs import make_run
from metarl.experiments.working import work

HELP = """usage: metarl train EXPERIMENT [--out DIR] [any field of the configuration]

EXPERIMENT is one of
  NAME                        an experiment of `metarl list`
  ALGORITHM --benchmark NAME  promp, maml-trpo, rl2 or pearl, with settings for the
                              benchmark's kind; of `metarl list benchmarks`, a YAML
                              family, or FILE.py:FAMILY of your own
  FILE.py:NAME, module:NAME   an Experiment of your own, or a function that returns one

`metarl train EXPERIMENT --help` describes an experiment's fields."""


@dataclass(frozen=True)
class TrainArguments:
    """Train an experiment in a new run folder.

    Attributes:
        experiment: Configuration; every field can be overridden.
        out: Run folder to make; by default the next free runs/NAME-seedN.
    """

    experiment: Annotated[Experiment | FewshotExperiment, tyro.conf.arg(name="")]
    out: Path | None = None


def command(words: list[str]) -> int:
    """Run `metarl train`; returns the exit status."""
    if words[:1] in (["-h"], ["--help"]):
        say(HELP)
        return 0
    if not words or words[0].startswith("-"):
        raise UsageError("train needs an experiment: a name of `metarl list`, or FILE.py:NAME")
    sources: dict[str, Any] = {}
    if words[0] in ALGORITHMS:
        benchmark_word, rest = _benchmark_word(words[1:])
    else:
        benchmark_word, rest = None, words[1:]
    if benchmark_word is None:
        named = experiment_of_word(words[0])
    else:
        named, benchmark_source = experiment_of_algorithm(words[0], benchmark_word)
        if benchmark_source is not None:
            sources["benchmark"] = benchmark_source.to_json()
    default = TrainArguments(experiment=named.experiment)
    arguments = parse(TrainArguments, rest, f"metarl train {words[0]}", default)
    experiment, name = arguments.experiment, named.name
    if named.source is not None:
        sources["experiment"] = named.source.to_json()
    if isinstance(experiment, Experiment):
        assert isinstance(named.experiment, Experiment)
        if isinstance(experiment.benchmark, str) and names_object(experiment.benchmark):
            benchmark, source = benchmark_of_word(experiment.benchmark)
            experiment = replace(experiment, benchmark=benchmark)
            sources["benchmark"] = source.to_json()
        if experiment.benchmark != named.experiment.benchmark:
            name = title(experiment)
    run = prepare_run(name, experiment, sources)
    introduction = run.introduction()  # what cannot be made leaves no folder behind
    run = make_run(run, arguments.out)
    for line in introduction:
        say(line)
    say(f"run folder {run.folder}")
    return work(run)


def _benchmark_word(words: list[str]) -> tuple[str | None, list[str]]:
    """The value of --benchmark, None if it is not there, and the words without it.

    Help without a benchmark describes the fields as for point navigation.
    """
    for place, word in enumerate(words):
        option, separator, value = word.partition("=")
        if option == "--benchmark" and separator:
            return value, words[:place] + words[place + 1 :]
        if option == "--benchmark" and place + 1 < len(words):
            return words[place + 1], words[:place] + words[place + 2 :]
    return ("point" if {"-h", "--help"} & set(words) else None), words
