"""Rows of tables, whose classes may be unknown: CSV, Parquet, and arrays of numpy."""

import csv
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.data.classes import ClassData
from metarl.fewshot.data.division import MAX_CSV_BYTES
from metarl.runs.reading import open_regular, read_text, shorten


class Rows(NamedTuple):
    """Rows of a table.

    Attributes:
        columns: Names of the features; None of arrays.
        inputs: Features, numbers [row, *input].
        labels: Class of every row; None where the table does not say it.
    """

    columns: tuple[str, ...] | None
    inputs: np.ndarray
    labels: tuple[str, ...] | None

    def tensor(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The features in a number format; bytes stand for numbers in [0, 1] unless whole numbers are wanted."""
        inputs = self.inputs
        if not dtype.is_floating_point:
            return torch.from_numpy(inputs.astype(np.int64)).to(dtype)
        scale = np.float32(255 if inputs.dtype == np.uint8 else 1)
        return torch.from_numpy(inputs.astype(np.float32) / scale).to(dtype)

    def in_order_of(self, columns: tuple[str, ...] | None, file: Path) -> "Rows":
        """The same rows with their columns in the order of others; as they are if one of both has no names.

        Raises:
            ValueError: if a column is missing or one too many; names it.
        """
        if columns is None or self.columns is None or self.columns == columns:
            return self
        missing = [name for name in columns if name not in self.columns]
        strange = [name for name in self.columns if name not in columns]
        if missing or strange:
            what = f"lacks {missing[0]!r}" if missing else f"has {strange[0]!r} too"
            raise ValueError(f"{file}: expected the columns {shorten(', '.join(columns))}; it {what}")
        return self._replace(
            columns=columns, inputs=self.inputs[:, [self.columns.index(name) for name in columns]]
        )


def read_rows(file: Path, label: str = "label", *, labelled: bool = True) -> Rows:
    """The rows of a table.

    Args:
        file: CSV or Parquet file with numbers in all columns but that of the classes, which may be missing where
            rows need no label; an npz file with arrays inputs and targets; or, without labels, an npy file.
        label: Column of the classes; not used of arrays.
        labelled: Whether rows need a label.

    Raises:
        ValueError: if the file is missing or malformed; names the line or the column.
    """
    try:
        state = file.stat()
    except (OSError, ValueError) as error:
        raise ValueError(f"no table {file}; expected a CSV, Parquet or npz file") from error
    return _read(file, label, labelled, (state.st_size, state.st_mtime_ns))


def classes_of(rows: Rows, inputs: Tensor) -> ClassData:
    """The inputs of labelled rows by class, in the order of the classes' names."""
    assert rows.labels is not None
    names, classes = np.unique(np.array(rows.labels), return_inverse=True)
    order = torch.from_numpy(np.argsort(classes, kind="stable"))
    return ClassData(tuple(names.tolist()), inputs[order], torch.from_numpy(np.bincount(classes)))


_Reader = Callable[[Path, str, bool], Rows]


@lru_cache(maxsize=1)
def _read(file: Path, label: str, labelled: bool, _state: tuple[int, int]) -> Rows:
    """The table of a file in this state, which is asked for its shape first and then for its rows."""
    readers: dict[str, _Reader] = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_archive}
    if not labelled:
        readers |= {".npy": _read_array}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise ValueError(f"expected a table ending in {', '.join(readers)}, got {file}")
    rows = reader(file, label, labelled)
    if not len(rows.inputs):
        raise ValueError(f"{file} has no rows")
    bad = np.flatnonzero(~np.isfinite(rows.inputs).reshape(len(rows.inputs), -1).all(1))
    if len(bad):
        raise ValueError(f"{file}: expected finite numbers, got others in row {bad[0]}, counted from 0")
    return rows


def _read_csv(file: Path, label: str, labelled: bool) -> Rows:
    lines = csv.reader(read_text(file, "table", MAX_CSV_BYTES).splitlines())
    header = [name.strip() for name in next(lines, [])]
    column = _label_column(file, header, label, labelled)
    inputs, labels = [], []
    for line, row in enumerate(lines, start=2):
        if not row:  # a blank line
            continue
        if len(row) != len(header):
            raise ValueError(f"{file}, line {line}: expected {len(header)} columns, got {len(row)}")
        if column is not None:
            labels.append(row.pop(column).strip())
        try:
            inputs.append(np.array(row, dtype=np.float32))
        except ValueError as error:
            raise ValueError(f"{file}, line {line}: expected numbers, got {shorten(row)}") from error
    numbers = np.stack(inputs) if inputs else np.zeros((0, 1), dtype=np.float32)
    return Rows(_features(header, label), numbers, None if column is None else tuple(labels))


def _read_parquet(file: Path, label: str, labelled: bool) -> Rows:
    try:
        from pyarrow import parquet  # noqa: PLC0415  # a package that need not be installed
    except ImportError as error:
        raise ValueError(f'reading {file} needs pyarrow ({error}); pip install "pyarrow"') from error
    try:
        with open_regular(file) as opened:
            table = parquet.read_table(opened)
    except Exception as error:  # damaged files raise many kinds
        raise ValueError(f"{file} is damaged or not a Parquet file: {' '.join(str(error).split())}") from error
    column = _label_column(file, table.column_names, label, labelled)
    columns = _features(table.column_names, label)
    inputs = np.zeros((table.num_rows, len(columns)), dtype=np.float32)
    for place, name in enumerate(columns):
        values = table.column(name).to_numpy()
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{file}: expected numbers in the column {name!r}, got {values.dtype}")
        inputs[:, place] = values
    labels = None if column is None else tuple(str(name) for name in table.column(label).to_pylist())
    return Rows(columns, inputs, labels)


def _read_archive(file: Path, _label: str, labelled: bool) -> Rows:
    try:
        with open_regular(file) as opened, np.load(opened, allow_pickle=False) as archive:
            inputs = archive["inputs"]
            targets = archive["targets"] if labelled or "targets" in archive else None
    except Exception as error:  # damaged archives raise many kinds
        raise ValueError(f"{file} must be an npz file with the arrays inputs and targets: {error}") from error
    wrong = targets is not None and (targets.shape != inputs.shape[:1] or targets.dtype.kind not in "iubU")
    if inputs.dtype.kind not in "fiub" or not inputs.ndim or wrong:
        names = "" if targets is None else f" and {targets.dtype} {targets.shape}"
        raise ValueError(
            f"{file}: expected numbers inputs [row, *input] and whole numbers or texts targets [row], got "
            f"{inputs.dtype} {inputs.shape}{names}"
        )
    labels = None if targets is None else tuple(str(name) for name in targets.tolist())
    return Rows(None, inputs, labels)


def _read_array(file: Path, _label: str, _labelled: bool) -> Rows:
    try:
        with open_regular(file) as opened:
            inputs = np.load(opened, allow_pickle=False)
    except Exception as error:  # damaged files raise many kinds
        raise ValueError(f"{file} must be an npy file of numbers: {error}") from error
    if not isinstance(inputs, np.ndarray) or inputs.dtype.kind not in "fiub" or inputs.ndim < 2:
        raise ValueError(f"{file}: expected numbers [row, *input], got {shorten(str(inputs))}")
    return Rows(None, inputs, None)


def _features(names: Sequence[str], label: str) -> tuple[str, ...]:
    return tuple(name for name in names if name != label)


def _label_column(file: Path, names: Sequence[str], label: str, labelled: bool) -> int | None:
    if label not in names and not labelled and names:
        return None
    if label not in names or len(names) < 2:
        raise ValueError(
            f"{file}: expected a column {label!r} beside columns of numbers, got {shorten(', '.join(names))}; "
            "name another with --data.label"
        )
    return list(names).index(label)
