"""A small Omniglot of our own drawing, and learners small enough to differentiate by hand."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

ALPHABETS = {
    "Balinese": 3,
    "Early_Aramaic": 3,
    "Greek": 3,
    "Japanese_(katakana)": 2,
    "Korean": 2,
    "Latin": 5,
    "Sanskrit": 4,
    "Tagalog": 3,
}


def write_file(folder: Path, stem: str, text: str) -> str:
    """Write a user's file; its name, which no other test has loaded."""
    name = f"{stem}_{folder.name.replace('-', '_')}.py"
    (folder / name).write_text(text)
    return name


def draw_character(seed: int, example: int) -> bytes:
    """A PNG as Omniglot's: 105 x 105, one bit per pixel, ink 0; the same strokes, slightly moved each time."""
    rng, jitter = np.random.default_rng(seed), np.random.default_rng([seed, example])
    points = rng.integers(10, 95, (5, 2)) + jitter.integers(-4, 5, (5, 2))
    image = Image.new("1", (105, 105), 1)
    ImageDraw.Draw(image).line([tuple(int(x) for x in p) for p in points], fill=0, width=3)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def character_files(num_examples: int = 4) -> dict[str, bytes]:
    """Path below images_background and content of every image of the small Omniglot."""
    files, seed = {}, 0
    for alphabet, num_characters in ALPHABETS.items():
        for character in range(1, num_characters + 1):
            seed += 1
            for example in range(1, num_examples + 1):
                name = f"{alphabet}/character{character:02}/{seed:04}_{example:02}.png"
                files[name] = draw_character(seed, example)
    return files


@pytest.fixture(scope="session")
def omniglot_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the small Omniglot as the original's archive."""
    folder = tmp_path_factory.mktemp("omniglot")
    with zipfile.ZipFile(folder / "images_background_small1.zip", "w") as archive:
        for name, content in character_files().items():
            archive.writestr(f"images_background_small1/{name}", content)
    return folder


@pytest.fixture(scope="session")
def omniglot_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the small Omniglot in torchvision's layout."""
    folder = tmp_path_factory.mktemp("torchvision")
    for name, content in character_files().items():
        path = folder / "omniglot-py" / "images_background" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
