"""Tables of features with classes: a row for every example, in CSV, Parquet or arrays of numpy."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from metarl.fewshot.data.class_tasks import ClassTasks, EpisodesConfig, Splits
from metarl.fewshot.data.classes import ClassData
from metarl.fewshot.data.division import MAX_CSV_BYTES, MINI_IMAGENET_SHARES, check_shares, divide, read_split
from metarl.fewshot.data.images import make_splits
from metarl.runs.configs import check_seed
from metarl.runs.reading import open_regular, read_text, shorten


@dataclass(frozen=True)
class TableData(ClassTasks):
    """A table of features with the class of every row, some classes of which are held out.

    Attributes:
        file: CSV or Parquet file with numbers in all columns but that of the classes; or an npz file with arrays
            inputs [row, *input] and targets [row].
        episodes: Ways, shots and queries of the tasks.
        label: Column of the classes.
        split_file: JSON file of the classes of each split, {"train": [class, ...], "validation": [...], "test":
            [...]}; None for classes that are divided at random.
        shares: Shares of training, validation and test in the classes, where they are divided at random.
        split_seed: Seed of that division.
        standardised: Whether features are shifted and scaled to mean 0 and spread 1 on training classes.
    """

    place = "file"

    file: str = "data/table.csv"
    episodes: EpisodesConfig = field(default_factory=EpisodesConfig)
    label: str = "label"
    split_file: str | None = None
    shares: tuple[float, float, float] = MINI_IMAGENET_SHARES
    split_seed: int = 0
    standardised: bool = True

    def __post_init__(self) -> None:
        check_shares(self.shares)
        check_seed(self, "split_seed")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a row's features; the file is read for it.

        Raises:
            ValueError: if the file is missing or malformed.
        """
        return tuple(read_table(Path(self.file), self.label).examples.shape[1:])

    def read(self, device: torch.device) -> tuple[ClassData, Splits]:
        """The classes of every split."""
        data = read_table(Path(self.file), self.label)
        if self.split_file is None:
            split = divide(data.names, self.shares, self.split_seed)
        else:
            split = read_split(Path(self.split_file))
        try:
            splits = make_splits(data, split)
        except ValueError as error:
            raise ValueError(f"{self.split_file}: {error}") from error
        if self.standardised:
            rows = splits.train.examples
            mean, spread = rows.mean(0), rows.std(0, correction=0)
            spread = torch.where(spread > 0, spread, 1.0)
            splits = Splits(*(replace(part, examples=(part.examples - mean) / spread) for part in splits))
        splits = Splits(*(part.to(device) for part in splits))
        return splits.train, splits


def read_table(file: Path, label: str = "label") -> ClassData:
    """The classes of a table, whose features are float32 [row, *input].

    Args:
        file: CSV, Parquet or npz file; see `TableData`.
        label: Column of the classes; not used of an npz file.

    Raises:
        ValueError: if the file is missing or malformed; names the line or the column.
    """
    try:
        state = file.stat()
    except (OSError, ValueError) as error:
        raise ValueError(f"no table {file}; expected a CSV, Parquet or npz file") from error
    return _read(file, label, (state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=1)
def _read(file: Path, label: str, _state: tuple[int, int]) -> ClassData:
    """The table of a file in this state, which is asked for its shape first and then for its rows."""
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_arrays}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise ValueError(f"expected a table ending in {', '.join(readers)}, got {file}")
    inputs, labels = reader(file, label)
    if not len(labels):
        raise ValueError(f"{file} has no rows")
    bad = np.flatnonzero(~np.isfinite(inputs).reshape(len(inputs), -1).all(1))
    if len(bad):
        raise ValueError(f"{file}: expected finite numbers, got others in row {bad[0]}, counted from 0")
    names, classes = np.unique(np.array([str(name) for name in labels]), return_inverse=True)
    order = np.argsort(classes, kind="stable")
    return ClassData(
        tuple(names.tolist()), torch.from_numpy(inputs[order]), torch.from_numpy(np.bincount(classes))
    )


def _read_csv(file: Path, label: str) -> tuple[np.ndarray, Sequence[object]]:
    rows = csv.reader(read_text(file, "table", MAX_CSV_BYTES).splitlines())
    header = [name.strip() for name in next(rows, [])]
    column = _label_column(file, header, label)
    inputs, labels = [], []
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"{file}, line {line}: expected {len(header)} columns, got {len(row)}")
        labels.append(row.pop(column))
        try:
            inputs.append(np.array(row, dtype=np.float32))
        except ValueError as error:
            raise ValueError(f"{file}, line {line}: expected numbers, got {shorten(row)}") from error
    return np.stack(inputs) if inputs else np.zeros((0, 1), dtype=np.float32), labels


def _read_parquet(file: Path, label: str) -> tuple[np.ndarray, Sequence[object]]:
    try:
        from pyarrow import parquet  # noqa: PLC0415  # a package that need not be installed
    except ImportError as error:
        raise ValueError(f'reading {file} needs pyarrow ({error}); pip install "pyarrow"') from error
    try:
        with open_regular(file) as opened:
            table = parquet.read_table(opened)
    except Exception as error:  # damaged files raise many kinds
        raise ValueError(f"{file} is damaged or not a Parquet file: {' '.join(str(error).split())}") from error
    names = table.column_names
    _label_column(file, names, label)
    inputs = np.zeros((table.num_rows, len(names) - 1), dtype=np.float32)
    for place, name in enumerate(name for name in names if name != label):
        values = table.column(name).to_numpy()
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{file}: expected numbers in the column {name!r}, got {values.dtype}")
        inputs[:, place] = values
    return inputs, table.column(label).to_pylist()


def _read_arrays(file: Path, _label: str) -> tuple[np.ndarray, Sequence[object]]:
    try:
        with open_regular(file) as opened, np.load(opened, allow_pickle=False) as archive:
            inputs, targets = archive["inputs"], archive["targets"]
    except Exception as error:  # damaged archives raise many kinds
        raise ValueError(f"{file} must be an npz file with the arrays inputs and targets: {error}") from error
    if inputs.dtype.kind not in "fiub" or targets.shape != inputs.shape[:1] or targets.dtype.kind not in "iubU":
        raise ValueError(
            f"{file}: expected numbers inputs [row, *input] and whole numbers or texts targets [row], got "
            f"{inputs.dtype} {inputs.shape} and {targets.dtype} {targets.shape}"
        )
    scale = np.float32(255 if inputs.dtype == np.uint8 else 1)
    return inputs.astype(np.float32) / scale, targets.tolist()


def _label_column(file: Path, names: Sequence[str], label: str) -> int:
    if label not in names or len(names) < 2:
        raise ValueError(
            f"{file}: expected a column {label!r} beside columns of numbers, got {shorten(', '.join(names))}; "
            "name another with --data.label"
        )
    return list(names).index(label)
