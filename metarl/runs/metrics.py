"""Metrics of a run: metrics.csv as the source of truth, and the same numbers for TensorBoard.

The x axis is always the number of environment steps, all of them counted, those spent on adaptation included; or
the number of tasks, where nothing is simulated.
Columns are added as metrics appear; a row leaves those empty that it has no value for.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from torch.utils.tensorboard import SummaryWriter

FILE = "metrics.csv"
Axis = Literal["env_steps", "tasks"]


class MetricsWriter:
    """Appends one row per iteration to metrics.csv and to TensorBoard's event file.

    Args:
        folder: the run's.
        keep_iterations: rows of later iterations, which a killed run left behind, are dropped.
        keep_steps: TensorBoard is told to disregard its events after this place on the x axis.
        axis: what the x axis counts.
    """

    def __init__(
        self, folder: Path, *, keep_iterations: int = 0, keep_steps: int = 0, axis: Axis = "env_steps"
    ) -> None:
        self.axis = axis
        self._path = folder / FILE
        self._columns: list[str] = []
        if self._path.exists():
            self._truncate(keep_iterations)
        resumed = (folder / "tensorboard").exists()
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=keep_steps + 1 if resumed else None)

    def write(self, iteration: int, position: int, metrics: Mapping[str, float]) -> None:
        """Append a row, at a position on the x axis."""
        row = {"iteration": float(iteration), self.axis: float(position), **metrics}
        missing = [name for name in row if name not in self._columns]
        if missing:
            self._extend(missing)
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(
                {name: int(v) if v == int(v) and abs(v) < 2**53 else repr(v) for name, v in _finite(row).items()}
            )
        for name, value in metrics.items():
            self._board.add_scalar(name, value, position)

    def close(self) -> None:
        """Flush TensorBoard's file."""
        self._board.close()

    def _rows(self) -> list[dict[str, str]]:
        """What is in the file; a row that a kill cut short is left out."""
        if not self._path.exists():
            return []
        with self._path.open(newline="") as file:
            reader = csv.DictReader(file)
            if not {"iteration", self.axis} <= set(reader.fieldnames or ()):
                raise ValueError(f"no columns iteration and {self.axis}")
            return [row for row in reader if None not in row.values() and None not in row]

    def _truncate(self, keep_iterations: int) -> None:
        try:
            rows = self._rows()
            kept = {int(row["iteration"]): row for row in rows if int(row["iteration"]) <= keep_iterations}
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f"{self._path} is not a run's metrics ({error}); move the file away to start a new one"
            ) from error
        self._columns = list(rows[0]) if rows else []
        self._replace(list(kept.values()))

    def _extend(self, names: Sequence[str]) -> None:
        rows = self._rows()
        self._columns += names
        self._replace(rows)

    def _replace(self, rows: Sequence[Mapping[str, str]]) -> None:
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(self._path)


def _finite(row: Mapping[str, float]) -> dict[str, float]:
    """The entries that are numbers: a gap in a column says more than a nan that a reader must parse."""
    return {name: value for name, value in row.items() if value - value == 0}
