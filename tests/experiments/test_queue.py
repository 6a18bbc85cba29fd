"""metarl queue: a list of trainings, worked through, given again until all is done."""

import csv
import os
from pathlib import Path

import pytest

from metarl.experiments.cli import main
from metarl.experiments.prepared import planned
from metarl.experiments.queue import members_of_list, read_list
from tests.experiments.tiny import TINY

LINE = f"point-promp {' '.join(TINY)} --horizon 5 --agent.policy.hidden-sizes 8 --training.iterations"


def written(folder: Path, text: str) -> Path:
    path = folder / "list.txt"
    path.write_text(text)
    return path


def test_a_list_has_words_names_and_remarks(tmp_path: Path) -> None:
    path = written(tmp_path, "# first\n\npoint-promp --seeds 3  # three\nmine: rl2 --benchmark 'my file.yaml'\n")
    entries = read_list(path)
    assert [(entry.number, entry.name, entry.words) for entry in entries] == [
        (3, None, ("point-promp", "--seeds", "3")),
        (4, "mine", ("rl2", "--benchmark", "my file.yaml")),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no trainings"),
        ("# nothing\n", "lists no trainings"),
        ("point-promp 'a\n", "line 1: No closing quotation"),
        ("\nmine:\n", "line 2: expected an experiment after 'mine:'"),
        ("../up: point-promp\n", "line 1: expected the name of a folder before the colon, got '../up'"),
        ("point-prom\n", "line 1: unknown experiment"),
        ("point-promp --seeds 0\n", "line 1: --seeds must be"),
        ("point-promp --out x\n", "line 1: the list's folder holds all its runs"),
        ("--seeds 3\n", "line 1: expected an experiment first, got '--seeds'"),
        ("point-promp --help\n", "line 1: help is not a training; see `metarl train point-promp --help`"),
        ("point-promp\npoint-promp --seed 1\n", "line 2: line 1 is called point-promp too"),
    ],
)
def test_a_line_that_cannot_be_run_is_named_before_anything_starts(
    tmp_path: Path, text: str, message: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"list\.txt") as error:
        members_of_list(written(tmp_path, text), out, planned)
    assert message in str(error.value)
    assert not out.exists()


def test_a_list_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at most 1 MiB"):
        read_list(written(tmp_path, "x" * (2**20 + 1)))


@pytest.mark.thorough
def test_a_queue_trains_what_is_missing_and_refuses_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = written(tmp_path, f"{LINE} 2\n"), tmp_path / "out"
    assert main(["queue", str(path), "--out", str(out), "--jobs", "1"]) == 0
    assert "point-promp 0" in capsys.readouterr().out
    metrics = out / "point-promp" / "seed0" / "metrics.csv"
    assert len(list(csv.DictReader(metrics.read_text().splitlines()))) == 2
    before = os.stat(metrics).st_mtime_ns
    assert main(["queue", str(path), "--out", str(out)]) == 0
    assert "done before" in capsys.readouterr().out
    assert os.stat(metrics).st_mtime_ns == before
    other = written(tmp_path, f"{LINE} 3\n")
    assert main(["queue", str(other), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "was made with training.iterations 2, the list says 3" in error
    assert len(error.splitlines()) == 1


@pytest.mark.thorough
def test_a_queue_stops_after_its_hours_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = written(tmp_path, f"{LINE} 100000\n"), tmp_path / "out"
    assert main(["queue", str(path), "--out", str(out), "--hours", "0.0001"]) == 130
    printed = capsys.readouterr()
    assert "0.0001 hours are over" in printed.err
    assert "the same command goes on" in printed.out
    assert (out / "point-promp" / "seed0" / "config.json").exists()


@pytest.mark.thorough
def test_what_cannot_be_made_fails_alone_and_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = written(tmp_path, f"omniglot-protonet --data.folder none\n{LINE} 1\n"), tmp_path / "out"
    assert main(["queue", str(path), "--out", str(out), "--jobs", "1"]) == 1
    assert "no Omniglot at none" in capsys.readouterr().out
    assert not (out / "omniglot-protonet").exists()
    assert (out / "point-promp" / "seed0" / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--jobs", "0"), ("--jobs", "-1"), ("--hours", "0"), ("--hours", "nan"), ("--hours", "inf")],
)
def test_absurd_limits_are_refused(
    tmp_path: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, "point-promp\n")
    assert main(["queue", str(path), "--out", str(tmp_path / "out"), option, value]) == 2
    assert f"{option} must be" in capsys.readouterr().err
