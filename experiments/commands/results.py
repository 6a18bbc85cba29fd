"""metarl results: the page of measured results, made from slim copies of run folders."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from metarl.experiments.arguments import UsageError, parse
from metarl.experiments.comparison import figures
from metarl.experiments.console import Waiting, say
from metarl.experiments.evidence.adding import add
from metarl.experiments.evidence.entries import best
from metarl.experiments.evidence.figures import draw
from metarl.experiments.evidence.page import FIGURES, PAGE, has_page, page, parts_of
from metarl.runs.files import atomic_write


@dataclass(frozen=True)
class ResultsArguments:
    """Write the page of results of a folder, with tables and figures, after adding finished runs to it.

    Attributes:
        folder: Folder of results, which holds NAME/seedN for every run, and notes.yaml for what no run says.
        add: Run folders, or folders of runs that differ by their seeds, whose configuration, metrics and
            evaluations are copied to the folder of results first.
        name: Name of the added runs; by default that of their experiment.
    """

    folder: tyro.conf.Positional[Path] = Path("experiments/results")
    add: tuple[Path, ...] = ()
    name: str | None = None


def command(words: list[str]) -> int:
    """Run `metarl results`; returns the exit status."""
    arguments = parse(ResultsArguments, words, "metarl results")
    if arguments.name is not None and not arguments.add:
        raise UsageError("--name is the name of the runs that --add adds; give --add DIR ...")
    if not figures.can_draw():
        raise UsageError('the page of results needs matplotlib: pip install "metarl-toolkit[report]"')
    has_page(arguments.folder)  # before anything is added
    for folder in add(arguments.add, arguments.folder, arguments.name):
        say(f"added {folder}")
    with Waiting("writing the page of results"):
        write_page(arguments.folder)
    say(f"written to {arguments.folder / PAGE}")
    return 0


def write_page(folder: Path) -> None:
    """Write the page and its figures; figures of sections that are gone are removed.

    Args:
        folder: Folder of results.

    Raises:
        ValueError: if a file of the folder is malformed, or its page is none of results.
    """
    parts = parts_of(folder)
    old_figures = (folder / FIGURES).glob("*.svg") if has_page(folder) else ()
    drawn = {part.figure: draw(best(part.entries), part.note.measure) for part in parts}
    (folder / FIGURES).mkdir(exist_ok=True)
    for old in list(old_figures):
        if drawn.get(old.name) is None:
            old.unlink()
    for name, content in drawn.items():
        if content is not None:
            atomic_write(folder / FIGURES / name, content)
    atomic_write(folder / PAGE, page(folder, parts).encode())
