"""The final evaluation in loggers: means as numbers, curves as figures."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from metarl.experiments import loggers as module
from metarl.experiments.comparison.figures import can_draw
from metarl.experiments.loggers import log_evaluation
from metarl.runs.loggers import Logger, TensorBoardLogger

pytestmark = pytest.mark.usefixtures("drawing")
RESULT: dict[str, Any] = {
    "num_tasks": 3,
    "adaptation": [
        {"step": 0, "return_mean": -2.0, "return_ci95": [-3.0, -1.0], "success_mean": 0.0},
        {"step": 1, "return_mean": 5.0, "return_ci95": [4.0, 6.0], "success_mean": 1.0},
    ],
}


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves are drawn, as they are where matplotlib is installed."""
    monkeypatch.setattr(module, "can_draw", can_draw)


class _Keeping(Logger):
    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.figures: dict[str, tuple[int, int]] = {}

    def evaluation(self, position: int, metrics: Any) -> None:
        self.metrics = dict(metrics)

    def figure(self, position: int, name: str, png: bytes, size: tuple[int, int]) -> None:
        assert Image.open(io.BytesIO(png)).size == (size[1], size[0])
        assert position == 7
        self.figures[name] = size


def test_every_measure_of_an_evaluation_is_a_number_and_a_figure() -> None:
    keeping = _Keeping()
    log_evaluation([keeping], 7, RESULT)
    assert keeping.metrics["evaluation/return_after_1"] == 5.0
    assert keeping.metrics["evaluation/success_after_0"] == 0.0
    assert set(keeping.figures) == {"evaluation/return", "evaluation/success"}


def test_without_matplotlib_there_are_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "can_draw", lambda: False)
    keeping = _Keeping()
    log_evaluation([keeping], 7, RESULT)
    assert keeping.metrics
    assert keeping.figures == {}


@pytest.mark.thorough
def test_tensorboard_shows_the_figures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_evaluation([TensorBoardLogger(tmp_path)], 7, RESULT)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (image,) = events.Images("evaluation/return")
    assert image.step == 7
    assert Image.open(io.BytesIO(image.encoded_image_string)).format == "PNG"
