"""Output for the terminal: the live line of a run, and tables."""

import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from metarl.loop import Progress
from metarl.runs.cores import is_first

_PLAIN_INTERVAL_S = 20.0
_FILE_WIDTH = 140
"""Columns of a line that is written to a file or a pipe, unless COLUMNS says otherwise."""
_TABLE_WIDTH = 80
"""Columns of a table that is written to a file or a pipe, unless COLUMNS says otherwise."""
_TEXT_WIDTH = 16
"""Columns that texts of a table may be folded to before its numbers are put below each other."""
SELECTED = "* chosen by the same episodes and so too low; two episodes or more per task mend that"
"""Footnote of a worst decile that is selected by its own noise."""

_BOUNDS = ("interval", "lowest, highest")
"""Words of headings of bounds, which stay beside the number that they are of."""

Describe = Callable[[Progress, Mapping[str, float]], list[str]]


class TrainingDisplay:
    """Iteration, steps, speed, returns and time left: one live line, or a line now and then if not a terminal.

    Args:
        iterations: Number of iterations of the whole run.
        describe: Function that returns the texts on steps and scores.
    """

    def __init__(self, iterations: int, describe: Describe) -> None:
        self._iterations = iterations
        self._describe = describe
        self._console = Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)
        self._printed_at = 0.0
        self._started: tuple[int, float] | None = None
        self._began = time.monotonic()

    def __enter__(self) -> "TrainingDisplay":
        if self._console.is_terminal:
            self._live.start()
            self._live.update(Text("collecting the first episodes ..."))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def report(self, progress: Progress, metrics: Mapping[str, float]) -> None:
        """Show the iteration, the metrics and the time left."""
        line = fitted(self.line(progress, metrics), terminal_width())
        if self._console.is_terminal:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"))
            return
        now = time.monotonic()
        if now - self._printed_at > _PLAIN_INTERVAL_S or progress.iteration == self._iterations:
            self._printed_at = now
            self._console.print(line)
            sys.stdout.flush()

    def line(self, progress: Progress, metrics: Mapping[str, float]) -> str:
        """The text on an iteration: its number, steps, speed, returns and the time left."""
        now = time.monotonic()
        if self._started is None:
            # The iterations of an earlier process say nothing about this one's speed.
            self._started = (progress.iteration - 1, self._began)
        done = progress.iteration - self._started[0]
        left = (now - self._started[1]) / done * (self._iterations - progress.iteration)
        parts = [
            f"iteration {progress.iteration}/{self._iterations}",
            *self._describe(progress, metrics),
            f"{duration(left)} left",
        ]
        return "  ".join(parts)


def terminal_width(of_a_file: int = _FILE_WIDTH) -> int:
    """Number of columns of the terminal, or of COLUMNS; where there is neither, that of a file or a pipe."""
    return shutil.get_terminal_size((of_a_file, 24)).columns


def fitted(line: str, width: int) -> str:
    """A line of parts with two spaces between them, without those in the middle that are too much for a width.

    The first part, such as the iteration, and the last, such as the time left, are left out last of all.
    """
    parts = re.split(r"(?<=\S)  (?=\S)", line)
    while len("  ".join(parts)) > width and len(parts) > 2:
        del parts[2 if len(parts) > 3 else 1]
    shown = "  ".join(parts)
    if len(shown) <= width:
        return shown
    end = parts[-1] if len(parts) > 1 and len(parts[-1]) + 4 <= width else ""
    return shortened(shown.removesuffix(end).rstrip(), width - len(end) - 2 * bool(end)) + "  " * bool(end) + end


def shortened(text: str, width: int) -> str:
    """A text of at most so many characters, its middle left out."""
    if len(text) <= width:
        return text
    first = max(0, width - 1) // 2
    return f"{text[:first]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - max(0, width - 1 - first) :]}"


class Waiting:
    """A live line for work that has no training loop, or a line now and then if not a terminal."""

    def __init__(self, what: str) -> None:
        self._console = Console(highlight=False, stderr=True)
        self._status = self._console.status(what)
        self._what = what
        self._began = self._printed_at = time.monotonic()

    def __enter__(self) -> "Waiting":
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._status.stop()

    def progress(self, done: int, total: int) -> None:
        """Show how many of the parts are done, and how long the others will take at this pace."""
        now = time.monotonic()
        line = f"{self._what} {done}/{total}  {duration((now - self._began) / done * (total - done))} left"
        line = fitted(line, terminal_width() - 2)  # a sign that turns stands before it
        if self._console.is_terminal:
            self._status.update(line)
        elif now - self._printed_at > _PLAIN_INTERVAL_S:
            self._printed_at = now
            self._console.print(line, soft_wrap=True)


def say(text: str) -> None:
    """Print a line to standard output, once for all processes that train together."""
    if not is_first():
        return
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def show_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1, keys: int = 1
) -> None:
    """Print rows as an aligned table, or as several below each other where a terminal is too narrow for one.

    Args:
        title: Line above the table.
        columns: Headings.
        rows: Texts of the cells.
        text_columns: Number of columns, from the first, that are text and may be folded; the rest are numbers.
        keys: Number of columns, from the first, that every table begins with if there are several.
    """
    width = terminal_width(_TABLE_WIDTH)
    console = Console(highlight=False, width=width)
    console.print(title, style="bold", markup=False)  # a table's own title would wrap at its width
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    whole = sum(widths) + 3 * len(widths) + 1 <= width
    if not whole:  # headings of numbers are folded first
        narrow = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else [0] * len(columns)
        for place in range(text_columns, len(columns)):
            narrow[place] = max(narrow[place], *map(len, columns[place].split()))
            widths[place] = narrow[place]
    for places in [range(len(columns))] if whole else _fitting(columns, widths, width, text_columns, keys):
        table = Table()
        for place in places:
            is_text = place < text_columns
            heading = columns[place] if whole or is_text else textwrap.fill(columns[place], widths[place])
            table.add_column(heading, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
        for row in rows:
            table.add_row(*(Text(row[place]) for place in places))
        console.print(table)


def _fitting(
    columns: Sequence[str], widths: Sequence[int], width: int, text_columns: int, keys: int
) -> list[list[int]]:
    """Columns of the tables, each the keys and what fits beside them; an interval stays with its number."""
    least = [min(size, _TEXT_WIDTH) if place < text_columns else size for place, size in enumerate(widths)]
    units: list[list[int]] = []
    for place in range(keys, len(columns)):
        if units and any(words in columns[place] for words in _BOUNDS):
            units[-1].append(place)
        else:
            units.append([place])
    tables: list[list[int]] = []
    for unit in units:
        together = [*(tables[-1] if tables else range(keys)), *unit]
        if tables and sum(least[place] + 3 for place in together) + 1 > width:
            tables.append([*range(keys), *unit])
        else:
            tables[-1:] = [together]
    return tables or [list(range(keys))]


def show_curves(title: str, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print adaptation curves, each a sequence of the rows of `AdaptationCurve.summary`.

    Of a long curve ten steps are shown, closer together at the start. A star marks a worst decile that was chosen
    by the episodes that it was measured by.
    """
    selected = not all(row.get("worst_decile_cross_fitted") for rows in curves.values() for row in rows)
    with_success = any("success_mean" in row for rows in curves.values() for row in rows)
    columns = ["policy", "adaptation steps", "return", "95% interval", f"worst 10% of tasks{'*' * selected}"]
    columns += ["success", "95% interval"] if with_success else []
    lines = []
    for name, rows in curves.items():
        for row in _thin(rows):
            line = [name, str(row["step"]), f"{row['return_mean']:.2f}", _interval(row["return_ci95"], 2)]
            line.append(f"{row['return_worst_decile']:.2f}")
            if with_success and "success_mean" in row:
                line += [f"{row['success_mean']:.3f}", _interval(row["success_ci95"], 3)]
            lines.append(line)
    show_table(title, columns, lines, keys=2)
    if selected:
        say(SELECTED)


def show_trials(title: str, trials: Mapping[str, Mapping[str, Any]]) -> None:
    """Print returns over whole trials, each as `AdaptationCurve.trial_return` gives it."""
    lines = [
        (name, f"{trial['return_mean']:.2f}", _interval(trial["return_ci95"], 2)) for name, trial in trials.items()
    ]
    show_table(title, ("policy", "return", "95% interval"), lines)


def show_families(title: str, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the first and the last step of each family's curve, with the number of its tasks."""
    measured = "success" if all("success_mean" in part["adaptation"][0] for part in parts.values()) else "return"
    digits = 3 if measured == "success" else 2
    lines = []
    for name, part in parts.items():
        line = [name, str(part["num_tasks"])]
        for row in (part["adaptation"][0], part["adaptation"][-1]):
            line += [f"{row[f'{measured}_mean']:.{digits}f}", _interval(row[f"{measured}_ci95"], digits)]
        lines.append(line)
    columns = ("environment", "tasks", f"{measured} before", "95% interval", f"{measured} after", "95% interval")
    show_table(title, columns, lines, keys=2)


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _thin(rows: Sequence[Mapping[str, Any]], count: int = 10) -> Sequence[Mapping[str, Any]]:
    """All rows of a short curve; of a long one the first, the last and some between, evenly on a log scale."""
    if len(rows) <= count:
        return rows
    places = {round(len(rows) ** (i / (count - 1))) - 1 for i in range(count)}
    return [rows[place] for place in sorted(places)]


def _interval(bounds: Sequence[float] | None, digits: int) -> str:
    return "-" if bounds is None else f"[{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"
