"""Images divided into training, validation and test classes by files, by folders and at random; and caches."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.fewshot.data import images as images_module
from metarl.fewshot.data.division import divide, read_split
from metarl.fewshot.data.images import ClassFolderData, read_class_folders
from metarl.fewshot.sources import on_examples_read

CLASSES = ("crow", "finch", "gull", "wren")


def _draw(path: Path, value: int, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Four classes of two images each, whose pixels are ten times the class's place, and one more."""
    for place, name in enumerate(CLASSES):
        for number in range(2):
            _draw(tmp_path / "images" / name / f"{number}.png", 10 * place + number)
    return tmp_path


def test_tables_of_files_divide_classes_as_those_of_mini_imagenet(birds: Path) -> None:
    rows = {"train": [("1.png", "wren"), ("0.png", "crow"), ("0.png", "wren")], "val": [("gull/0.png", "gull")]}
    for name, pairs in rows.items():
        text = "filename,label\n" + "".join(f"{file},{label}\n" for file, label in pairs)
        (birds / f"{name}.csv").write_text(text + "\n")  # a blank line is no row
    splits = read_class_folders(birds / "images", birds, size=4, colour=False)
    assert splits.train.names == ("wren", "crow")
    assert splits.train.examples[:, 0, 0, 0].tolist() == [31, 30, 0]
    assert splits.validation.names == ("gull",)
    assert splits.test.names == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\na,b\n", 'expected rows "filename,label"'),
        ("filename,label\n0.png\n", "line 2: expected rows"),
        ("filename,label\n", "has no rows"),
        ("filename,label\n9.png,wren\n", r"lists 9\.png, which is neither in .*images nor in"),
        ("filename,label\n../0.png,crow\n", "a class is named like its folder"),
        ("filename,label\n0.png,gull\n0.png,crow\n", "the class 'crow' stands in train too"),
    ],
)
def test_a_bad_table_of_files_is_one_line(birds: Path, text: str, message: str) -> None:
    (birds / "train.csv").write_text("filename,label\n0.png,crow\n")
    (birds / "test.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        read_class_folders(birds / "images", birds, size=4)
    assert "\n" not in str(raised.value)


def test_tables_without_training_classes_are_refused(birds: Path) -> None:
    with pytest.raises(ValueError, match=r"no train\.csv in"):
        read_class_folders(birds / "images", birds)


def test_folders_of_the_splits_divide_classes(tmp_path: Path) -> None:
    for split, name in (("train", "crow"), ("train", "small/wren"), ("val", "gull")):
        _draw(tmp_path / split / name / "0.png", 1)
    splits = read_class_folders(tmp_path, size=4)
    assert [part.names for part in splits] == [("crow", "small/wren"), ("gull",), ()]
    _draw(tmp_path / "val" / "crow" / "0.png", 1)
    with pytest.raises(ValueError, match="the class 'crow' is in train and in validation"):
        read_class_folders(tmp_path, size=4)


def test_classes_are_divided_at_random_by_shares(birds: Path) -> None:
    one = read_class_folders(birds / "images", size=4, shares=(0.5, 0.25, 0.25), split_seed=3)
    assert [len(part.names) for part in one] == [2, 1, 1]
    assert {name for part in one for name in part.names} == set(CLASSES)
    again = read_class_folders(birds / "images", size=4, shares=(0.5, 0.25, 0.25), split_seed=3)
    assert [part.names for part in one] == [part.names for part in again]
    names = [str(number) for number in range(100)]
    divisions = [divide(names, (0.64, 0.16, 0.2), seed) for seed in range(2)]
    assert [len(part) for part in divisions[0].values()] == [64, 16, 20]
    assert divisions[0] != divisions[1]


def test_data_divide_their_classes_and_refuse_other_shares(birds: Path) -> None:
    data = ClassFolderData(str(birds / "images"), size=4, split_file=None, shares=(0.5, 0.0, 0.5))
    assert [len(part.names) for part in data.read(torch.device("cpu"))[1]] == [2, 0, 2]
    with pytest.raises(ValueError, match=r"add up to 1, got \[0.5, 0.2, 0.2\]"):
        ClassFolderData(shares=(0.5, 0.2, 0.2))


def test_validation_has_a_short_name_and_test_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    assert read_split(tmp_path / "split.json") == {"train": ["a"], "validation": ["b"], "test": []}
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "valid": ["b"], "tests": []}))
    with pytest.raises(ValueError, match="got the key 'tests'"):
        read_split(tmp_path / "split.json")


def test_images_are_squashed_or_their_middle_is_cut_out(tmp_path: Path) -> None:
    wide = np.zeros((4, 12), dtype=np.uint8)
    wide[:, 4:8] = 200  # the middle square
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(wide).save(tmp_path / "train" / "a" / "0.png")
    cropped = read_class_folders(tmp_path, size=4, colour=False, crop=True).train.examples
    squashed = read_class_folders(tmp_path, size=4, colour=False).train.examples
    assert (cropped == 200).all()
    assert squashed.min() < 50
    inverted = ClassFolderData(str(tmp_path), size=4, split_file=None, colour=False, crop=True, invert=True)
    assert (inverted.read(torch.device("cpu"))[0].examples == 55).all()
    content = (tmp_path / "train" / "a" / "0.png").read_bytes()
    assert (inverted.decode(content, "0.png") == 55).all()  # as images to predict are decoded


def test_decoded_images_are_read_from_a_file_that_is_made_once(
    birds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> torch.Tensor:
        splits = read_class_folders(birds / "images", size=4, shares=(1, 0, 0), cache=birds / "cache")
        return splits.train.examples

    first = read().clone()
    assert len(list((birds / "cache").iterdir())) == 1
    monkeypatch.setattr(images_module, "decode_image", None)  # not called again
    assert torch.equal(read(), first)
    monkeypatch.undo()
    _draw(birds / "images" / "crow" / "0.png", 77, (5, 4))
    assert read()[0].unique().tolist() == [77]  # another file is another array


def test_a_file_that_cannot_be_made_leaves_nothing_behind(birds: Path) -> None:
    (birds / "images" / "crow" / "0.png").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"crow.0\.png is damaged"):
        read_class_folders(birds / "images", size=4, cache=birds / "cache")
    assert not list((birds / "cache").iterdir())
    (birds / "file").touch()
    with pytest.raises(ValueError, match="cannot keep decoded images in"):
        read_class_folders(birds / "images", size=4, cache=birds / "file")


def test_reading_reports_how_far_it_is(birds: Path) -> None:
    reports: list[tuple[int, int]] = []
    token = on_examples_read.set(lambda done, total: reports.append((done, total)))
    try:
        read_class_folders(birds / "images", size=4)
    finally:
        on_examples_read.reset(token)
    assert reports == [(number, 8) for number in range(1, 9)]


_PEAK = """
import resource, sys
from pathlib import Path
from metarl.fewshot.data.images import read_class_folders
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
read_class_folders(Path(sys.argv[1]), size=8)  # what is imported and started on the way
before = peak()
splits = read_class_folders(Path(sys.argv[1]), size=int(sys.argv[2]))
data = sum(part.examples.numel() for part in splits)
print(data, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of the peak of memory differ")
def test_reading_takes_little_more_memory_than_the_images(tmp_path: Path) -> None:
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in range(20):
        for number in range(5):
            _draw(tmp_path / str(name) / f"{number}.png", number)
    out = subprocess.run(
        [sys.executable, "-c", _PEAK, str(tmp_path), "700"], capture_output=True, text=True, check=True
    )
    data, used = map(int, out.stdout.split())
    assert data == 100 * 3 * 700 * 700
    assert used < 1.3 * data
