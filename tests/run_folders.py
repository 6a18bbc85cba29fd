"""What two run folders are compared by: their metrics and their checkpoints, without times."""

import csv
from pathlib import Path
from typing import Any

import torch


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without columns of times."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


def values(tree: Any) -> list[Any]:
    """The content of a checkpoint without its times; tensors as their kind of numbers, shape and bytes."""
    if isinstance(tree, dict):
        return [x for name, value in tree.items() if name != "elapsed_s" for x in values(value)]
    if isinstance(tree, list | tuple):
        return [x for value in tree for x in values(value)]
    if isinstance(tree, torch.Tensor):
        return [(tree.dtype, tree.shape, tree.detach().numpy().tobytes())]
    return [tree]
