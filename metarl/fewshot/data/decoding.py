"""Image files from disk and from zip archives, and their pixels, however untidy the files are.

PNG, JPEG, BMP, GIF (its first frame) and WebP are read, whatever a file is called, and no other format that Pillow
knows: some start other programs. What declares itself larger than any image of a data set is refused before it is
read.
"""

import io
import logging
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from metarl.runs.reading import open_regular

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 100_000_000
MAX_ARCHIVE_BYTES = 10_000_000_000


def decode_image(
    data: bytes,
    name: str,
    size: int,
    *,
    colour: bool,
    invert: bool = False,
    antialias: bool = True,
    crop: bool = False,
) -> Tensor:
    """Decode and resize an image to bytes [channel, size, size].

    16-bit greys are scaled to 8 bits, transparency is laid on white, and the orientation in a photograph's EXIF
    data is applied.

    Args:
        data: Content of the file.
        name: Name of the file, for errors.
        size: Width and height that the image is resized to, in pixels.
        colour: Whether there are three channels instead of one.
        invert: Whether white becomes 0.
        antialias: Whether images shrink by Lanczos's filter instead of taking the nearest pixel.
        crop: Whether the middle square is taken of an image that is not square; otherwise it is squashed.

    Raises:
        ValueError: if the file is damaged, of another format or too large; the message names it.
    """
    # Of damaged files Pillow's readers raise whatever their parsing runs into: struct.error, KeyError, ...
    with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
        try:
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(f"{name} has more than {MAX_PIXELS:,} pixels; shrink it first") from error
        except Exception as error:
            raise ValueError(f"{name} is damaged or not an image of {', '.join(FORMATS)}") from error
    with opened:
        if opened.width * opened.height > MAX_PIXELS:
            shape = f"{opened.width} x {opened.height}"
            raise ValueError(f"{name} has {shape} pixels, expected at most {MAX_PIXELS:,}; shrink it first")
        try:
            image = _eight_bits(ImageOps.exif_transpose(opened), "RGB" if colour else "L")
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{name} is damaged: {reason or type(error).__name__}") from error
    if crop and image.width != image.height:
        width = min(image.size)
        left, top = (image.width - width) // 2, (image.height - width) // 2
        image = image.crop((left, top, left + width, top + width))
    if image.size != (size, size):
        # An image of one bit per pixel is one of eight by now: of one bit Pillow silently takes the nearest pixel.
        image = image.resize((size, size), Image.Resampling.LANCZOS if antialias else Image.Resampling.NEAREST)
    pixels = torch.from_numpy(np.array(image)).reshape(size, size, -1).permute(2, 0, 1)
    return 255 - pixels if invert else pixels


def _eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """The image in a mode of 8 bits per channel, on white."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip to white
        greys = np.asarray(image).clip(0, 65535)
        pixels = np.rint(greys / 257).astype(np.uint8)
        if isinstance(image.info.get("transparency"), int):
            pixels[greys == image.info["transparency"]] = 255
        return Image.fromarray(pixels).convert(mode)
    if not image.has_transparency_data:
        return image.convert(mode)
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image.convert("RGBA"))
    return paper.convert(mode)


def image_names(place: str, names: Iterable[str]) -> list[str]:
    """The names that have the suffix of an image, in order; of the others the number is logged.

    Hidden files are no images, nor are those in the folders that macOS adds to archives.

    Args:
        place: Folder or archive that the names are from.
        names: Paths of files.
    """
    images: list[str] = []
    others: list[str] = []
    for name in sorted(names):
        parts = [part for part in name.split("/") if part != "."]
        hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
        (images if name.lower().endswith(SUFFIXES) and not hidden else others).append(name)
    if others:
        logging.getLogger(__name__).warning(
            "%s: skipped %d of %d files, which are hidden or do not end in %s, such as %s",
            place,
            len(others),
            len(images) + len(others),
            ", ".join(SUFFIXES),
            others[0],
        )
    return images


def read_image_file(path: Path) -> bytes:
    """The content of an image's file.

    Raises:
        ValueError: if it cannot be read or is too large; the message names it.
    """
    try:
        with open_regular(path) as file:
            num_bytes = os.fstat(file.fileno()).st_size
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    _check_bytes(str(path), num_bytes)
    return content


def read_archive(path: Path, beside: str | None = None) -> Iterator[tuple[str, bytes]]:
    """The name and the content of every image of a zip archive, in the order of their names.

    Args:
        path: Path of the archive.
        beside: Name of files that are no images and belong there; others are logged.

    Raises:
        ValueError: if it is damaged, or its members would take more than they may when unpacked; names the member.
    """
    # As of images: zipfile's parsing of a damaged archive raises struct.error, EOFError, NotImplementedError, ...
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(open_regular(path))))
        except Exception as error:
            raise ValueError(f"{path} is damaged or not a zip archive: {error}") from error
        members = {member.filename: member for member in archive.infolist() if not member.is_dir()}
        images = image_names(str(path), [name for name in members if name.rpartition("/")[2] != beside])
        total = sum(members[name].file_size for name in images)
        if total > MAX_ARCHIVE_BYTES:
            raise ValueError(f"{path} has {total:,} bytes of images, expected at most {MAX_ARCHIVE_BYTES:,}")
        for name in images:
            _check_bytes(f"{path}:{name}", members[name].file_size)
            try:
                with archive.open(members[name]) as opened:
                    # Asked for a number of bytes, it unpacks no more, whatever size the member declares.
                    content = opened.read(members[name].file_size + 1)
            except Exception as error:
                raise ValueError(f"{path}:{name} is damaged: {error}") from error
            yield name, content


def _check_bytes(name: str, num_bytes: int) -> None:
    if num_bytes > MAX_FILE_BYTES:
        raise ValueError(f"{name} has {num_bytes:,} bytes, expected an image of at most {MAX_FILE_BYTES:,}")
