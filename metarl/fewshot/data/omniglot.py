"""Omniglot (Lake et al. 2015): 1,623 characters of 50 alphabets, each drawn by 20 people.

Read from torchvision's layout or from the original zip archives. The files are 105 x 105 with one bit per pixel
and ink 0; here ink is 255 and paper 0, and images are antialiased as they shrink. Names are sorted: they, and
never the order in which a file system lists folders, say what a class is.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from metarl.fewshot.data.class_tasks import SPLITS, ImageClasses, Splits
from metarl.fewshot.data.classes import ClassData
from metarl.fewshot.data.decoding import decode_image, image_names, read_archive, read_image_file
from metarl.fewshot.data.images import make_splits

Resize = Literal["antialias", "nearest"]
OmniglotSplit = Literal["eight_alphabets", "alphabets", "vinyals", "lake", "first_archive", "second_archive"]
"""eight_alphabets: our own of the two small archives; alphabets: 25, 5 and 20 alphabets; vinyals: Vinyals et al.
2016, 1,028, 172 and 423 characters; lake: background and evaluation alphabets, with no validation; first_archive,
second_archive: all of one archive to train on, and the alphabets that it lacks, if any, as test classes."""

PARTS = ("images_background", "images_evaluation", "images_background_small1", "images_background_small2")

VALIDATION_ALPHABETS = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
EVALUATION_ALPHABETS = (
    "Angelic",
    "Atemayar_Qelisayer",
    "Atlantean",
    "Aurek-Besh",
    "Avesta",
    "Ge_ez",
    "Glagolitic",
    "Gurmukhi",
    "Kannada",
    "Keble",
    "Malayalam",
    "Manipuri",
    "Mongolian",
    "Old_Church_Slavonic_(Cyrillic)",
    "Oriya",
    "Sylheti",
    "Syriac_(Serto)",
    "Tengwar",
    "Tibetan",
    "ULOG",
)
EIGHT_ALPHABETS = {
    "train": ("Balinese", "Early_Aramaic", "Greek", "Japanese_(katakana)", "Korean"),
    "validation": ("Latin",),
    "test": ("Sanskrit", "Tagalog"),
}
_NUM_BACKGROUND, _NUM_EVALUATION = 964, 659


@dataclass(frozen=True)
class OmniglotData(ImageClasses):
    """Omniglot, handwritten characters of 50 alphabets.

    Attributes:
        folder: Folder that holds images_background(.zip) and images_evaluation(.zip), or the small archives; or a
            single archive.
        split: Division of the characters into training, validation and test classes.
        rotations: Splits that have rotations by 90, 180 and 270 degrees as classes of their own.
        train_on_validation: Whether validation classes are trained on too instead of being held out.
        resize: Resizing of images: antialiased, or to the nearest pixel as in many older codes.
    """

    folder: str = "data/omniglot"
    split: OmniglotSplit = "eight_alphabets"
    rotations: Literal["none", "train", "all"] = "train"
    train_on_validation: bool = False
    resize: Resize = "antialias"

    def decode(self, content: bytes, name: str) -> Tensor:
        """The image of a file's content, bytes [1, size, size]; ink is 255."""
        return decode_image(
            content, name, self.size, colour=False, invert=True, antialias=self.resize == "antialias"
        )

    def read(self, device: torch.device) -> tuple[ClassData, Splits]:
        """The characters of each split, and the training characters with their rotations."""
        splits = read_omniglot(Path(self.folder), self.split, size=self.size, resize=self.resize, device=device)
        if self.train_on_validation:
            both = splits.train.with_classes_of(splits.validation)
            splits = splits._replace(
                train=both, validation=splits.validation.select([])
            )  # none is held out any more
        if self.rotations == "all":
            splits = Splits(*(part.with_rotations() if part.names else part for part in splits))
        return splits.train.with_rotations() if self.rotations == "train" else splits.train, splits


def read_omniglot(
    folder: Path,
    split: OmniglotSplit = "eight_alphabets",
    *,
    size: int = 28,
    resize: Resize = "antialias",
    device: torch.device | None = None,
) -> Splits:
    """Read Omniglot and split it.

    Args:
        folder: Folder that holds images_background and images_evaluation, as folders or zip archives, itself or in
            the folder omniglot-py that torchvision makes; or the archives images_background_small1 and _small2; or
            a single archive.
        split: Division of the characters into training, validation and test classes.
        size: Width and height that images are resized to, in pixels.
        resize: Filter of the resizing; "nearest" reproduces the many codes that resize one-bit images without
            converting them first.
        device: Device of the images; the CPU by default.

    Raises:
        ValueError: if there is no Omniglot in the folder, a file is damaged, or the split's classes are not there.
    """
    images: dict[str, list[Tensor]] = {}
    names: list[dict[str, None]] = []  # of each part, in order
    for part in _parts(folder):
        fresh: dict[str, list[Tensor]] = {}
        names.append({})
        for name, place, content in _files(part):
            names[-1][name] = None
            if name not in images:  # the two small archives share Greek and Latin
                image = decode_image(
                    content, place, size, colour=False, invert=True, antialias=resize == "antialias"
                )
                fresh.setdefault(name, []).append(image)
        images |= fresh
    if not images:
        raise ValueError(f"no images of the form Alphabet/character/file.png in {folder}; {_SOURCES}")
    data = ClassData.join({name: torch.stack(images[name]) for name in sorted(images)})
    if split in _ARCHIVES:
        return make_splits(data, _names_by_archive(names, _ARCHIVES.index(split)), device)
    return make_splits(data, split_names(data.names, split), device)


_ARCHIVES = ("first_archive", "second_archive")


def _names_by_archive(names: Sequence[Collection[str]], chosen: int) -> dict[str, list[str]]:
    """The classes of each split if one archive, by its place, is trained on."""
    if chosen >= len(names):
        raise ValueError(f"the split {_ARCHIVES[chosen]} needs two archives, got {len(names)}; {_SOURCES}")
    alphabets = {name.split("/")[0] for name in names[chosen]}
    others = {name for part in names for name in part if name.split("/")[0] not in alphabets}
    return {"train": sorted(names[chosen]), "validation": [], "test": sorted(others)}


def split_names(names: Sequence[str], split: OmniglotSplit) -> dict[str, list[str]]:
    """The classes of each split, as "Alphabet/characterNN".

    Args:
        names: Names of the classes that there are.
        split: Name of the split.

    Raises:
        ValueError: if classes of the split are not there.
    """
    chosen: dict[str, list[str]] = {part: [] for part in SPLITS}
    for name in sorted(names):
        place = _place(name, split)
        if place is not None:
            chosen[place].append(name)
    num_chosen = sum(len(names_of_part) for names_of_part in chosen.values())
    if split == "eight_alphabets":
        there = {name.split("/")[0] for name in names}
        missing = [alphabet for part in SPLITS for alphabet in EIGHT_ALPHABETS[part] if alphabet not in there]
        if missing:
            raise ValueError(f"the split {split} needs the alphabet {missing[0]}, which is not there; {_SOURCES}")
    elif num_chosen != _NUM_BACKGROUND + _NUM_EVALUATION:
        raise ValueError(
            f"the split {split} needs all {_NUM_BACKGROUND + _NUM_EVALUATION} characters of Omniglot, got "
            f"{num_chosen}; put images_background and images_evaluation in the folder"
        )
    return chosen


def _place(name: str, split: OmniglotSplit) -> str | None:
    """Which part of a split a class belongs to."""
    alphabet, character = name.split("/")
    if split == "eight_alphabets":
        return next((part for part, alphabets in EIGHT_ALPHABETS.items() if alphabet in alphabets), None)
    if split == "vinyals" and alphabet == "Gurmukhi":
        # The cut is after the 1,200th character, in the middle of this alphabet.
        return "test" if character > "character41" else "train"
    if split == "vinyals" and alphabet in EVALUATION_ALPHABETS:
        return "train" if alphabet < "Gurmukhi" else "test"
    if alphabet in EVALUATION_ALPHABETS:
        return "test"
    return "validation" if split != "lake" and alphabet in VALIDATION_ALPHABETS else "train"


_SOURCES = (
    "expected images_background(.zip) and images_evaluation(.zip), or images_background_small1.zip and "
    "images_background_small2.zip, from https://github.com/brendenlake/omniglot/tree/master/python"
)


def _parts(folder: Path) -> list[Path]:
    """The folders and archives of Omniglot in a folder; a folder that was unpacked stands for its archive."""
    if folder.suffix == ".zip" and folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise ValueError(f"no Omniglot at {folder}: no such folder; {_SOURCES}")
    parts = []
    for root in (folder, folder / "omniglot-py"):
        for part in PARTS:
            candidates = [root / part, root / f"{part}.zip"]
            parts += [path for path in candidates if path.is_dir() or path.is_file()][:1]
    if not parts:
        raise ValueError(f"no Omniglot in {folder}; {_SOURCES}")
    return parts


def _files(part: Path) -> Iterator[tuple[str, str, bytes]]:
    """Class, place and content of every image of a part, in the order of their names."""
    if part.is_dir():
        files = (path.relative_to(part).as_posix() for path in part.glob("*/*/*") if path.is_file())
        for name in image_names(str(part), files):
            yield name.rpartition("/")[0], str(part / name), read_image_file(part / name)
        return
    for member, content in read_archive(part):
        pieces = member.split("/")
        if len(pieces) >= 3:
            yield "/".join(pieces[-3:-1]), f"{part}:{member}", content
