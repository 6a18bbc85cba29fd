"""Untidy, damaged and hostile image files: the right pixels, or one line that names the file."""

import io
import json
import logging
import os
import struct
import subprocess
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from metarl.fewshot.data import decoding
from metarl.fewshot.data.decoding import decode_image, image_names, read_archive, read_image_file
from metarl.fewshot.data.division import read_split
from metarl.fewshot.data.images import read_class_folders
from metarl.fewshot.data.omniglot import read_omniglot


def _encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _decoded(content: bytes, size: int, *, colour: bool = False) -> Tensor:
    return decode_image(content, "0.png", size, colour=colour)


def _flat(colour: tuple[int, ...] | int, mode: str = "RGB", side: int = 8) -> Image.Image:
    return Image.new(mode, (side, side), colour)


@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 0), ("BMP", 0), ("GIF", 0), ("JPEG", 3), ("WEBP", 3)])
def test_documented_formats_are_read_whatever_a_file_is_called(kind: str, tolerance: int) -> None:
    pixels = _decoded(_encoded(_flat((200, 100, 50)), kind), 8, colour=True)
    assert pixels.shape == (3, 8, 8)
    assert (pixels[:, 4, 4].int() - torch.tensor([200, 100, 50])).abs().max() <= tolerance


def test_formats_that_are_not_documented_are_refused_and_start_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object, **options: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    assert Image.open(io.BytesIO(postscript)).format == "EPS"  # Pillow would hand it to Ghostscript
    for content in (postscript, _encoded(_flat((1, 2, 3)), "TIFF"), _encoded(_flat((1, 2, 3)), "PPM"), b"", b"x"):
        with pytest.raises(ValueError, match=r"^0\.png is damaged or not an image of PNG, JPEG, BMP, GIF, WEBP$"):
            _decoded(content, 8)


@pytest.mark.parametrize("colour", [False, True])
def test_16_bit_greys_are_scaled_to_8_bits(colour: bool) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    content = _encoded(Image.fromarray(ramp))
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode.startswith("I")
    pixels = _decoded(content, 256, colour=colour)
    quarters = pixels.flatten(1)[:, [0, 16384, 32768, 49152, 65535]]
    assert quarters.unique(dim=0).tolist() == [[0, 64, 128, 191, 255]]


def test_transparency_is_laid_on_white() -> None:
    clear, half = _flat((0, 0, 0, 0), "RGBA"), _flat((0, 0, 0, 128), "RGBA")
    for image, expected in ((clear, 255), (half, 127), (_flat((0, 0), "LA"), 255)):
        for colour in (False, True):
            assert _decoded(_encoded(image), 8, colour=colour).unique().tolist() == [expected]
    palette = _flat(0, "P")
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((0, 0), 1)
    pixels = _decoded(_encoded(palette, transparency=0), 8, colour=True)
    assert pixels[:, 0, 0].tolist() == [10, 20, 30]
    assert pixels[:, 1:].unique().tolist() == [255]
    deep = Image.fromarray(np.full((8, 8), 7, dtype=np.uint16))
    assert _decoded(_encoded(deep, transparency=7), 8).unique().tolist() == [255]
    assert _decoded(_encoded(deep), 8).unique().tolist() == [0]


def test_the_orientation_of_a_photograph_is_applied() -> None:
    image = _flat((0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 8, 4))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    pixels = _decoded(_encoded(image, exif=exif), 8)[0]
    assert pixels[:, 4:].unique().tolist() == [255]  # now the right half is
    assert pixels[:, :4].unique().tolist() == [0]


def _png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header declares a size that its data do not have."""
    content = bytearray(_encoded(_flat(0, "L")))
    content[16:24] = struct.pack(">II", width, height)
    header = bytes(content[12:29])
    content[29:33] = struct.pack(">I", zipfile.crc32(header))
    return bytes(content)


@pytest.mark.parametrize("size", [(8000, 8000), (10_000, 10_000), (60_000, 60_000)])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"^0\.png has .* pixels.*; shrink it first$"):
        _decoded(_png_of_size(*size), 8)
    with pytest.raises(ValueError, match=r"0\.png is damaged"):  # the same header of a size that is allowed
        _decoded(_png_of_size(100, 100), 8)


def _complaint(read: Callable[[], object]) -> str | None:
    """The message of the error that reading ends in, or None."""
    try:
        read()
    except ValueError as error:
        return str(error)
    return None


def test_a_damaged_image_is_one_line_whatever_byte_is_wrong() -> None:
    rng, refused = np.random.default_rng(0), 0
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        content = _encoded(_flat((200, 100, 50)), kind)
        for _ in range(60):
            changed = bytearray(content)
            for place in rng.integers(0, len(changed), 3):
                changed[place] = rng.integers(0, 256)
            cut = bytes(changed[: rng.integers(1, len(changed) + 1)])
            line = _complaint(lambda cut=cut: _decoded(cut, 8))  # type: ignore[misc]
            refused += line is not None
            assert line is None or (line.startswith("0.png ") and "\n" not in line)
    assert 100 < refused < 300


def _archive(path: Path, **options: object) -> Path:
    with zipfile.ZipFile(path / "images_background_small1.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/Greek/character01/0.png", _encoded(_flat(0, "L")) + bytes(10_000))
        archive.writestr("images/Greek/character01/1.png", _encoded(_flat(0, "L")) + bytes(20_000))
        archive.writestr("images/readme.txt", b"about the images")
        archive.writestr("__MACOSX/images/Greek/character01/._0.png", b"nothing")
    return path / "images_background_small1.zip"


def test_a_zip_bomb_is_refused_by_its_declared_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _archive(tmp_path)
    assert path.stat().st_size < 2000
    assert [name[-5:] for name, _ in read_archive(path)] == ["0.png", "1.png"]
    monkeypatch.setattr(decoding, "MAX_FILE_BYTES", 15_000)
    with pytest.raises(
        ValueError, match=r"zip:images/Greek/character01/1\.png has 20,\d+ bytes, expected an image"
    ):
        read_omniglot(tmp_path)
    monkeypatch.setattr(decoding, "MAX_FILE_BYTES", 100_000)
    monkeypatch.setattr(decoding, "MAX_ARCHIVE_BYTES", 25_000)
    with pytest.raises(ValueError, match=r"small1\.zip has 30,\d+ bytes of images, expected at most 25,000"):
        read_omniglot(tmp_path)


def test_a_member_that_is_larger_than_it_declares_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(20_000_000))
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 20_000_000), struct.pack("<I", 10)))
    assert path.read_bytes() != content
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.zip:0\.png is damaged"):
        list(read_archive(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_damaged_archive_is_one_line_whatever_byte_is_wrong(tmp_path: Path) -> None:
    content, rng, refused = _archive(tmp_path).read_bytes(), np.random.default_rng(0), 0
    path = tmp_path / "changed.zip"
    for _ in range(100):
        changed = bytearray(content)
        for place in rng.integers(0, len(changed), 3):
            changed[place] = rng.integers(0, 256)
        path.write_bytes(changed)
        line = _complaint(lambda: list(read_archive(path)))
        refused += line is not None
        assert line is None or (line.startswith(str(path)) and "\n" not in line)
    assert 50 < refused < 100


def test_skipped_files_are_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        names = image_names("x.zip", ["b/1.PNG", "./b/0.jpg", "b/.1.png", "b/2.tif", "__MACOSX/b/3.png", "notes"])
    assert names == ["./b/0.jpg", "b/1.PNG"]
    assert "x.zip: skipped 4 of 6 files" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert image_names("x.zip", ["1.png"]) == ["1.png"]
        assert not caplog.text
        list(read_archive(_archive(tmp_path)))
        assert "small1.zip: skipped 2 of 4 files" in caplog.text


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(ValueError, match=r"0\.png: it is not a regular file"):
        read_image_file(tmp_path / "0.png")
    with pytest.raises(ValueError, match=r"cannot read .*1\.png: No such file"):
        read_image_file(tmp_path / "1.png")


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Two classes of one image each, and a split file for them."""
    for name in ("crow", "gull"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "0.png").write_bytes(_encoded(_flat(0, "L")))
    (tmp_path / "split.json").write_text(json.dumps({"train": ["crow"], "test": ["gull"]}))
    return tmp_path


def test_an_unreadable_image_of_a_class_is_named(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_class_folders(birds / "images", birds / "split.json", size=8)
    monkeypatch.setattr(decoding, "MAX_FILE_BYTES", 10)
    with pytest.raises(ValueError, match=r"crow.0\.png has \d+ bytes, expected an image of at most 10"):
        read_class_folders(birds / "images", birds / "split.json", size=8)


@pytest.mark.parametrize("name", ["crow/", "./crow", "../images/crow", "/crow", "a//b", "", ".", "..", "a\\b"])
def test_a_class_has_one_name_and_lies_in_the_folder(birds: Path, name: str) -> None:
    (birds / "split.json").write_text(json.dumps({"train": ["crow", name], "test": ["gull"]}))
    with pytest.raises(ValueError, match=r"split\.json: a class is named like its folder below"):
        read_class_folders(birds / "images", birds / "split.json")


def test_two_names_of_one_folder_are_refused(birds: Path) -> None:
    (birds / "images" / "raven").symlink_to(birds / "images" / "crow")
    (birds / "split.json").write_text(json.dumps({"train": ["crow"], "test": ["raven"]}))
    with pytest.raises(ValueError, match="the classes 'crow' and 'raven' are the same folder"):
        read_class_folders(birds / "images", birds / "split.json")


@pytest.mark.parametrize(("train", "test", "where"), [(["a"], ["a"], "test"), (["a", "a"], ["b"], "train")])
def test_a_class_stands_in_one_split_once(tmp_path: Path, train: list[str], test: list[str], where: str) -> None:
    (tmp_path / "split.json").write_text(json.dumps({"train": train, "test": test}))
    with pytest.raises(ValueError, match=f"names the class 'a' twice, in train and in {where}"):
        read_split(tmp_path / "split.json")


@pytest.mark.parametrize("name", ["\0", "x" * 5000, "nowhere"])
def test_a_class_that_cannot_be_a_folder_is_named(birds: Path, name: str) -> None:
    (birds / "split.json").write_text(json.dumps({"train": ["crow", name], "test": ["gull"]}))
    with pytest.raises(ValueError, match="which is not a folder in"):
        read_class_folders(birds / "images", birds / "split.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"train": ' + "[" * 100_000, "nested too deeply"),
        ('{"train": ["a"], "train": ["b"], "test": ["c"]}', "a key stands twice"),
        ("1" * 5000, "numbers must be finite"),
        ('{"train": [1], "test": ["a"]}', "expected"),
        ("\ud800".encode("utf-8", "surrogatepass"), "not text in UTF-8"),
    ],
)
def test_an_absurd_split_file_is_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError, match=message) as raised:
        read_split(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 500
