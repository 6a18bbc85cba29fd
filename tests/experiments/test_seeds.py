"""metarl train --seeds: one folder, the same test tasks, each run as if alone, stopped and resumed as a whole."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from metarl.experiments import places
from metarl.experiments.cli import main
from metarl.experiments.run_process import LOG
from metarl.experiments.seeds import is_group, parse_seeds

TINY = ["--training.iterations", "2", "--training.meta-batch-size", "2", "--evaluation.num-tasks", "3"]
TINY += ["--evaluation.num-steps", "1", "--evaluation.num-episodes", "2", "--num-threads", "1", "--horizon", "5"]
TINY += ["--agent.adaptation.num-episodes", "2", "--agent.policy.hidden-sizes", "8"]


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (0, 1, 2)), ("0,3,7", (0, 3, 7)), ("4,", (4,)), ("1", (0,)), ("7, 2", (7, 2))]
)
def test_seeds_are_a_number_of_them_or_a_list(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0", ",", "-1", "1,1", "a", "1.5", "1001", "9" * 30, "1,-2", "²"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--seeds must be"):
        parse_seeds(text)


@pytest.mark.thorough
def test_runs_of_several_seeds_are_each_what_it_would_be_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    group, alone = tmp_path / "group", tmp_path / "alone"
    assert main(["train", "point-promp", *TINY, "--seeds", "0,3", "--out", str(group)]) == 0
    printed = capsys.readouterr().out
    assert "seed 3  done: return" in printed
    assert f"metarl compare {group}" in printed
    assert (
        main(["train", "point-promp", *TINY, "--seed", "3", "--evaluation.task-seed", "0", "--out", str(alone)])
        == 0
    )
    names = ["test_tasks.json", "config.json", "metrics.csv", "evaluation.json", "checkpoint.pt", LOG]
    assert {path.name for path in (group / "seed3").iterdir()} >= set(names)
    tasks = [json.loads((group / f"seed{seed}" / "test_tasks.json").read_text()) for seed in (0, 3)]
    assert tasks[0] == tasks[1] == json.loads((alone / "test_tasks.json").read_text())
    results = [json.loads((folder / "evaluation.json").read_text()) for folder in (group / "seed3", alone)]
    assert results[0]["adaptation"] == results[1]["adaptation"]
    assert is_group(group)
    assert not is_group(alone)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(places, "train_one", lambda *words: pytest.fail("a run that is done was given a process"))
        patch.setattr(BaseProcess, "start", BaseProcess.run)
        assert main(["resume", str(group)]) == 0
    assert capsys.readouterr().out.count("done before") == 2
    assert main(["resume", str(group), "--iterations", "3"]) == 0
    rows = [(group / f"seed{seed}" / "metrics.csv").read_text().splitlines() for seed in (0, 3)]
    assert [len(lines) for lines in rows] == [4, 4]


@pytest.mark.slow
def test_several_experiments_share_their_test_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "both"
    words = ["train", "promp", "maml-trpo", "--benchmark", "point", *TINY, "--seeds", "1", "--out", str(out)]
    assert main(words) == 0
    assert "paired on the same tasks" in capsys.readouterr().out
    folders = [out / name / "seed0" for name in ("point-promp", "point-maml-trpo")]
    first, second = ((folder / "test_tasks.json").read_text() for folder in folders)
    assert first == second


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = tmp_path / "group"
    assert main(["train", "point-promp", *TINY, "--seeds", "2", "--out", str(group)]) == 0
    (group / "seed0" / "checkpoint.pt").write_bytes(b"nothing")
    (group / "seed1" / "evaluation.json").unlink()
    capsys.readouterr()
    assert main(["resume", str(group)]) == 1
    printed = capsys.readouterr().out
    assert f"{group / 'seed0'}: " in printed
    assert f"continue with: metarl resume {group}" in printed
    assert (group / "seed1" / "evaluation.json").is_file()


@pytest.mark.slow
def test_ctrl_c_stops_all_runs_with_checkpoints_and_they_go_on(tmp_path: Path) -> None:
    group = tmp_path / "group"
    words = ["train", "point-promp", *TINY, "--training.iterations", "100000", "--seeds", "2", "--out", str(group)]
    process = subprocess.Popen(
        [sys.executable, "-m", "metarl.experiments.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = [group / f"seed{seed}" / "metrics.csv" for seed in (0, 1)]
    deadline = time.monotonic() + 60
    while not all(path.is_file() and path.read_text().count("\n") > 2 for path in metrics):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.count("stopped at iteration") == 2
    assert "Traceback" not in err
    assert all((path.parent / "checkpoint.pt").is_file() for path in metrics)


@pytest.mark.slow
def test_runs_stop_when_their_parent_is_killed(tmp_path: Path) -> None:
    group = tmp_path / "group"
    words = ["train", "point-promp", *TINY, "--training.iterations", "100000", "--seeds", "1", "--out", str(group)]
    process = subprocess.Popen([sys.executable, "-m", "metarl.experiments.cli", *words], stdout=subprocess.DEVNULL)
    lock, metrics = group / "seed0" / "run.lock", group / "seed0" / "metrics.csv"
    deadline = time.monotonic() + 60
    while not (metrics.is_file() and metrics.read_text().count("\n") > 2):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    child = json.loads(lock.read_text())["pid"]
    process.kill()
    process.wait()
    while lock.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not lock.exists()
    assert not _runs(child)


def _runs(process: int) -> bool:
    """Whether a process is there and has not ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["point-promp", "--seeds", "x"], "--seeds must be a number of seeds"),
        (["point-promp", "point-maml-trpo"], "several need --seeds"),
        (["point-promp", "point-promp", "--seeds", "2"], "expected distinct experiments"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
