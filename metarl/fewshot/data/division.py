"""Divisions of classes into training, validation and test: files and folders that say it, or a random division.

split.json                         {"train": [class, ...], "validation": [...], "test": [...]}
train.csv, val.csv, test.csv       a row "filename,label" for every example, as of miniImageNet
train/, val/, test/                a folder of class folders for every split
none of them                       the classes in random order, divided by shares
"""

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from metarl.fewshot.data.class_tasks import SPLITS
from metarl.runs.reading import read_json, read_text, shorten

NAMES = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
"""Names of each split in files and folders."""
MINI_IMAGENET_SHARES = (0.64, 0.16, 0.2)
"""Shares of miniImageNet's classes in training, validation and test."""
MAX_CSV_BYTES = 2**30
_SPLIT = 'expected {"train": [class, ...], "validation": [...], "test": [...]}'
_CSV = 'expected rows "filename,label" below a line that says so'


def read_split(path: Path) -> dict[str, list[str]]:
    """Read a split file: JSON lists of class names, {"train": [...], "validation": [...], "test": [...]}.

    Validation, which may be called val, and test may be empty or left out.

    Raises:
        ValueError: saying what is wrong with the file, naming the class.
    """
    data = read_json(path, "split file")
    known = {name: split for split, names in NAMES.items() for name in names}
    if not isinstance(data, dict) or "train" not in data:
        raise ValueError(f"{path}: {_SPLIT}, got {shorten(data)}")
    split_of: dict[str, str] = {}
    classes: dict[str, list[str]] = {split: [] for split in SPLITS}
    for key, names in data.items():
        if key not in known or classes[known[key]]:
            raise ValueError(f"{path}: {_SPLIT}, got the key {shorten(key)}")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path}: {_SPLIT}, got {key} {shorten(names)}")
        for name in names:
            check_class_name(name, path)
            if name in split_of:
                raise ValueError(f"{path} names the class {name!r} twice, in {split_of[name]} and in {known[key]}")
            split_of[name] = known[key]
        classes[known[key]] = list(names)
    if not classes["train"]:
        raise ValueError(f"{path}: train names no classes; {_SPLIT}")
    return classes


def check_class_name(name: str, source: Path) -> None:
    """Raise a ValueError unless a name is that of a folder below another."""
    plain = PurePosixPath(name)
    if name != plain.as_posix() or plain.is_absolute() or "\\" in name or {"..", "."} & {*plain.parts, name}:
        raise ValueError(
            f"{source}: a class is named like its folder below the images' folder, as in 'birds/crow', got "
            f"{name[:80]!r}"
        )


def read_split_tables(folder: Path) -> dict[str, dict[str, list[str]]]:
    """The files of every class of every split, from train.csv, val.csv and test.csv of a folder.

    Raises:
        ValueError: if train.csv is missing, a row is malformed, or a class stands in two splits; names the line.
    """
    classes: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    split_of: dict[str, str] = {}
    for split, names in NAMES.items():
        path = next((path for name in names if (path := folder / f"{name}.csv").is_file()), None)
        if path is None:
            if split == "train":
                raise ValueError(f"no train.csv in {folder}; expected train.csv, val.csv and test.csv")
            continue
        for label, file in _csv_rows(path):
            if split_of.setdefault(label, split) != split:
                raise ValueError(f"{path}: the class {label!r} stands in {split_of[label]} too; give it one split")
            classes[split].setdefault(label, []).append(file)
    return classes


def _csv_rows(path: Path) -> list[tuple[str, str]]:
    rows = csv.reader(read_text(path, "split file", MAX_CSV_BYTES).splitlines())
    header = [name.strip().lower() for name in next(rows, [])]
    if not {"filename", "label"} <= set(header):
        raise ValueError(f"{path}: {_CSV}, got {shorten(', '.join(header))}")
    file, label = header.index("filename"), header.index("label")
    pairs = []
    for line, row in enumerate(rows, start=2):
        if not row:  # a blank line
            continue
        if len(row) != len(header) or not row[label] or not row[file]:
            raise ValueError(f"{path}, line {line}: {_CSV}, got {shorten(','.join(row))}")
        check_class_name(row[label], path)
        check_class_name(row[file], path)
        pairs.append((row[label], row[file]))
    if not pairs:
        raise ValueError(f"{path} has no rows; {_CSV}")
    return pairs


def divide(names: Sequence[str], shares: Sequence[float], seed: int) -> dict[str, list[str]]:
    """The classes in random order, divided by shares; each split keeps the order of the names.

    Args:
        names: Names of the classes.
        shares: Shares of training, validation and test, which add up to 1.
        seed: Seed of the order.
    """
    order = np.random.default_rng(seed).permutation(len(names))
    bounds = np.rint(np.cumsum([0.0, *shares]) * len(names)).astype(int)
    places = [np.sort(order[low:high]).tolist() for low, high in itertools.pairwise(bounds)]
    return {split: [names[place] for place in chosen] for split, chosen in zip(SPLITS, places, strict=True)}


def check_shares(shares: Sequence[float]) -> None:
    """Raise a ValueError unless there are three shares that add up to 1, with something to train on."""
    good = len(shares) == 3 and min(shares) >= 0 and shares[0] > 0 and abs(sum(shares) - 1) < 1e-6
    if not good:
        raise ValueError(f"expected shares of training, validation and test that add up to 1, got {list(shares)}")


def split_folders(folder: Path) -> dict[str, Path]:
    """The folders of the splits below a folder; empty unless there is one to train on."""
    places = {
        split: place for split, names in NAMES.items() for name in names if (place := folder / name).is_dir()
    }
    return places if "train" in places else {}
