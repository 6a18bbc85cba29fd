"""Images from folders: one folder per class, and a file that says which class is for what."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from metarl.fewshot.data.class_tasks import SPLITS, ImageClasses, Splits
from metarl.fewshot.data.classes import ClassData

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


@dataclass(frozen=True)
class ClassFolderData(ImageClasses):
    """Images of one's own: a folder that holds one folder of images for every class.

    Attributes:
        folder: Folder that holds one folder of images for every class.
        episodes: Ways, shots and queries of the tasks.
        augmentation: Random distortion of training images, or of classes too, whose images are all turned, sheared
            and perhaps mirrored alike and so become other classes.
        size: Width that images are resized to, in pixels; they become square.
        split_file: JSON file of the classes of each split, {"train": [class, ...], "validation": [...], "test":
            [...]}.
        colour: Whether images have three channels instead of one.
    """

    folder: str = "data/images"
    size: int = 84
    split_file: str = "data/split.json"
    colour: bool = True

    @property
    def num_channels(self) -> int:  # type: ignore[override]
        """Three of colour images, one of others."""
        return 3 if self.colour else 1

    def read(self, device: torch.device) -> tuple[ClassData, Splits]:
        """The classes that the split file names."""
        folder, split_file = Path(self.folder), Path(self.split_file)
        splits = read_class_folders(folder, split_file, size=self.size, colour=self.colour, device=device)
        return splits.train, splits


def read_class_folders(
    folder: Path, split_file: Path, *, size: int = 84, colour: bool = True, device: torch.device | None = None
) -> Splits:
    """Read a folder of class folders of images, split by a file.

    Args:
        folder: holds one folder per class, named after it.
        split_file: JSON, {"train": [class, ...], "validation": [...], "test": [...]}.
        size: images are resized to this many pixels square, antialiased.
        colour: three channels instead of one.
        device: where the bytes are put.

    Raises:
        ValueError: if a file is missing, damaged, or the split names a class that is not there or one twice.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; expected one that holds a folder of images for every class")
    split = read_split(split_file)
    images: dict[str, Tensor] = {}
    for name in (name for names in split.values() for name in names):
        if not (folder / name).is_dir():
            raise ValueError(f"{split_file} names the class {name!r}, which is not a folder in {folder}")
        files = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f"class {name!r} has no images in {folder / name}; expected {', '.join(SUFFIXES)}")
        images[name] = torch.stack([decode_image(p.read_bytes(), str(p), size, colour=colour) for p in files])
    return make_splits(ClassData.join(images), split, device)


def read_split(path: Path) -> dict[str, list[str]]:
    """Read a split file: lists of class names, each name at most once.

    Raises:
        ValueError: saying what is wrong with the file, naming the class.
    """
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"cannot read the split file {path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the split file {path} is not JSON: {error}") from error
    expected = 'expected {"train": [class, ...], "validation": [...], "test": [...]}'
    if not isinstance(data, dict) or not set(data) <= set(SPLITS) or not {"train", "test"} <= set(data):
        raise ValueError(f"{path}: {expected}, got {json.dumps(data)[:80]}")
    seen: dict[str, str] = {}
    for split, names in data.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path}: {expected}, got {split} {json.dumps(names)[:80]}")
        for name in names:
            if name in seen:
                raise ValueError(f"{path} names the class {name!r} twice, in {seen[name]} and in {split}")
            seen[name] = split
    for split in ("train", "test"):
        if not data[split]:
            raise ValueError(f"{path}: {split} names no classes; {expected}")
    return {split: list(data.get(split, [])) for split in SPLITS}


def make_splits(data: ClassData, split: Mapping[str, Sequence[str]], device: torch.device | None = None) -> Splits:
    """Select the classes of each split, and put them on a device."""
    on = device or torch.device("cpu")
    return Splits(*(data.select(split[name]).to(on) for name in SPLITS))


def decode_image(
    data: bytes, name: str, size: int, *, colour: bool, invert: bool = False, antialias: bool = True
) -> Tensor:
    """Decode and resize an image to bytes [channel, size, size].

    Args:
        data: the file's content.
        name: of the file, for errors.
        size: in pixels.
        colour: three channels instead of one.
        invert: white becomes 0.
        antialias: Lanczos; else the nearest pixel. An image of one bit per pixel must become one of eight before
            it is resized: Pillow silently takes the nearest pixel otherwise.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB" if colour else "L")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} is damaged or not an image: {' '.join(str(error).split())}") from error
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS if antialias else Image.Resampling.NEAREST)
    pixels = torch.from_numpy(np.array(image)).reshape(size, size, -1).permute(2, 0, 1)
    return 255 - pixels if invert else pixels
