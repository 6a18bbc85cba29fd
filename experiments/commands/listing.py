"""metarl list: what can be trained, and on what."""

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import tyro

from metarl.envs import benchmark_names, make_benchmark
from metarl.envs.metaworld import DESCRIPTIONS as METAWORLD_DESCRIPTIONS
from metarl.envs.minigrid import DESCRIPTIONS as MINIGRID_DESCRIPTIONS
from metarl.experiments.arguments import parse
from metarl.experiments.console import say
from metarl.experiments.fewshot.configuration import data_name
from metarl.experiments.outside import installed
from metarl.experiments.presets.studies import STUDIES
from metarl.experiments.presets.table import FEWSHOT_FAMILIES, RL_FAMILIES

Kind = Literal["experiments", "benchmarks", "studies"]
Row = tuple[str, str]
"""A name and what there is to say about it."""

_BENCHMARK_FAMILIES = {  # by the module of the task family
    "metarl.envs.toy.point": "point robots",
    "metarl.envs.toy.bandits": "bandits",
    "metarl.envs.toy.tabular": "tabular MDPs",
    "metarl.envs.toy.gridnavi": "grid navigation",
    "metarl.envs.toy.tmaze": "T-mazes",
    "metarl.envs.mujoco.families": "locomotion",
    "metarl.envs.dynamics.family": "random dynamics",
}


@dataclass(frozen=True)
class ListArguments:
    """List experiments, benchmarks or studies, by family.

    Attributes:
        what: Kind of things to list; a text alone filters experiments.
        filter: Only rows that contain this text, or whose family does.
    """

    what: tyro.conf.Positional[Kind] = "experiments"
    filter: tyro.conf.Positional[str] = ""


def command(words: list[str]) -> int:
    """Run `metarl list`; returns the exit status."""
    if words and not words[0].startswith("-") and words[0] not in get_args(Kind):
        words = ["experiments", *words]
    arguments = parse(ListArguments, words, "metarl list")
    families = {"experiments": _experiments, "benchmarks": _benchmarks, "studies": _studies}[arguments.what]()
    text = arguments.filter.lower()
    families = {
        family: [row for row in rows if text in " ".join((family, *row)).lower()]
        for family, rows in families.items()
    }
    families = {family: rows for family, rows in families.items() if rows}
    if not families:
        raise ValueError(f"nothing of {arguments.what} contains {arguments.filter!r}")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines(families, width):
        say(line)
    if arguments.what == "benchmarks":
        say("\nTraining and test tasks are disjoint unless a benchmark is called shared.")
    return 0


def lines(families: Mapping[str, Sequence[Row]], width: int | None) -> list[str]:
    """The lines of a listing: a heading for each family, names in one column, texts in another.

    Args:
        families: Rows by the heading of their family.
        width: Number of columns to wrap texts at; None for one line per row, which other programs can read.
    """
    indent = 2 + max(len(name) for rows in families.values() for name, _ in rows) + 2
    indent = indent if width is None else min(indent, width // 2)
    listing: list[str] = []
    for family, rows in families.items():
        listing += ["", family] if listing else [family]
        for name, text in rows:
            start = f"  {name}".ljust(indent)
            wrapped = (
                [text]
                if width is None
                else textwrap.wrap(text, max(20, width - indent), break_on_hyphens=False) or [""]
            )
            if len(name) + 4 > indent:  # a long name has a line of its own
                listing.append(start)
                start = " " * indent
            listing.append(start + wrapped[0])
            listing += [" " * indent + line for line in wrapped[1:]]
    return listing


def _experiments() -> dict[str, list[Row]]:
    families: dict[str, list[Row]] = {}
    for family, presets in RL_FAMILIES.items():
        families[family] = [(name, f"{p.configuration.benchmark}: {p.source}") for name, p in presets.items()]
    for family, fewshot in FEWSHOT_FAMILIES.items():
        families[family] = [(name, f"{data_name(p.configuration)}: {p.source}") for name, p in fewshot.items()]
    families["installed by other packages"] = [(name, point.value) for name, point in installed().items()]
    return families


def _benchmarks() -> dict[str, list[Row]]:
    families: dict[str, list[Row]] = {family: [] for family in _BENCHMARK_FAMILIES.values()}
    for name in benchmark_names():
        benchmark = make_benchmark(name)
        family = _BENCHMARK_FAMILIES[type(benchmark.family).__module__]
        families[family].append((name, f"{benchmark.description}{'; shared' * benchmark.shared}"))
    families["Meta-World"] = list(METAWORLD_DESCRIPTIONS.items())
    families["MiniGrid"] = list(MINIGRID_DESCRIPTIONS.items())
    return families


def _studies() -> dict[str, list[Row]]:
    rows = [(name, f"{preset.configuration.benchmark}: {preset.source}") for name, preset in STUDIES.items()]
    return {"studies": rows}
