"""The command line: what a user types, sees, and gets wrong."""

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from metarl.experiments.cli import main
from metarl.runs.checkpoint import CHECKPOINT, PREVIOUS
from tests.chaos.forked import command, fork
from tests.experiments.tiny import SMALL

TINY = [
    "--horizon", "6",
    "--training.iterations", "3",
    "--training.meta-batch-size", "2",
    "--training.checkpoint-every", "1",
    "--training.evaluate-every", "0",
    "--agent.adaptation.num-episodes", "2",
    "--agent.policy.hidden-sizes", "8",
    "--evaluation.num-tasks", "3",
    "--evaluation.num-steps", "1",
    "--evaluation.num-episodes", "2",
    "--num-threads", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of point navigation, trained for three tiny iterations."""
    folder = tmp_path_factory.mktemp("runs") / "point"
    assert main(["train", "point-promp", "--out", str(folder), *TINY]) == 0
    return folder


def _error(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """Run a command that must fail with status 2 and one line on standard error; return the line."""
    capsys.readouterr()
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_train_leaves_a_whole_run_folder(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    expected = {
        "config.json",
        "test_tasks.json",
        "metrics.csv",
        "evaluation.json",
        "tensorboard",
        CHECKPOINT,
        PREVIOUS,
    }
    assert names == expected
    config = json.loads((trained / "config.json").read_text())
    assert config["name"] == "point-promp"
    assert config["experiment"]["training"]["iterations"] == 3
    assert config["versions"]["mujoco"]
    assert len(json.loads((trained / "test_tasks.json").read_text())) == 3


def test_evaluate_writes_the_adaptation_curve(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    words = ["evaluate", str(trained), "--num-tasks", "4", "--num-steps", "2", "--seed", "5", "--json", str(out)]
    assert main(words) == 0
    result = json.loads(out.read_text())
    assert (result["experiment"], result["seed"], result["num_tasks"]) == ("point-promp", 0, 4)
    assert [row["step"] for row in result["adaptation"]] == [0, 1, 2]
    for row in result["adaptation"]:
        low, high = row["return_ci95"]
        assert low <= row["return_mean"] <= high
        assert 0 <= row["success_mean"] <= 1
        returns = [task["return_mean"][row["step"]] for task in result["tasks"]]
        assert min(returns) <= row["return_worst_decile"] < max(returns)
        assert row["worst_decile_cross_fitted"]  # two episodes per task
    assert len(result["baselines"]["untrained"]) == 3
    for task in result["tasks"]:
        assert len(task["success_mean"]) == len(task["untrained"]["return_mean"]) == 3
    again = tmp_path / "again.json"
    assert main([*words[:-1], str(again)]) == 0
    assert json.loads(again.read_text()) == result


def test_evaluate_can_have_other_horizons_than_training(trained: Path, tmp_path: Path) -> None:
    """The point robot pays its distance at every step, so that more steps return less."""
    results = []
    for horizon in (3, 30):
        out = tmp_path / f"{horizon}.json"
        words = ["evaluate", str(trained), "--num-steps", "1", "--horizon", str(horizon), "--json", str(out)]
        assert main(words) == 0
        results.append(json.loads(out.read_text()))
    assert [result["horizon"] for result in results] == [3, 30]
    assert results[1]["adaptation"][0]["return_mean"] < 3 * results[0]["adaptation"][0]["return_mean"] < 0


@pytest.mark.thorough
def test_an_agent_with_replay_is_evaluated_on_other_horizons_too(tmp_path: Path) -> None:
    """The replay has room for trials of the horizon that it was trained with."""
    folder, out = tmp_path / "run", tmp_path / "result.json"
    words = [
        "train",
        "memory-sac",
        "--benchmark",
        "point",
        *SMALL,
        "--agent.num-updates",
        "1",
        "--out",
        str(folder),
    ]
    assert main([*words, "--evaluation.num-tasks", "2", "--evaluation.num-episodes", "2"]) == 0
    assert main(["evaluate", str(folder), "--horizon", "9", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["horizon"] == 9


def test_evaluate_on_tasks_that_a_user_wrote(trained: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.json"
    tasks.write_text('[{"family": "point", "params": {"goal": [0.1, 0.2]}}]')
    out = tmp_path / "result.json"
    assert main(["evaluate", str(trained), "--tasks", str(tasks), "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["tasks"][0]["params"] == {"goal": [0.1, 0.2]}
    assert result["adaptation"][0]["return_ci95"] is None


@pytest.mark.thorough
def test_resume_trains_on(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["train", "point-maml-trpo", "--out", str(folder), *TINY]) == 0
    assert main(["resume", str(folder), "--iterations", "4"]) == 0
    assert json.loads((folder / "config.json").read_text())["experiment"]["training"]["iterations"] == 4
    assert (folder / "metrics.csv").read_text().strip().splitlines()[-1].startswith("4,")
    assert "trained on" in capsys.readouterr().out
    before = (folder / "config.json").read_bytes()
    line = _error(capsys, ["resume", str(folder), "--iterations", "2"])
    assert "--iterations must be at least 4, which are done, got 2" in line
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.thorough
def test_without_out_the_next_free_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["train", "point-promp", *TINY]) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["point-promp-seed0", "point-promp-seed0-2"]


def test_list_names_experiments_and_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "half-cheetah-dir-maml-trpo" in capsys.readouterr().out
    assert main(["list", "benchmarks"]) == 0
    shown = capsys.readouterr().out
    assert "humanoid-dir" in shown
    assert "shared" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "unknown command 'fly'; known: list, train"),
        (["train"], "train needs an experiment: a name of `metarl list`, or FILE.py:NAME"),
        (["train", "quikstart"], "unknown experiment 'quikstart'; did you mean quickstart?"),
        (["train", "quickstart", "--sed", "3"], "unrecognized options: --sed, 3; perhaps you meant: --seed INT"),
        (["train", "quickstart", "--agent.inner", "3"], "--agent.inner"),
        (["train", "quickstart", "--seed", "three"], "error parsing --seed: invalid literal"),
        (["train", "quickstart", "--seed", "three"], "; see `metarl train quickstart --help`"),
        (["train", "quickstart", "--seed", "-3"], "seed must be at least 0, got -3"),
        (["train", "quickstart", "--agent.outer-lr", "0"], "outer_lr must be positive and finite, got 0.0"),
        (["train", "quickstart", "--horizon", "0"], "horizon must be at least 1, got 0"),
        (["train", "quickstart", "--benchmark", "moon"], "unknown benchmark 'moon'; known: ant-dir"),
        (["train", "quickstart", "--agent.outer-lr", "inf"], "outer_lr must be positive and finite, got inf"),
        (["list", "agents"], "nothing of experiments contains 'agents'"),
        (["resume", "nowhere"], "nowhere is not a run folder: expected nowhere/config.json"),
        (["evaluate", "nowhere"], "nowhere is not a run folder"),
        (
            ["evaluate"],
            "error: missing from metarl evaluate: PATH Run folder. (required); see `metarl evaluate --help`",
        ),
        (["bench", "flight"], "flight"),
    ],
)
def test_a_bad_argument_is_one_line_and_status_2(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in _error(capsys, words)
    assert not list(tmp_path.iterdir())


def test_an_existing_run_folder_is_left_as_it_is(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    line = _error(capsys, ["train", "point-promp", "--out", str(trained)])
    assert "exists and is left as it is" in line
    assert f"metarl resume {trained}" in line
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_an_existing_json_file_is_left_as_it_is(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.json"
    path.write_text("mine")
    assert "exists and is left as it is" in _error(capsys, ["evaluate", str(trained), "--json", str(path)])
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ('[{"family": "ant-dir", "params": {"direction": 1}}]', "expected tasks of family 'point', got 'ant-dir'"),
        ('[{"family": "point", "params": {}}]', "exactly the parameters ['goal'], got []"),
        ('[{"family": "point", "params": {"goal": [NaN, 0]}}]', "must be finite"),
        ('[{"family": "point", "params": {"goal": [1]}}]', "a list of 2 numbers"),
        ("[]", "non-empty list"),
        ("nonsense", "is not JSON"),
    ],
)
def test_a_malformed_task_file_is_one_line_and_status_2(
    tasks: str, message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(tasks)
    assert message in _error(capsys, ["evaluate", str(trained), "--tasks", str(path)])


@pytest.mark.thorough
def test_a_damaged_checkpoint_is_one_line_and_the_one_before_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["train", "point-promp", "--out", str(folder), *TINY]) == 0
    path = folder / CHECKPOINT
    path.write_bytes(path.read_bytes()[:500])
    for name in ("evaluate", "resume"):
        line = _error(capsys, [name, str(folder)])
        assert "damaged or not a checkpoint" in line
        assert PREVIOUS in line
    assert "must be checkpoint.pt or" in _error(capsys, ["resume", str(folder), "--checkpoint", "other.pt"])
    assert main(["evaluate", str(folder), "--checkpoint", PREVIOUS]) == 0
    assert len(path.read_bytes()) == 500
    assert main(["resume", str(folder), "--checkpoint", PREVIOUS]) == 0
    assert len((folder / "checkpoint.replaced.pt").read_bytes()) == 500
    assert (folder / "metrics.csv").read_text().strip().splitlines()[-1].startswith("3,")


def test_tasks_and_their_number_exclude_each_other(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(trained), "--tasks", "t.json", "--num-tasks", "3"]
    assert "exclude each other" in _error(capsys, words)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in ("list", "train", "resume", "evaluate", "bench"):
        assert f"metarl {name}" in shown


@pytest.mark.thorough
def test_interrupt_writes_a_checkpoint_and_says_how_to_resume(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["train", "point-promp", "--out", str(folder), *TINY, "--training.iterations", "100000"]
    process = fork(partial(command, words), tmp_path / "log.txt")
    metrics = folder / "metrics.csv"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        assert process.ended() is None, process.log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    printed = process.log.read_text()
    assert f"continue with: metarl resume {folder}" in printed
    assert "stopping after this iteration" in printed
    iteration = int(metrics.read_text().strip().splitlines()[-1].split(",")[0])
    assert main(["resume", str(folder), "--iterations", str(iteration + 1)]) == 0


@pytest.mark.thorough
def test_a_trial_learner_is_measured_by_episode_and_by_trial_beside_reference_strategies(tmp_path: Path) -> None:
    folder = tmp_path / "grid"
    words = ["--training.iterations", "2", "--training.meta-batch-size", "4", "--evaluation.num-episodes", "2"]
    words += ["--agent.policy.memory-size", "8", "--evaluation.num-tasks", "21"]
    assert main(["train", "gridnavi-rl2", "--out", str(folder), *words]) == 0
    result = json.loads((folder / "evaluation.json").read_text())
    assert [row["step"] for row in result["adaptation"]] == [0, 1, 2, 3]
    assert set(result["trials"]) == {"meta-trained", "untrained", "SearchThenGo"}
    whole = sum(row["return_mean"] for row in result["adaptation"])
    assert result["trials"]["meta-trained"]["return_mean"] == pytest.approx(whole)
    # On the 21 goals searching first earns 4.0 and then the straight ways 232.5 / 21 each.
    found = [row["return_mean"] for row in result["baselines"]["SearchThenGo"]]
    assert found == pytest.approx([4.0, 232.5 / 21, 232.5 / 21, 232.5 / 21], abs=1e-4)
