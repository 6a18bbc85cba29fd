"""Images with their classes from rows of Hugging Face's datasets, of WebDatasets, and of loops of one's own."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metarl.fewshot.data.classes import ClassData
from metarl.fewshot.data.decoding import decode_image
from metarl.runs.reading import shorten


def read_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    image: str = "image",
    label: str = "label",
    size: int = 84,
    colour: bool = True,
    crop: bool = False,
    invert: bool = False,
    names: Sequence[str] | None = None,
) -> ClassData:
    """The classes of rows, one image each.

    An image may be one of Pillow, an array [height, width] or [height, width, channel] of bytes, the content of a
    file, or a mapping with that content under "bytes". A label may be a whole number, text, or text in bytes.

    Args:
        rows: Rows, each a mapping; a `datasets.Dataset`, a `webdataset.WebDataset`, a list.
        image: Key of the image, for WebDatasets the ending of its file, such as "jpg".
        label: Key of the label, for WebDatasets "cls".
        size: Width and height that images are resized to, in pixels.
        colour: Whether there are three channels instead of one.
        crop: Whether the middle square of an image is taken; otherwise it is squashed to a square.
        invert: Whether white becomes 0.
        names: Names of the classes by number; None for those that a `datasets.Dataset` has, or else the numbers.

    Raises:
        ValueError: if there are no rows, a key is missing, or an image or a label is of none of these forms; names
            the row, counted from 0.
    """
    names = _names_of(rows, label) if names is None else names
    images: dict[str, list[Tensor]] = {}
    for number, row in enumerate(rows):
        missing = [key for key in (image, label) if key not in row]
        if missing:
            raise ValueError(f"row {number} has no {missing[0]!r}; its keys: {shorten(', '.join(map(str, row)))}")
        name = _name(row[label], names, number)
        content = _content(row[image], number)
        decoded = decode_image(content, f"row {number}", size, colour=colour, invert=invert, crop=crop)
        images.setdefault(name, []).append(decoded)
    if not images:
        raise ValueError("expected rows with images, got none")
    return ClassData.join({name: torch.stack(images.pop(name)) for name in sorted(images)})


def _names_of(rows: object, label: str) -> Sequence[str] | None:
    """The names of a `datasets.Dataset`'s classes."""
    features = getattr(rows, "features", None)
    names = (
        getattr(features[label], "names", None) if isinstance(features, Mapping) and label in features else None
    )
    return None if names is None else list(names)


def _name(value: Any, names: Sequence[str] | None, number: int) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace").strip()
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"row {number}: expected a label that is a whole number or text, got {shorten(value)}")
    place = int(value)
    if names is None:
        return str(place)
    if not 0 <= place < len(names):
        raise ValueError(f"row {number}: expected a label below {len(names)}, the number of names, got {place}")
    return names[place]


def _content(value: Any, number: int) -> bytes:
    """The content of an image's file; images that are in memory become one without loss."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, Image.Image):
        pixels = np.asarray(value)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise ValueError(
                f"row {number}: expected an image, bytes of a file, or an array of bytes [height, width, "
                f"channel], got {shorten(value)}"
            )
        value = Image.fromarray(pixels)
    file = io.BytesIO()
    value.save(file, "PNG", compress_level=0)
    return file.getvalue()
