"""Tables of features with classes: a row for every example, in CSV, Parquet or arrays of numpy."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from metarl.fewshot.data.class_tasks import ClassTasks, EpisodesConfig, Splits
from metarl.fewshot.data.classes import ClassData
from metarl.fewshot.data.division import MINI_IMAGENET_SHARES, check_shares, divide, read_split
from metarl.fewshot.data.images import make_splits
from metarl.fewshot.data.table_rows import Rows, classes_of, read_rows
from metarl.runs.configs import check_seed


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
        splits = self._splits()
        if self.standardised:
            mean, spread = _scale(splits.train.examples)
            splits = Splits(*(replace(part, examples=(part.examples - mean) / spread) for part in splits))
        splits = Splits(*(part.to(device) for part in splits))
        return splits.train, splits

    def read_new(self, file: Path, *, labelled: bool) -> tuple[Rows, Tensor]:
        """The rows of another table, and their features as training has them, float32 [row, *input].

        Args:
            file: Table with the columns of that of training, in any order.
            labelled: Whether rows need a label.

        Raises:
            ValueError: if the file is missing or malformed, or has other features.
        """
        columns, inputs, _ = read_rows(Path(self.file), self.label)
        input_shape = inputs.shape[1:]
        scale = _scale(self._splits().train.examples) if self.standardised else None
        rows = read_rows(file, self.label, labelled=labelled).in_order_of(columns, file)
        features = check_features(rows.tensor(), input_shape, file)
        return rows, features if scale is None else (features - scale[0]) / scale[1]

    def _splits(self) -> Splits:
        """The classes of every split, with their features as they are."""
        data = read_table(Path(self.file), self.label)
        split = (
            divide(data.names, self.shares, self.split_seed)
            if self.split_file is None
            else read_split(Path(self.split_file))
        )
        try:
            return make_splits(data, split)
        except ValueError as error:
            raise ValueError(f"{self.split_file}: {error}") from error


def read_table(file: Path, label: str = "label") -> ClassData:
    """The classes of a table, whose features are float32 [row, *input].

    Args:
        file: CSV, Parquet or npz file; see `TableData`.
        label: Column of the classes; not used of an npz file.

    Raises:
        ValueError: if the file is missing or malformed; names the line or the column.
    """
    rows = read_rows(file, label)
    return classes_of(rows, rows.tensor())


def check_features(inputs: Tensor, input_shape: tuple[int, ...], file: Path) -> Tensor:
    """The inputs [row, *input] of a file.

    Raises:
        ValueError: if they are of another shape.
    """
    if tuple(inputs.shape[1:]) != tuple(input_shape):
        raise ValueError(
            f"{file}: expected inputs of shape {('row', *input_shape)}, got {('row', *inputs.shape[1:])}"
        )
    return inputs


def _scale(examples: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of examples and their spread, 1 where there is none."""
    spread = examples.std(0, correction=0)
    return examples.mean(0), torch.where(spread > 0, spread, 1.0)
