"""metarl compare DIR...: tables and figures of runs and groups of runs on the same test tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from metarl.experiments.agent_run import AgentRun
from metarl.experiments.arguments import parse
from metarl.experiments.comparison import figures, latex
from metarl.experiments.comparison.figures import Regions, parameter_values
from metarl.experiments.comparison.records import read_groups
from metarl.experiments.comparison.summary import csv_rows, summarise
from metarl.experiments.console import say, show_table
from metarl.experiments.loading import open_run
from metarl.experiments.runs import CONFIG, EVALUATION, make_folder
from metarl.runs.files import atomic_write, write_csv, write_json


@dataclass(frozen=True)
class CompareArguments:
    """Compare runs, and groups of runs that differ by their seeds, on the same test tasks.

    Attributes:
        folders: Run folders, or folders of runs that differ by their seeds.
        out: New folder for numbers and figures; by default the next free runs/comparison.
        evaluation: File name of the evaluation in each run folder.
        latex: Whether to print the table in LaTeX too, and write it.
        figures: Whether to draw figures.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    out: Path | None = None
    evaluation: str = EVALUATION
    latex: bool = False
    figures: bool = True


def command(words: list[str]) -> int:
    """Run `metarl compare`; returns the exit status."""
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        raise ValueError("compare needs run folders, or folders of runs: metarl compare DIR ...")
    arguments = parse(CompareArguments, words, "metarl compare")
    groups = read_groups(arguments.folders, arguments.evaluation)
    numbers = summarise(groups)
    drawn: list[str] = []

    def write(folder: Path) -> None:
        write_json(folder / "comparison.json", numbers)
        write_csv(folder / "table.csv", *csv_rows(numbers))
        if arguments.latex:
            atomic_write(folder / "table.tex", latex.table(numbers).encode())
        if arguments.figures and figures.can_draw():
            drawn.extend(figures.draw_all(numbers, groups, folder, _training_regions(arguments.folders)))

    folder = make_folder(arguments.out, "comparison", write)
    show(numbers)
    if arguments.latex:
        say(latex.table(numbers))
    if drawn:
        say(f"figures: {', '.join(drawn)}, each as {' and '.join(figures.FORMATS)}")
    elif arguments.figures:
        say(figures.HOW_TO_INSTALL)
    say(f"written to {folder}")
    return 0


def show(numbers: Mapping[str, Any]) -> None:
    """Print a comparison as tables of 80 columns."""
    groups = numbers["groups"]
    say(f"{numbers['benchmark']}, {numbers['num_tasks']} test tasks; intervals of 95% over seeds and tasks")
    with_success = any("success_mean" in group["adaptation"][-1] for group in groups.values())
    columns = ["group", "seeds", "step", "return", "interval", "IQM", *(["success"] if with_success else [])]
    lines = []
    for label, group in groups.items():
        rows = group["adaptation"]
        for row in rows if len(rows) <= 4 else [rows[0], rows[len(rows) // 2], rows[-1]]:
            line = [label, str(len(group["seeds"])), str(row["step"]), f"{row['return_mean']:.1f}"]
            line += [_interval(row["return_ci95"]), f"{row['return_iqm']:.1f}"]
            line += [f"{row['success_mean']:.2f}" if "success_mean" in row else "-"] if with_success else []
            lines.append(line)
    show_table("by adaptation step, or episode of a trial", columns, lines)
    if numbers["pairs"]:
        lines = [
            [
                f"{pair['first']} - {pair['second']}",
                f"{pair['difference']:.1f}",
                _interval(pair["difference_ci95"]),
                f"{pair['probability_of_improvement']:.2f}",
                _interval(pair["probability_ci95"], 2),
            ]
            for pair in numbers["pairs"]
        ]
        columns = ["after the last step", "difference", "interval", "P(better)", "interval"]
        show_table("paired on the same tasks", columns, lines)
    if single := [label for label, group in groups.items() if len(group["seeds"]) == 1]:
        say(f"no interval for {', '.join(single)}: one seed says nothing about others")


def _interval(bounds: Sequence[float] | None, digits: int = 1) -> str:
    return "-" if bounds is None else f"[{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"


def _training_regions(folders: Sequence[Path]) -> Regions | None:
    """Least and greatest values of 1,000 training tasks; None where the benchmark is a user's own."""
    first = folders[0]
    try:
        run = open_run(first if (first / CONFIG).is_file() else next(first.glob(f"*/{CONFIG}")).parent)
    except ValueError:
        return None
    assert isinstance(run, AgentRun)
    tasks = [task.to_json() for task in run.benchmark.train.sample(1000, np.random.default_rng(0))]
    values = [parameter_values(task) for task in tasks]
    return {
        name: (min(v[name] for v in values), max(v[name] for v in values))
        for name in values[0]
        if all(name in v for v in values)
    }
