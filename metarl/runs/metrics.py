"""Metrics of a run: metrics.csv is the source of truth, which resumption, tables and figures are made from.

The x axis is always the number of environment steps, all of them counted, those spent on adaptation included; or
the number of tasks, where nothing is simulated.
Columns are added as metrics appear; a row leaves those empty that it has no value for.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from metarl.runs.files import append, write_csv
from metarl.runs.loggers import Logger

METRICS_CSV = "metrics.csv"
Axis = Literal["env_steps", "tasks"]


class CsvLogger(Logger):
    """Appends one row per iteration to metrics.csv.

    Args:
        folder: Run folder.
        axis: Quantity that the x axis counts.
    """

    def __init__(self, folder: Path, *, axis: Axis = "env_steps") -> None:
        self._axis = axis
        self._path = folder / METRICS_CSV
        self._columns: list[str] = []

    def begin(self, iteration: int, position: int) -> None:
        """Drop the rows of later iterations, which a killed run left behind.

        Raises:
            ValueError: if the file is not a run's metrics.
        """
        if not self._path.exists():
            return
        columns, rows = _read(self._path, self._axis)
        by_iteration = {int(row["iteration"]): row for row in rows if int(row["iteration"]) <= iteration}
        self._columns = columns
        write_csv(self._path, columns, list(by_iteration.values()))

    def log(self, iteration: int, position: int, metrics: Mapping[str, float]) -> None:
        """Append a row to the file."""
        row = {"iteration": float(iteration), self._axis: float(position), **metrics}
        missing = [name for name in row if name not in self._columns]
        if missing:
            rows = _read(self._path, self._axis)[1] if self._path.exists() else []
            self._columns += missing
            write_csv(self._path, self._columns, rows)
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns, restval="").writerow(
            {name: int(v) if v == int(v) and abs(v) < 2**53 else repr(v) for name, v in _finite(row).items()}
        )
        append(self._path, text.getvalue().encode())


def last_iteration(folder: Path, *, axis: Axis = "env_steps") -> int:
    """The iteration of the last row of a run's metrics.csv, 0 if there is none.

    Raises:
        ValueError: if the file is not a run's metrics.
    """
    path = folder / METRICS_CSV
    rows = _read(path, axis)[1] if path.exists() else []
    return int(rows[-1]["iteration"]) if rows else 0


def _finite(row: Mapping[str, float]) -> dict[str, float]:
    """The entries that are numbers: a gap in a column says more than a nan that a reader must parse."""
    return {name: value for name, value in row.items() if value - value == 0}


def _read(path: Path, axis: Axis) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of the file; a row that a kill cut short is left out."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
        columns = list(reader.fieldnames or ())
        if columns and not {"iteration", axis} <= set(columns):
            raise ValueError(f"no columns iteration and {axis}")
        rows: list[dict[str, Any]] = [row for row in reader if None not in row.values() and None not in row]
        for row in rows:
            int(row["iteration"])
    except (ValueError, csv.Error, OSError) as error:
        raise ValueError(
            f"{path} is not a run's metrics ({error}); move the file away to start a new one"
        ) from error
    return columns, rows
