"""metarl list: what can be trained, and on what."""

from dataclasses import dataclass
from typing import Literal

import tyro

from metarl.envs import benchmark_names, make_benchmark
from metarl.envs.metaworld import DESCRIPTIONS as METAWORLD_DESCRIPTIONS
from metarl.experiments.arguments import parse
from metarl.experiments.console import show_table
from metarl.experiments.fewshot.configuration import data_name
from metarl.experiments.outside import installed
from metarl.experiments.presets.fewshot import PRESETS as FEWSHOT_PRESETS
from metarl.experiments.presets.table import PRESETS
from metarl.experiments.study.presets import STUDIES


@dataclass(frozen=True)
class ListArguments:
    """List what there is.

    Attributes:
        what: Kind of things to list.
        filter: Only rows that contain this text.
    """

    what: tyro.conf.Positional[Literal["experiments", "benchmarks", "studies"]] = "experiments"
    filter: tyro.conf.Positional[str] = ""


def command(words: list[str]) -> int:
    """Run `metarl list`; returns the exit status."""
    arguments = parse(ListArguments, words, "metarl list")
    if arguments.what == "benchmarks":
        benchmarks = [make_benchmark(name) for name in benchmark_names()]
        rows = [(b.name, "shared" if b.shared else "disjoint", b.description) for b in benchmarks]
        rows += [(name, "disjoint", description) for name, description in METAWORLD_DESCRIPTIONS.items()]
        title, columns = "Benchmarks", ("name", "train and test tasks", "description")
    elif arguments.what == "studies":
        rows = [(name, study.benchmark, study.source) for name, study in STUDIES.items()]
        title, columns = "Studies", ("name", "benchmark", "what")
    else:
        rows = [(name, str(p.experiment.benchmark), p.source) for name, p in PRESETS.items()]
        rows += [(name, data_name(p.experiment), p.source) for name, p in FEWSHOT_PRESETS.items()]
        rows += [(name, "-", f"installed, {point.value}") for name, point in installed().items()]
        title, columns = "Experiments", ("name", "benchmark", "source")
    rows = [row for row in rows if arguments.filter.lower() in " ".join(row).lower()]
    if not rows:
        raise ValueError(f"nothing of {arguments.what} contains {arguments.filter!r}")
    show_table(title, columns, rows, text_columns=3)
    return 0
