"""Images with their classes from rows of a data set, in every form that rows have."""

import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.fewshot.data.rows import read_rows


def _pixels(value: int) -> np.ndarray:
    return np.full((4, 6, 3), value, dtype=np.uint8)


def _png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(_pixels(value)).save(file, "PNG")
    return file.getvalue()


def test_images_come_in_every_form_and_lie_class_by_class() -> None:
    rows = [
        {"image": Image.fromarray(_pixels(10)), "label": 3},
        {"image": _pixels(20), "label": np.int64(1)},
        {"image": _png(30), "label": 3},
        {"image": {"bytes": _png(40), "path": None}, "label": 1},
    ]
    data = read_rows(rows, size=4)
    assert data.names == ("1", "3")
    assert data.examples[:, 0, 0, 0].tolist() == [20, 40, 10, 30]
    assert data.examples.shape == (4, 3, 4, 4)
    grey = read_rows(rows, size=4, colour=False, invert=True, crop=True)
    assert grey.examples[:, 0, 0, 0].tolist() == [235, 215, 245, 225]


def test_rows_of_a_web_dataset_hold_bytes() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"__key__": "a", "png": _png(5), "cls": b"7"}
        yield {"__key__": "b", "png": _png(6), "cls": b"8\n"}

    assert read_rows(rows(), image="png", label="cls", size=4).names == ("7", "8")


class _Named(list[dict[str, Any]]):
    """Rows with the names of their classes, where datasets have them."""

    features: ClassVar[dict[str, Any]] = {"label": SimpleNamespace(names=["crow", "gull"]), "image": object()}


def test_classes_have_the_names_of_the_data_set() -> None:
    rows = _Named([{"image": _pixels(1), "label": 1}, {"image": _pixels(2), "label": 0}])
    assert read_rows(rows, size=4).names == ("crow", "gull")
    assert read_rows(rows, size=4, names=["a", "b"]).names == ("a", "b")
    rows.append({"image": _pixels(1), "label": 2})
    with pytest.raises(ValueError, match="row 2: expected a label below 2, the number of names, got 2"):
        read_rows(rows, size=4)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"img": _pixels(1), "label": 0}, "row 0 has no 'image'; its keys: 'img, label'"),
        ({"image": _pixels(1), "label": 0.5}, "row 0: expected a label that is a whole number or text, got 0.5"),
        ({"image": _pixels(1), "label": True}, "row 0: expected a label that is a whole number or text, got True"),
        ({"image": _pixels(1) / 255, "label": 0}, "row 0: expected an image, bytes of a file"),
        ({"image": None, "label": 0}, "row 0: expected an image, bytes of a file"),
        ({"image": b"no image", "label": 0}, "row 0 is damaged or not an image"),
    ],
)
def test_a_bad_row_is_one_line(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        read_rows([row])
    assert "\n" not in str(raised.value)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="expected rows with images, got none"):
        read_rows([])


def test_transparent_and_grey_images_are_read_as_files_are() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    rows = [{"image": clear, "label": "x"}, {"image": np.full((4, 4), 9, dtype=np.uint8), "label": "x"}]
    assert read_rows(rows, size=4).examples[:, 0, 0, 0].tolist() == [255, 9]
    assert read_rows(rows, size=4).examples.dtype == torch.uint8
