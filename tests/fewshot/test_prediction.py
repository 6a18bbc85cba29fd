"""Predicting images of a folder with a trained run: from Python and by `metarl predict`."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import metarl
from metarl.experiments.cli import main
from metarl.experiments.fewshot.run import FewshotRun
from metarl.fewshot import learn_task
from metarl.fewshot.data.omniglot import OmniglotData
from metarl.fewshot.episodes import Examples, as_inputs
from metarl.fewshot.prediction import class_outputs, read_queries, read_support
from tests.fewshot.conftest import draw_character

pytestmark = pytest.mark.thorough

NAMES = ("bat", "crow", "eel")
_SMALL = [
    *("--training.iterations", "1", "--training.updates-per-iteration", "1", "--training.evaluate-every", "0"),
    *("--training.meta-batch-size", "1", "--evaluation.num-tasks", "2", "--backbone.num-filters", "4"),
    *("--data.episodes.num-ways", "3", "--data.episodes.num-queries", "2", "--data.episodes.train-queries", "2"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, omniglot_archive: Path) -> dict[str, Path]:
    """Run folders of a learner that compares, one that adapts, and one on numbers."""
    top = tmp_path_factory.mktemp("runs")
    data = ["--data.folder", str(omniglot_archive), *_SMALL]
    words = {
        "protonet": ["omniglot-protonet", *data, "--data.episodes.train-ways", "3"],
        "maml": ["omniglot-maml", *data, "--evaluation.num-steps", "2"],
        "sinusoid": ["sinusoid-kernel-regression", *_SMALL[:8], "--evaluation.num-tasks", "2"],
    }
    for name, line in words.items():
        assert main(["train", *line, "--out", str(top / name)]) == 0
    return {name: top / name for name in words}


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of support and query images; a query is a support image of its class, larger."""
    for seed, name in enumerate(NAMES):
        for example in range(2):
            content = draw_character(seed, example)
            path = tmp_path / "support" / name / f"{example}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        larger = io.BytesIO()
        Image.open(io.BytesIO(content)).convert("L").resize((210, 210), Image.Resampling.NEAREST).save(
            larger, "PNG"
        )
        query = tmp_path / "query" / name / "new.png"
        query.parent.mkdir(parents=True)
        query.write_bytes(larger.getvalue())
    return tmp_path / "support", tmp_path / "query"


def _opened(folder: Path) -> FewshotRun:
    run = metarl.open_run(folder)
    assert isinstance(run, FewshotRun)
    return run


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_a_run_predicts_as_its_learner_does_on_tensors(
    runs: dict[str, Path], images: tuple[Path, Path], name: str
) -> None:
    run = _opened(runs[name])
    predictions = run.predict(*images)
    data = run.experiment.data
    assert isinstance(data, OmniglotData)
    support, queries = read_support(images[0], data.decode), read_queries(images[1], data.decode)[1]
    assert float(queries.float().mean()) < 128  # ink is 255 and paper 0, as in training
    targets = torch.tensor([0, 0, 1, 1, 2, 2])
    predict = learn_task(run.agent(), as_inputs(support.examples), targets, num_steps=2)
    expected = predict(as_inputs(queries)).softmax(-1)
    for prediction, row in zip(predictions, expected, strict=True):
        assert list(prediction.probabilities) == list(NAMES)
        assert list(prediction.probabilities.values()) == pytest.approx(row.tolist(), abs=1e-4)
        assert prediction.probabilities[prediction.label] == max(prediction.probabilities.values())
        assert sum(prediction.probabilities.values()) == pytest.approx(1)
    if name == "protonet":  # images of a class are nearly the same drawing
        assert [prediction.label for prediction in predictions] == list(NAMES)
    assert [prediction.file for prediction in predictions] == [f"{each}/new.png" for each in NAMES]


def test_queries_in_pieces_are_predicted_alike(runs: dict[str, Path], images: tuple[Path, Path]) -> None:
    run = _opened(runs["protonet"])
    data = run.experiment.data
    assert isinstance(data, OmniglotData)
    support, queries = read_support(images[0], data.decode), read_queries(images[1], data.decode)[1]
    examples = Examples.of_one_task(support.examples, torch.tensor([0, 0, 1, 1, 2, 2]))
    whole, pieces = (
        class_outputs(run.agent(), examples, queries, views=1, num_steps=0, at_once=size) for size in (500, 3)
    )
    assert torch.allclose(whole, pieces, atol=1e-4)


def test_the_command_shows_and_writes_predictions(
    runs: dict[str, Path],
    images: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ["--support", str(images[0]), "--query", str(images[1])]
    files = ["--json", str(tmp_path / "p.json"), "--csv", str(tmp_path / "p.csv")]
    capsys.readouterr()
    assert main(["predict", str(runs["protonet"]), *words, *files]) == 0
    shown = capsys.readouterr().out
    assert "3 images, 3 classes; batch norm: running; 3 of 3 right" in shown
    assert max(map(len, shown.splitlines()[:-2])) <= 80
    result = json.loads((tmp_path / "p.json").read_text())
    assert result["classes"] == list(NAMES)
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    for row, prediction in zip(rows, result["predictions"], strict=True):
        assert row["label"] == prediction["label"]
        assert float(row["probability of eel"]) == pytest.approx(prediction["probabilities"]["eel"], rel=1e-4)
    for path in (images[1] / "crow").iterdir():  # an image in a folder of no class says nothing of what is right
        path.rename(images[1] / path.name)
    assert main(["predict", str(runs["protonet"]), *words]) == 0
    assert " right" not in capsys.readouterr().out


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("run", "damage", "expected"),
    [
        ("protonet", "one class", "must hold a folder of images for each of two classes or more, got one, 'bat'"),
        ("protonet", "empty class", "class 'crow' has no images in"),
        ("protonet", "unreadable", "0.png is damaged or not an image of"),
        ("protonet", "loose image", "holds the image 'loose.png', which is of no class"),
        ("protonet", "no queries", "has no images; expected .png"),
        ("protonet", "no folder", "no folder"),
        ("maml", "two classes", "expected as many classes as the learner has outputs, 3, got 2"),
        ("maml", "views", "views must be 1 for Maml, got 2"),
        (
            "sinusoid",
            "nothing",
            "was trained on sinusoids, tasks of regression; expected a run on classes",
        ),
    ],
)
def test_what_cannot_be_predicted_is_one_line(
    *,
    runs: dict[str, Path],
    images: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    run: str,
    damage: str,
    expected: str,
) -> None:
    support, query = images
    words = ["--views", "2"] if damage == "views" else []
    for name in {"one class": ("crow", "eel"), "two classes": ("eel",)}.get(damage, ()):
        _remove(support / name)
        (support / name).rmdir()
    if damage == "empty class":
        _remove(support / "crow")
    elif damage == "unreadable":
        (support / "crow" / "0.png").write_bytes(b"no image")
    elif damage == "loose image":
        (support / "loose.png").write_bytes(draw_character(0, 0))
    elif damage == "no queries":
        for name in NAMES:
            _remove(query / name)
    elif damage == "no folder":
        query = query / "none"
    capsys.readouterr()
    assert main(["predict", str(runs[run]), "--support", str(support), "--query", str(query), *words]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
