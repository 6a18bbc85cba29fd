"""Tables of features by class: CSV, Parquet and arrays, their division, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.experiments.cli import main
from metarl.experiments.fewshot.configuration import make_learner
from metarl.experiments.fewshot_settings import fewshot_settings, learners_of
from metarl.fewshot.data.class_tasks import EpisodesConfig
from metarl.fewshot.data.tables import TableData, read_table


def _csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_rows_of_a_csv_come_class_by_class(tmp_path: Path) -> None:
    file = _csv(tmp_path / "t.csv", "a,species,b\n1,wren,2\n3,crow,4\n5,wren,6e1\n")
    data = read_table(file, "species")
    assert data.names == ("crow", "wren")
    assert data.examples.tolist() == [[3, 4], [1, 2], [5, 60]]
    assert data.counts.tolist() == [1, 2]
    _csv(file, "a,species,b\n1,wren,2\n")
    assert read_table(file, "species").names == ("wren",)  # the file as it is now


def test_blank_lines_and_spaces_around_names_are_no_rows_and_no_classes(tmp_path: Path) -> None:
    file = _csv(tmp_path / "t.csv", "a, label, b\n1, wren, 2\n\n3, crow ,4\n5,wren,6\n\n")
    data = read_table(file)
    assert data.names == ("crow", "wren")
    assert data.examples.tolist() == [[3, 4], [1, 2], [5, 6]]


def test_arrays_keep_their_shape_and_bytes_are_fractions(tmp_path: Path) -> None:
    inputs = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    np.savez(tmp_path / "t.npz", inputs=inputs, targets=np.array([7, 5, 7]))
    data = read_table(tmp_path / "t.npz")
    assert data.names == ("5", "7")
    assert torch.equal(data.examples[0] * 255, torch.tensor([[4.0, 5.0], [6.0, 7.0]]))
    np.savez(tmp_path / "t.npz", inputs=inputs.astype(np.int16), targets=np.array(["x", "y", "x"]))
    assert read_table(tmp_path / "t.npz").examples.max() == 11


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {"a": [1.0, 3.0, 5.0], "label": ["wren", "crow", "wren"], "b": [2, 4, 60]}
    parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet")
    of_csv = read_table(_csv(tmp_path / "t.csv", "a,label,b\n1,wren,2\n3,crow,4\n5,wren,60\n"))
    of_parquet = read_table(tmp_path / "t.parquet")
    assert of_parquet.names == of_csv.names
    assert torch.equal(of_parquet.examples, of_csv.examples)
    parquet.write_table(pyarrow.table(table | {"b": ["x", "y", "z"]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="expected numbers in the column 'b'"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "a,b\n1,2\n", "expected a column 'label' beside columns of numbers, got 'a, b'"),
        ("t.csv", "label\nx\n", "expected a column 'label' beside columns of numbers"),
        ("t.csv", "a,label\n1\n", "line 2: expected 2 columns, got 1"),
        ("t.csv", "a,label\n1,x\nz,x\n", "line 3: expected numbers, got \\['z'\\]"),
        ("t.csv", "a,label\nnan,x\n", "expected finite numbers, got others in row 0"),
        ("t.csv", "a,label\n", "has no rows"),
        ("t.xls", "a,label\n", "expected a table ending in .csv, .parquet, .npz"),
        ("t.npz", "a,label\n", "must be an npz file with the arrays inputs and targets"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        read_table(_csv(tmp_path / name, text))
    assert "\n" not in str(raised.value)


def test_a_missing_table_and_unfit_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no table .*none\.csv; expected a CSV, Parquet or npz file"):
        read_table(tmp_path / "none.csv")
    np.savez(tmp_path / "t.npz", inputs=np.zeros((3, 2)), targets=np.zeros(3))
    with pytest.raises(ValueError, match=r"got float64 \(3, 2\) and float64 \(3,\)"):
        read_table(tmp_path / "t.npz")


def _table(path: Path, num_classes: int = 30, num_rows: int = 12) -> Path:
    """Classes of well separated features in units a thousand times larger than the others'."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(num_classes, 6)) * [1000, 1, 1, 1, 1, 1]
    lines = ["label," + ",".join("abcdef")]
    for number, centre in enumerate(centres):
        for row in centre + 0.1 * rng.normal(size=(num_rows, 6)) * [1000, 1, 1, 1, 1, 1]:
            lines.append(f"c{number}," + ",".join(f"{value:.4f}" for value in row))
    return _csv(path, "\n".join(lines) + "\n")


def test_features_are_standardised_by_training_classes(tmp_path: Path) -> None:
    data = TableData(str(_table(tmp_path / "t.csv")))
    train, splits = data.read(torch.device("cpu"))
    assert [len(part.names) for part in splits] == [19, 5, 6]
    assert train.examples.mean(0).abs().max() < 1e-5
    assert (train.examples.std(0, correction=0) - 1).abs().max() < 1e-4
    assert splits.test.examples.mean(0).abs().max() > 0.01
    plain = TableData(data.file, standardised=False).read(torch.device("cpu"))[1]
    assert plain.test.examples[:, 0].std() > 100


def test_tables_are_divided_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(json.dumps({"train": ["c1", "c0"], "test": ["c2"]}))
    data = TableData(str(_table(tmp_path / "t.csv")), split_file=str(tmp_path / "split.json"))
    assert [part.names for part in data.read(torch.device("cpu"))[1]] == [("c1", "c0"), (), ("c2",)]
    (tmp_path / "split.json").write_text(json.dumps({"train": ["c1", "owl"]}))
    with pytest.raises(ValueError, match=r"split\.json: unknown class 'owl'"):
        data.read(torch.device("cpu"))


def test_a_learner_is_trained_on_a_table_and_judged_on_other_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "protonet", "--benchmark", "table", "--data.file", str(_table(tmp_path / "t.csv"))]
    small = ["--data.episodes.num-queries", "5", "--training.iterations", "2", "--evaluation.num-tasks", "50"]
    assert main([*words, *small, "--training.updates-per-iteration", "20", "--out", str(tmp_path / "run")]) == 0
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["adaptation"][-1]["accuracy_mean"] > 0.9
    assert "reading" not in capsys.readouterr().out


@pytest.mark.parametrize("learner", learners_of("table"))
def test_every_learner_that_is_named_takes_a_table(learner: str, tmp_path: Path) -> None:
    experiment = fewshot_settings(learner, "table")[1]
    assert isinstance(experiment.data, TableData)
    data = replace(experiment.data, file=str(_table(tmp_path / "t.csv", num_rows=16)))
    made = make_learner(replace(experiment, data=data), torch.device("cpu"))
    rng = np.random.default_rng(0)
    assert made.update(data.make(torch.device("cpu")).train.sample(2, rng), rng)


def test_tasks_have_the_shape_of_the_rows(tmp_path: Path) -> None:
    data = TableData(str(_table(tmp_path / "t.csv")), EpisodesConfig(num_ways=3, num_queries=2))
    assert data.tasks.input_shape == (6,)
    episodes = data.make(torch.device("cpu")).train.sample(2, np.random.default_rng(0))
    assert episodes.query.inputs.shape == (2, 6, 6)
