"""The parts of a report that say what was trained, on what and how, and what repeats it."""

import importlib.metadata
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from metarl.envs import make_benchmark
from metarl.experiments.report.page import (
    NONE,
    Content,
    Node,
    Row,
    Section,
    code,
    definitions,
    folded,
    heading,
    node,
    paragraph,
    table,
)
from metarl.experiments.report.settings import (
    Described,
    algorithm,
    as_text,
    differences,
    flat_text,
    train_command,
)

Groups = Mapping[str, Sequence[Described]]
"""Configurations of runs that differ by their seeds, by the name of their group."""


def trained(groups: Groups) -> Section:
    """The section on what was trained, on what, and with which fields that differ from their defaults."""
    section = Section("What was trained, and how")
    for label, runs in groups.items():
        if len(groups) > 1:
            section.content.append(heading(label))
        section.content.append(definitions(_facts(runs)))
        section.content += configuration(label, runs[0])
    return section


def _facts(runs: Sequence[Described]) -> list[tuple[str, Content]]:
    run = runs[0]
    data = run.data
    training, evaluation = (data.get(part, {}) for part in ("training", "evaluation"))
    seeds = [str(each.data.get("seed", 0)) for each in runs]
    facts: list[tuple[str, Content]] = [("Experiment", run.name), ("Algorithm", algorithm(run))]
    if run.kind == "rl":
        benchmark = data.get("benchmark")
        named = benchmark if isinstance(benchmark, str) else _object_name(benchmark)
        facts.append(("Benchmark", named + _description(benchmark)))
    else:
        facts.append(("Data", str(data.get("data", {}).get("kind", "data of its own"))))
    facts.append(("Seeds" if len(seeds) > 1 else "Seed", ", ".join(seeds)))
    updates = training.get("updates_per_iteration")
    of_updates = "" if updates is None else f" of {updates} updates"
    batch = training.get("meta_batch_size", NONE)
    facts.append(("Budget", f"{training.get('iterations', NONE)} iterations{of_updates}, {batch} tasks each"))
    tests = f"{evaluation.get('num_tasks', NONE)} tasks, {evaluation.get('num_steps', NONE)} adaptation steps"
    facts.append(("Evaluation", tests))
    if weights := run.sources.get("weights"):
        facts.append(("Starts from", f"the weights of {weights['run']}, iteration {weights['iteration']}"))
    return facts


def _description(benchmark: object) -> str:
    """The description of a built-in benchmark, after a colon."""
    try:
        return f": {make_benchmark(benchmark).description}" if isinstance(benchmark, str) else ""
    except (ValueError, ImportError, OSError):  # a user's file that is gone, a simulator that is not installed
        return ""


def _object_name(benchmark: object) -> str:
    if isinstance(benchmark, dict):
        return str(benchmark.get("name", benchmark.get("object", NONE)))
    return NONE


def configuration(label: str, run: Described) -> list[Node]:
    """The fields that differ from their defaults, and all fields below a fold."""
    parts = []
    if run.experiment is None:
        caption = f"{label}: configuration with classes or objects of its own"
        parts.append(table(caption, ["field", "value"], flat_text(run.data), text_columns=2))
    else:
        rows: list[Row] = [[_field(d.field, d.meaning), d.value, d.default] for d in differences(run.experiment)]
        caption = f"{label}: configuration that differs from the defaults"
        parts.append(table(caption, ["field", "value", "default"], rows, text_columns=3))
    parts.append(folded(f"{label}: the whole configuration", code(as_text(run.data))))
    return parts


def _field(name: str, meaning: str) -> Node:
    return node("span", {"class": "text"}, name, node("span", {"class": "soft"}, meaning))


def repeated(groups: Groups, command: str) -> Section:
    """The commands and the versions that repeat what the report shows.

    Args:
        groups: Configurations of the runs.
        command: Command that wrote this report.
    """
    section = Section("Commands and versions that repeat it")
    lines = []
    for label, runs in groups.items():
        line, note = train_command(runs)
        lines.append(line)
        if note:
            section.content.append(paragraph(f"{label}: {note}"))
    folders = [str(run.folder) for runs in groups.values() for run in runs]
    lines += [f"metarl evaluate {shlex.quote(folder)}" for folder in folders]
    section.content += [code("\n".join([*lines, command]))]
    section.content.append(versions({f"{run.folder}": run.versions for runs in groups.values() for run in runs}))
    return section


def versions(of: Mapping[str, Mapping[str, Any]]) -> Node:
    """The versions that runs were made with; a column for each set of runs that had the same."""
    columns: list[tuple[list[str], Mapping[str, Any]]] = []
    for name, numbers in of.items():
        same = next((names for names, known in columns if known == numbers), None)
        if same is None:
            columns.append(([name], numbers))
        else:
            same.append(name)
    keys = list(dict.fromkeys(key for _, numbers in columns for key in numbers))
    rows = [[key, *(str(numbers.get(key) or NONE) for _, numbers in columns)] for key in keys]
    heads = ["all"] if len(columns) == 1 else [", ".join(names) for names, _ in columns]
    return table("Versions that the runs were made with", ["package", *heads], rows, text_columns=1 + len(heads))


def footer() -> str:
    """The line at the end of a report."""
    try:
        number = f" {importlib.metadata.version('metarl-toolkit')}"
    except importlib.metadata.PackageNotFoundError:  # a checkout that is only on the path
        number = ""
    return f"Written by metarl{number}. This file needs no network and runs no scripts."
