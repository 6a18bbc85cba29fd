"""metarl compare DIR...: tables and figures of runs and groups of runs on the same test tasks."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from metarl.experiments.arguments import UsageError, parse
from metarl.experiments.comparison import figures, latex
from metarl.experiments.comparison.records import read_groups
from metarl.experiments.comparison.regions import training_regions
from metarl.experiments.comparison.summary import csv_rows, summarise
from metarl.experiments.comparison.tables import show
from metarl.experiments.console import say
from metarl.experiments.runs import EVALUATION, make_folder
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
    arguments = parse(CompareArguments, words, "metarl compare")
    if not arguments.folders:
        raise UsageError("compare needs run folders, or folders of runs: metarl compare DIR ...")
    groups = read_groups(arguments.folders, arguments.evaluation)
    numbers = summarise(groups)
    drawn: list[str] = []

    def write(folder: Path) -> None:
        write_json(folder / "comparison.json", numbers)
        write_csv(folder / "table.csv", *csv_rows(numbers))
        if arguments.latex:
            atomic_write(folder / "table.tex", latex.table(numbers).encode())
        if arguments.figures and figures.can_draw():
            drawn.extend(figures.draw_all(numbers, groups, folder, training_regions(arguments.folders)))

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
