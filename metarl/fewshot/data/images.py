"""Images from folders: one folder per class, and a file that says which class belongs to which split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from metarl.fewshot.data.class_tasks import SPLITS, ImageClasses, Splits
from metarl.fewshot.data.classes import ClassData
from metarl.fewshot.data.decoding import SUFFIXES, decode_image, image_names, read_image_file
from metarl.runs.reading import read_json, shorten


@dataclass(frozen=True)
class ClassFolderData(ImageClasses):
    """Images of one's own: a folder that holds one folder of images for every class.

    Attributes:
        folder: Folder that holds one folder of PNG, JPEG, BMP, GIF or WebP images for every class.
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
        folder: Folder that holds one folder per class, named after it.
        split_file: JSON file of the classes of each split, see `read_split`.
        size: Width and height that images are resized to, in pixels, antialiased.
        colour: Whether there are three channels instead of one.
        device: Device of the images; the CPU by default.

    Raises:
        ValueError: if a file is missing, damaged, or the split names a class that is not there or one twice.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; expected one that holds a folder of images for every class")
    split = read_split(split_file)
    files: list[str] = []
    places: dict[Path, str] = {}
    for name in (name for names in split.values() for name in names):
        place = _class_folder(folder, name, split_file)
        if place in places:
            raise ValueError(f"{split_file}: the classes {places[place]!r} and {name!r} are the same folder")
        places[place] = name
        files += [f"{name}/{path.name}" for path in (folder / name).iterdir() if path.is_file()]
    members: dict[str, list[Path]] = {name: [] for name in places.values()}
    for file in image_names(str(folder), files):
        members[file.rpartition("/")[0]].append(folder / file)
    empty = [name for name, paths in members.items() if not paths]
    if empty:
        raise ValueError(
            f"class {empty[0]!r} has no images in {folder / empty[0]}; expected {', '.join(SUFFIXES)}"
        )

    def decoded(path: Path) -> Tensor:
        return decode_image(read_image_file(path), str(path), size, colour=colour)

    images = {name: torch.stack([decoded(path) for path in paths]) for name, paths in members.items()}
    return make_splits(ClassData.join(images), split, device)


def _class_folder(folder: Path, name: str, split_file: Path) -> Path:
    """The real place of a class's folder."""
    try:
        if (folder / name).is_dir():
            return (folder / name).resolve()
    except (OSError, ValueError):  # a name that is too long, or holds a null character
        pass
    raise ValueError(f"{split_file} names the class {name[:80]!r}, which is not a folder in {folder}")


_SPLIT = 'expected {"train": [class, ...], "validation": [...], "test": [...]}'


def read_split(path: Path) -> dict[str, list[str]]:
    """Read a split file: JSON lists of class names, {"train": [...], "validation": [...], "test": [...]}.

    Raises:
        ValueError: saying what is wrong with the file, naming the class.
    """
    data = read_json(path, "split file")
    if not isinstance(data, dict) or not set(data) <= set(SPLITS) or not {"train", "test"} <= set(data):
        raise ValueError(f"{path}: {_SPLIT}, got {shorten(data)}")
    split_of: dict[str, str] = {}
    for split, names in data.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path}: {_SPLIT}, got {split} {shorten(names)}")
        for name in names:
            plain = PurePosixPath(name)
            if (
                name != plain.as_posix()
                or plain.is_absolute()
                or "\\" in name
                or {"..", "."} & {*plain.parts, name}
            ):
                raise ValueError(
                    f"{path}: a class is named like its folder below the images' folder, as in 'birds/crow', got "
                    f"{name[:80]!r}"
                )
            if name in split_of:
                raise ValueError(f"{path} names the class {name!r} twice, in {split_of[name]} and in {split}")
            split_of[name] = split
    for split in ("train", "test"):
        if not data[split]:
            raise ValueError(f"{path}: {split} names no classes; {_SPLIT}")
    return {split: list(data.get(split, [])) for split in SPLITS}


def make_splits(data: ClassData, split: Mapping[str, Sequence[str]], device: torch.device | None = None) -> Splits:
    """Select the classes of each split, and put them on a device."""
    on = device or torch.device("cpu")
    return Splits(*(data.select(split[name]).to(on) for name in SPLITS))
