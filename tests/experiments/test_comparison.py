"""metarl compare: its statistics against closed forms, what it reads and refuses, and what it writes."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metarl.experiments.cli import main
from metarl.experiments.comparison import figures, statistics
from metarl.experiments.comparison.records import METRICS, read_groups
from metarl.experiments.comparison.summary import summarise

ONE_KIND = ["point"] * 40


def make_run(
    folder: Path,
    name: str,
    seed: int,
    *,
    returns: np.ndarray,
    benchmark: str = "point",
    iterations: int = 12,
    agent: str = "promp",
) -> None:
    """A run folder as `metarl train` leaves it, with these returns by task; [step, task]."""
    folder.mkdir(parents=True)
    experiment = {"benchmark": benchmark, "seed": seed, "agent": {"algorithm": agent}}
    config = {"name": name, "kind": "rl", "experiment": experiment}
    (folder / "config.json").write_text(json.dumps(config))
    tasks = [
        {
            "family": "point",
            "params": {"goal": [place / 10, 0.5]},
            "return_mean": values,
            "success_mean": [0.5, 1.0],
        }
        for place, values in enumerate(returns.T.tolist())
    ]
    adaptation = [
        {"step": step, "return_mean": float(values.mean()), "return_ci95": None}
        for step, values in enumerate(returns)
    ]
    evaluation = {"seed": seed, "num_tasks": len(tasks), "adaptation": adaptation, "tasks": tasks}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    with (folder / METRICS).open("w", newline="") as file:
        writer = csv.DictWriter(file, ["iteration", "env_steps", "train/return_post", "time/collect_s"])
        writer.writeheader()
        for i in range(iterations):
            row = {"iteration": i + 1, "env_steps": 100 * (i + 1), "time/collect_s": 2.0}
            writer.writerow(row | {"train/return_post": i + seed})


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two groups of three seeds on 40 tasks; the first is better by one on every task."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=(2, 40))
    for seed in range(3):
        noise = 0.01 * rng.normal(size=(2, 40))
        better = np.array([[0.0], [1.0]])
        make_run(tmp_path / "good" / f"seed{seed}", "good", seed, returns=difficulty + better + noise)
        make_run(tmp_path / "plain" / f"seed{seed}", "plain", seed, returns=difficulty + noise)
    return [tmp_path / "good", tmp_path / "plain"]


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    values = np.array([[1.0, 2.0, 30.0, 4.0], [5.0, -60.0, 7.0, 8.0]])
    assert statistics.interquartile_mean(values) == pytest.approx((2 + 4 + 5 + 7) / 4)
    stacked = statistics.interquartile_mean(np.stack([values, values + 1]))
    np.testing.assert_allclose(stacked, [4.5, 5.5])


@pytest.mark.thorough
def test_intervals_cover_seeds_and_tasks() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        values = rng.normal(size=(8, 1)) + rng.normal(size=(1, 40))
        low, high = statistics.interval(values, ONE_KIND) or (0.0, 0.0)
        covered += low <= 0.0 <= high
    assert covered >= 49  # 95% of 60 are 57; percentile bootstraps of eight seeds are a little narrow
    only_tasks = np.repeat(rng.normal(size=(1, 40)), 3, axis=0)
    low, high = statistics.interval(only_tasks, ONE_KIND) or (0.0, 0.0)
    error = only_tasks[0].std() / np.sqrt(40)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert statistics.interval(values[:1], ONE_KIND) is None


def test_success_on_every_task_is_not_certain_beyond_them() -> None:
    always = np.ones((3, 20))
    assert statistics.interval(always, ["one"] * 20) == [1.0, 1.0]
    low, high = statistics.rate_interval(always, ["one"] * 20) or (0.0, 0.0)
    assert 0.75 < low < 0.9  # Wilson's, of 20 tasks
    assert high == 1.0
    some = np.where(np.arange(60).reshape(3, 20) % 3 == 0, 0.0, 1.0)
    assert statistics.rate_interval(some, ["one"] * 20) == statistics.interval(some, ["one"] * 20)
    assert statistics.rate_interval(always[:1], ["one"] * 20) is None


def test_tasks_are_drawn_within_their_family() -> None:
    families = ["easy"] * 20 + ["hard"] * 20
    values = np.repeat(np.repeat([[1.0, -1.0]], 20, axis=1), 3, axis=0)  # equal within a family
    assert statistics.interval(values, families) == [0.0, 0.0]
    assert statistics.interval(values, ONE_KIND) != [0.0, 0.0]


def test_paired_differences_do_not_feel_the_tasks_difficulty() -> None:
    rng = np.random.default_rng(2)
    difficulty = 100 * rng.normal(size=40)
    first, second = difficulty + rng.normal(size=(3, 40)), difficulty + rng.normal(size=(3, 40)) - 2
    value, interval = statistics.difference(first, second, ONE_KIND)
    assert interval is not None
    assert 1.0 < interval[0] < value < interval[1] < 3.0
    probability, bounds = statistics.probability_of_improvement(first, second, ONE_KIND)
    wins = np.mean([[a > b for a in first[:, t] for b in second[:, t]] for t in range(40)])
    assert probability == pytest.approx(wins)
    assert bounds is not None
    assert bounds[0] < wins < bounds[1]
    assert statistics.probability_of_improvement(first, first, ONE_KIND)[0] == pytest.approx(0.5)


def test_a_profile_is_the_share_above() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(statistics.profile(values, np.array([0.0, 2.0, 3.5, 4.0])), [1.0, 0.5, 0.25, 0.0])


def test_groups_are_read_and_summed_up(folders: list[Path]) -> None:
    groups = read_groups(folders)
    assert [(group.label, [run.seed for run in group.runs]) for group in groups] == [
        ("good", [0, 1, 2]),
        ("plain", [0, 1, 2]),
    ]
    numbers = summarise(groups)
    (pair,) = numbers["pairs"]
    assert pair["difference"] == pytest.approx(1.0, abs=0.02)
    assert pair["difference_ci95"][0] > 0.9
    last = numbers["groups"]["good"]["adaptation"][1]
    assert last["return_mean"] == pytest.approx(groups[0].returns[:, 1].mean())
    assert last["return_ci95"][0] < last["return_iqm"] < last["return_ci95"][1]
    assert last["success_mean"] == 1.0
    curve = numbers["groups"]["good"]["learning"]["env_steps"]
    assert curve["metric"] == "train/return_post"
    assert (curve["x"][0], curve["x"][-1]) == (100.0, 1200.0)
    assert curve["mean"][-1] == pytest.approx(11 + 1)
    assert curve["high"][-1] - curve["mean"][-1] == pytest.approx(4.302652729749464 / np.sqrt(3))
    assert numbers["groups"]["good"]["wall_s"] == [24.0] * 3
    json.dumps(numbers, allow_nan=False)


def test_runs_of_different_lengths_are_compared_where_all_are(folders: list[Path], tmp_path: Path) -> None:
    run = read_groups(folders)[0].runs[0]
    make_run(tmp_path / "good" / "short", "good", 7, returns=run.returns, iterations=5)
    (group,) = read_groups([tmp_path / "good"])
    curve: dict[str, Any] = summarise([group])["groups"]["good"]["learning"]["env_steps"]
    assert curve["x"][-1] == 500.0


def test_groups_are_of_the_same_settings(folders: list[Path], tmp_path: Path) -> None:
    """Seeds of other settings, or of another agent, would count as more seeds of the first."""
    returns = read_groups(folders)[0].runs[0].returns
    make_run(tmp_path / "other" / "good" / "seed0", "good", 0, returns=returns, agent="rl2")
    labels = [group.label for group in read_groups([folders[0], tmp_path / "other" / "good"])]
    assert labels == [f"good ({folders[0]})", f"good ({tmp_path / 'other' / 'good'})"]
    singles = [folders[0] / "seed1", tmp_path / "other" / "good" / "seed0", folders[0] / "seed2"]
    groups = read_groups(singles)
    assert [(group.label, [run.seed for run in group.runs]) for group in groups] == [
        (f"good ({singles[0]})", [1, 2]),
        (f"good ({singles[1]})", [0]),
    ]
    make_run(folders[0] / "seed3", "good", 3, returns=returns, agent="rl2")
    with pytest.raises(ValueError, match=r"seed0 and seed3 \(agent.algorithm: 'promp', 'rl2'\)"):
        read_groups(folders)


@pytest.mark.thorough
def test_the_command_writes_numbers_and_figures(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(figures, "DPI", 40)
    out = tmp_path / "out"
    assert main(["compare", *map(str, folders), "--out", str(out), "--latex", "True"]) == 0
    printed = capsys.readouterr().out
    assert "good - plain" in printed
    assert all(len(line) <= 80 for line in printed.splitlines() if line[:1] in "┃│┏└")
    assert "\\mathbf{" in (out / "table.tex").read_text()
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    assert len(rows) == 4
    assert float(rows[1]["return_low"]) < float(rows[1]["return_mean"])
    names = ["learning_steps", "learning_time", "adaptation", "profile", "return_by_goal_0"]
    for name in names:  # goal[1] is the same in all tasks
        with Image.open(out / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20
        assert (out / f"{name}.pdf").read_bytes()[:4] == b"%PDF"
    assert not (out / "return_by_goal_1.png").exists()


def test_one_seed_has_no_interval_and_no_matplotlib_no_figures(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "can_draw", lambda: False)
    out = tmp_path / "one"
    assert main(["compare", str(folders[0] / "seed0"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "no interval for good: one seed" in printed
    assert "pip install matplotlib" in printed
    assert sorted(path.name for path in out.iterdir()) == ["comparison.json", "table.csv"]


def test_what_cannot_be_compared_is_told_in_one_line(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    returns = read_groups(folders)[0].runs[0].returns
    make_run(tmp_path / "other", "other", 0, returns=returns, benchmark="ant-dir")
    make_run(tmp_path / "tasks", "tasks", 0, returns=returns[:, :30])
    make_run(tmp_path / "twin", "good", 0, returns=returns)
    make_run(tmp_path / "unfinished", "unfinished", 0, returns=returns)
    (tmp_path / "unfinished" / "evaluation.json").unlink()
    (tmp_path / "empty").mkdir()
    make_run(tmp_path / "summed", "summed", 0, returns=returns)
    evaluation = json.loads((tmp_path / "summed" / "evaluation.json").read_text())
    (tmp_path / "summed" / "evaluation.json").write_text(json.dumps(evaluation | {"tasks": []}))
    make_run(tmp_path / "cut", "cut", 0, returns=returns)
    (tmp_path / "cut" / METRICS).write_text("iteration,env_steps,train/return_post\n1,100,\n")
    for words, message in (
        (["other"], "expected runs of one benchmark"),
        (["tasks"], "were evaluated on different tasks (10 differ)"),
        (["good/seed0", "twin"], "two runs of seed 0"),
        (["unfinished"], "finish it with `metarl resume"),
        (["summed"], "has no returns by task (ValueError 0 tasks)"),
        (["cut"], "has no number in its column train/return_post"),
        (["empty"], "is no run folder and holds none"),
        (["missing"], "is no run folder and holds none"),
    ):
        extra = [] if "twin" in words else [str(folders[1])]
        assert (
            main(["compare", *extra, *(str(tmp_path / word) for word in words), "--out", str(tmp_path / "no")])
            == 2
        )
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "no").exists()
    assert main(["compare", "--evaluation", "none.json"]) == 2
    assert "compare needs run folders" in capsys.readouterr().err
    assert main(["compare", "--evaluation", "none.json", str(tmp_path / "none")]) == 2
    assert "is no run folder" in capsys.readouterr().err
    assert main(["compare"]) == 2
