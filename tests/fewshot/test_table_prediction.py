"""Predicting rows of tables with a trained run, from Python and by `metarl predict`."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import metarl
from metarl.experiments.cli import main
from metarl.fewshot import learn_task
from metarl.fewshot.data.tables import TableData

TINY = [
    "--training.iterations", "2",
    "--training.updates-per-iteration", "20",
    "--training.meta-batch-size", "2",
    "--training.evaluate-every", "0",
    "--evaluation.num-tasks", "2",
    "--loggers", "csv",
    "--device", "cpu",
    "--data.file", "birds.csv",
    "--data.episodes.num-ways", "2",
    "--data.episodes.train-ways", "3",
    "--data.episodes.num-shots", "2",
    "--data.episodes.num-queries", "3",
]  # fmt: skip
COLUMNS = ("mass", "wing", "song")
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(16, 3)) * (30, 3, 0.3) + (100, 5, 0)
"""Sixteen classes whose features have very different spreads."""


def _rows(classes: range, number: int) -> list[list[object]]:
    birds = [c for c in classes for _ in range(number)]
    return [[f"bird{c:02}", *(CENTRES[c] + RNG.normal(size=3) * (1, 0.1, 0.01))] for c in birds]


def _write(path: Path, rows: list[list[object]], header: list[str] | None = None) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header or ["label", *COLUMNS], *rows])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was trained on twelve classes, and tables of four others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("tables"))
        _write(folder / "birds.csv", _rows(range(12), 8))
        assert main(["train", "table-protonet", *TINY, "--out", "run"]) == 0
    _write(folder / "known.csv", _rows(range(12, 16), 3))
    queries = _rows(range(12, 16), 2)
    _write(folder / "new.csv", queries)
    _write(folder / "unlabelled.csv", [row[1:] for row in queries], list(COLUMNS))
    shuffled: list[list[object]] = [[row[3], row[1], row[0], row[2]] for row in queries]
    _write(folder / "shuffled.csv", shuffled, ["song", "mass", "label", "wing"])
    np.save(folder / "new.npy", np.array([row[1:] for row in queries], dtype=np.float64))
    known = list(csv.reader((folder / "known.csv").read_text().splitlines()))[1:]
    inputs, targets = np.array([row[1:] for row in known], dtype=np.float32), np.array([row[0] for row in known])
    np.savez(folder / "known.npz", inputs=inputs, targets=targets)
    return folder


@pytest.fixture
def at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, to work in."""
    monkeypatch.chdir(folder)
    return folder


def test_rows_are_predicted_as_the_learner_does_on_features_of_training(at: Path) -> None:
    run = metarl.open_run("run")
    data = run.experiment.data
    assert isinstance(data, TableData)
    train = data.read(torch.device("cpu"))[0].examples
    assert train.mean(0).abs().max() < 1e-4  # standardised, by classes that neither table has
    support, known = data.read_new(at / "known.csv", labelled=True)
    new = data.read_new(at / "new.csv", labelled=False)[1]
    both = (np.genfromtxt(at / name, delimiter=",", skip_header=1) for name in ("known.csv", "birds.csv"))
    raw, table = (each[:, 1:] for each in both)
    names = [row[0] for row in csv.reader((at / "birds.csv").read_text().splitlines())][1:]
    of_training = np.array([name in data.read(torch.device("cpu"))[0].names for name in names])
    mean, spread = table[of_training].mean(0), table[of_training].std(0)
    assert np.allclose(known.numpy(), (raw - mean) / spread, atol=1e-3)
    assert support.labels is not None
    targets = torch.tensor([int(name[-2:]) - 12 for name in support.labels])
    expected = learn_task(run.agent(), known, targets)(new).softmax(-1)
    predictions = run.predict("known.csv", "new.csv")
    assert [each.file for each in predictions] == [f"row {n}" for n in range(8)]
    assert [each.true_label for each in predictions] == [f"bird{c}" for c in range(12, 16) for _ in range(2)]
    for prediction, row in zip(predictions, expected, strict=True):
        assert list(prediction.probabilities) == ["bird12", "bird13", "bird14", "bird15"]
        assert list(prediction.probabilities.values()) == pytest.approx(row.tolist(), abs=1e-4)
    assert all(each.label == each.true_label for each in predictions)


@pytest.mark.parametrize("support", ["known.csv", "known.npz"])
@pytest.mark.parametrize("query", ["unlabelled.csv", "shuffled.csv", "new.npy"])
def test_tables_of_every_form_give_the_same_predictions(support: str, query: str, at: Path) -> None:
    run = metarl.open_run("run")
    expected = run.predict("known.csv", "new.csv")
    for prediction, right in zip(run.predict(support, query), expected, strict=True):
        assert prediction.label == right.label
        assert prediction.probabilities == pytest.approx(right.probabilities, abs=1e-4)


def test_the_command_shows_and_writes_rows(at: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "p.json"), "--csv", str(tmp_path / "p.csv")]
    assert main(["predict", "run", "--support", "known.csv", "--query", "new.csv", *files]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "8 rows, 4 classes" in shown
    assert "8 of 8 right" in shown
    result = json.loads((tmp_path / "p.json").read_text())
    assert result["num_right"] == 8
    assert result["predictions"][2]["file"] == "row 2"
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == [each["label"] for each in result["predictions"]]
    assert sum(float(rows[0][f"probability of bird{c}"]) for c in range(12, 16)) == pytest.approx(1, abs=1e-4)
    assert main(["predict", "run", "--support", "known.csv", "--query", "unlabelled.csv"]) == 0
    assert "right" not in capsys.readouterr().out
    assert main(["compare", "run", "run"]) == 2
    assert "expected runs of agents; show learners side by side with `metarl report" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("support", "query", "message"),
    [
        ("unlabelled.csv", "new.csv", "expected a column 'label' beside columns of numbers"),
        ("known.csv", "gone.csv", "no table gone.csv"),
        ("known.csv", "run", "run is a folder, and run was trained on table; expected a table"),
        ("known.csv", "narrow.csv", "narrow.csv: expected the columns 'mass, wing, song'; it lacks 'song'"),
        ("known.csv", "wide.csv", "it has 'beak' too"),
        ("known.csv", "narrow.npy", "narrow.npy: expected inputs of shape ('row', 3), got ('row', 2)"),
        ("new.npy", "new.csv", "expected a table ending in .csv, .parquet, .npz, got new.npy"),
        ("one.csv", "new.csv", "one.csv must have rows of two classes or more, got one, 'bird12'"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(
    support: str, query: str, message: str, at: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(at / "narrow.csv", [[1, 2]], ["mass", "wing"])
    _write(at / "wide.csv", [[1, 2, 3, 4]], [*COLUMNS, "beak"])
    _write(at / "one.csv", _rows(range(12, 13), 3))
    np.save(at / "narrow.npy", np.zeros((2, 2)))
    assert main(["predict", "run", "--support", support, "--query", query]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
