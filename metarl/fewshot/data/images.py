"""Images from folders: one folder per class, and what says which class belongs to which split.

All images lie in one array of bytes, in the order of splits and classes, into which as many threads as there are
cores decode: nothing is held twice. The array may be a file, made once and mapped into memory from then on.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.data.class_tasks import SPLITS, ImageClasses, Splits
from metarl.fewshot.data.classes import ClassData
from metarl.fewshot.data.decoding import SUFFIXES, decode_image, image_names, read_image_file
from metarl.fewshot.data.division import (
    MINI_IMAGENET_SHARES,
    check_shares,
    divide,
    read_split,
    read_split_tables,
    split_folders,
)
from metarl.fewshot.sources import PixelScale, TaskSpec, on_examples_read
from metarl.runs.configs import check_seed
from metarl.runs.cores import usable_cores

Members = dict[str, list[Path]]
"""The images of every class, by its name."""
_VERSION = 1  # of what a file of decoded images holds


@dataclass(frozen=True)
class ClassFolderData(ImageClasses):
    """Images of one's own: a folder that holds one folder of images for every class.

    Attributes:
        folder: Folder that holds one folder of PNG, JPEG, BMP, GIF or WebP images for every class.
        size: Width that images are resized to, in pixels; they become square.
        split_file: JSON file of the classes of each split, {"train": [class, ...], "validation": [...], "test":
            [...]}; or a folder of train.csv, val.csv and test.csv with rows "filename,label", as of miniImageNet.
            None for folders train, val and test that hold the classes' folders, or, without them, for classes
            that are divided at random.
        colour: Whether images have three channels instead of one.
        shares: Shares of training, validation and test in the classes, where they are divided at random.
        split_seed: Seed of that division.
        crop: Whether the middle square of an image is taken; otherwise it is squashed to a square.
        invert: Whether white becomes 0, as for ink on paper.
        cache: Folder in which decoded images are kept as a file, made once and then read without decoding and
            without being held in memory; None for memory alone.
        pixel_scale: Scale of the pixels that the network takes: unit for [0, 1], or imagenet, whose means and
            standard deviations are taken out, as pretrained networks of colour images expect.
    """

    folder: str = "data/images"
    size: int = 84
    split_file: str | None = "data/split.json"
    colour: bool = True
    shares: tuple[float, float, float] = MINI_IMAGENET_SHARES
    split_seed: int = 0
    crop: bool = False
    invert: bool = False
    cache: str | None = None
    pixel_scale: PixelScale = "unit"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixel_scale == "imagenet" and not self.colour:
            raise ValueError("pixel_scale imagenet is of three channels, got colour False; leave one of both out")
        check_shares(self.shares)
        check_seed(self, "split_seed")

    @property
    def tasks(self) -> TaskSpec:
        """Classification of images, with the scale of their pixels."""
        return super().tasks._replace(pixel_scale=self.pixel_scale)

    @property
    def num_channels(self) -> int:  # type: ignore[override]
        """Three of colour images, one of others."""
        return 3 if self.colour else 1

    def decode(self, content: bytes, name: str) -> Tensor:
        """The image of a file's content as training has it, bytes [channel, size, size]."""
        return decode_image(content, name, self.size, colour=self.colour, invert=self.invert, crop=self.crop)

    def read(self, device: torch.device) -> tuple[ClassData, Splits]:
        """The classes of every split."""
        splits = read_class_folders(
            Path(self.folder),
            None if self.split_file is None else Path(self.split_file),
            size=self.size,
            colour=self.colour,
            shares=self.shares,
            split_seed=self.split_seed,
            crop=self.crop,
            invert=self.invert,
            cache=None if self.cache is None else Path(self.cache),
            device=device,
        )
        return splits.train, splits


def read_class_folders(
    folder: Path,
    split_file: Path | None = None,
    *,
    size: int = 84,
    colour: bool = True,
    shares: Sequence[float] = MINI_IMAGENET_SHARES,
    split_seed: int = 0,
    crop: bool = False,
    invert: bool = False,
    cache: Path | None = None,
    device: torch.device | None = None,
) -> Splits:
    """Read a folder of class folders of images.

    Args:
        folder: Folder that holds one folder per class, named after it, or one per split that holds these.
        split_file: JSON file of the classes of each split, or a folder of CSV files; None if folders say it, or
            the classes are divided at random. See `metarl.fewshot.data.division`.
        size: Width and height that images are resized to, in pixels, antialiased.
        colour: Whether there are three channels instead of one.
        shares: Shares of training, validation and test in the classes, where they are divided at random.
        split_seed: Seed of that division.
        crop: Whether the middle square of an image is taken; otherwise it is squashed to a square.
        invert: Whether white becomes 0.
        cache: Folder in which decoded images are kept as a file; None for none.
        device: Device of the images; the CPU by default.

    Raises:
        ValueError: if a file is missing, damaged, or the split names a class that is not there or one twice.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; expected one that holds a folder of images for every class")
    division = find_images(folder, split_file, shares, split_seed)
    files = [path for split in SPLITS for paths in division[split].values() for path in paths]
    shape = (len(files), 3 if colour else 1, size, size)

    def decoded(path: Path) -> Tensor:
        content = read_image_file(path)
        return decode_image(content, str(path), size, colour=colour, invert=invert, crop=crop)

    if cache is None:
        images = torch.empty(shape, dtype=torch.uint8)
        _decode_all(files, decoded, images)
    else:
        images = _from_cache(cache, files, shape, decoded, {"crop": crop, "invert": invert})
    names = tuple(name for split in SPLITS for name in division[split])
    counts = torch.tensor([len(paths) for split in SPLITS for paths in division[split].values()])
    return make_splits(ClassData(names, images, counts), {s: list(division[s]) for s in SPLITS}, device)


def find_images(
    folder: Path, split_file: Path | None, shares: Sequence[float], split_seed: int
) -> dict[str, Members]:
    """The images of every class of every split; arguments and errors are those of `read_class_folders`."""
    if split_file is not None and split_file.is_dir():
        tables = read_split_tables(split_file)
        return {
            split: {
                name: [_listed(folder, name, file, split_file) for file in files]
                for name, files in classes.items()
            }
            for split, classes in tables.items()
        }
    if split_file is not None:
        split = read_split(split_file)
        members = _images_of(folder, _class_folders(folder, split, split_file))
        return {part: {name: members[name] for name in names} for part, names in split.items()}
    places = split_folders(folder)
    if not places:
        members = _all_images(folder)
        parts = divide(list(members), shares, split_seed)
        return {part: {name: members[name] for name in names} for part, names in parts.items()}
    division = {split: _all_images(places[split]) if split in places else {} for split in SPLITS}
    split_of: dict[str, str] = {}
    for split_name, classes in division.items():
        for name in classes:
            if split_of.setdefault(name, split_name) != split_name:
                raise ValueError(
                    f"{folder}: the class {name!r} is in {split_of[name]} and in {split_name}; splits of few-shot "
                    "learning share no class: give another division with a split file"
                )
    return division


def _listed(folder: Path, name: str, file: str, split_file: Path) -> Path:
    """The place of an image that a table lists, in the folder itself or in its class's."""
    for path in (folder / file, folder / name / file):
        if path.is_file():
            return path
    raise ValueError(f"{split_file} lists {file}, which is neither in {folder} nor in {folder / name}")


def _class_folders(folder: Path, split: Mapping[str, Sequence[str]], split_file: Path) -> list[str]:
    """The names of all classes, each of which has a folder of its own."""
    places: dict[Path, str] = {}
    for name in (name for names in split.values() for name in names):
        place = _class_folder(folder, name, split_file)
        if place in places:
            raise ValueError(f"{split_file}: the classes {places[place]!r} and {name!r} are the same folder")
        places[place] = name
    return list(places.values())


def _class_folder(folder: Path, name: str, split_file: Path) -> Path:
    """The real place of a class's folder."""
    try:
        if (folder / name).is_dir():
            return (folder / name).resolve()
    except (OSError, ValueError):  # a name that is too long, or holds a null character
        pass
    raise ValueError(f"{split_file} names the class {name[:80]!r}, which is not a folder in {folder}")


def _images_of(folder: Path, names: Sequence[str]) -> Members:
    """The images of classes, which must have some."""
    files = [f"{name}/{path.name}" for name in names for path in (folder / name).iterdir() if path.is_file()]
    members: Members = {name: [] for name in names}
    for file in image_names(str(folder), files):
        members[file.rpartition("/")[0]].append(folder / file)
    empty = [name for name, paths in members.items() if not paths]
    if empty:
        raise ValueError(
            f"class {empty[0]!r} has no images in {folder / empty[0]}; expected {', '.join(SUFFIXES)}"
        )
    return members


def _all_images(folder: Path) -> Members:
    """The images of all classes: of every folder below that holds images, by its place."""
    files = [
        (Path(place) / name).relative_to(folder).as_posix()
        for place, _, names in os.walk(folder)
        for name in names
        if Path(place) != folder
    ]
    members: Members = {}
    for file in image_names(str(folder), files):
        members.setdefault(file.rpartition("/")[0], []).append(folder / file)
    if not members:
        raise ValueError(f"no images in folders in {folder}; expected one folder of images for every class")
    return members


def _decode_all(files: Sequence[Path], decode: Callable[[Path], Tensor], images: Tensor) -> None:
    """Decode files into an array [image, channel, size, size], in as many threads as there are cores.

    Raises:
        ValueError: that of the first file, in their order, that cannot be decoded.
    """
    threads, lock = max(1, min(usable_cores(), len(files))), threading.Lock()
    errors: dict[int, ValueError] = {}
    count = 0
    report = on_examples_read.get()

    def work(thread: int) -> None:
        nonlocal count
        for number in range(thread, len(files), threads):
            if errors and min(errors) < number:
                return
            try:
                images[number] = decode(files[number])
            except ValueError as error:
                errors[number] = error
                return
            with lock:
                count += 1
                if report is not None:
                    report(count, len(files))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    if errors:
        raise errors[min(errors)]


def _from_cache(
    folder: Path,
    files: Sequence[Path],
    shape: tuple[int, ...],
    decode: Callable[[Path], Tensor],
    settings: Mapping[str, bool],
) -> Tensor:
    """The images of files, from a file that is made unless it is there; its name says what it was made of."""
    states = [(str(path), (state := path.stat()).st_size, state.st_mtime_ns) for path in files]
    made_of = json.dumps([_VERSION, list(shape), dict(settings), states])
    path = folder / f"images-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.npy"
    try:
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f"{path.stem}-{os.getpid()}.part")
            try:
                array = np.lib.format.open_memmap(fresh, mode="w+", dtype=np.uint8, shape=shape)
                _decode_all(files, decode, torch.from_numpy(array))
                array.flush()
                fresh.replace(path)
            finally:
                fresh.unlink(missing_ok=True)
        # Copied on writing, which nobody does, so that torch need not warn of an array that must not be written.
        return torch.from_numpy(np.load(path, mmap_mode="c"))
    except OSError as error:
        raise ValueError(f"cannot keep decoded images in {folder}: {error.strerror or error}") from error


def make_splits(data: ClassData, split: Mapping[str, Sequence[str]], device: torch.device | None = None) -> Splits:
    """Select the classes of each split, and put them on a device."""
    on = device or torch.device("cpu")
    return Splits(*(data.select(split[name]).to(on) for name in SPLITS))
