"""Sweeps: ranges, scores, trials that are stopped early, and sweeps that go on."""

import json
import shutil
from pathlib import Path

import pytest

import metarl
from metarl.experiments.cli import main
from metarl.experiments.commands import sweep as sweep_command
from metarl.experiments.prepared import experiment
from metarl.experiments.seeds import Member
from metarl.experiments.sweep.ranges import SettingRange, parse_range
from metarl.experiments.sweep.scores import progress_score, score_of
from metarl.experiments.sweep.sweep import Sweep, SweepPlan
from tests.experiments.tiny import TINY

pytestmark = pytest.mark.thorough

WORDS = ["point-promp", "--horizon", "5", *TINY]
OVER = "agent.outer_lr=log:1e-4:1e-2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("agent.outer_lr=log:1e-4:1e-2", SettingRange("agent.outer_lr", 1e-4, 1e-2, log=True)),
        ("--agent.outer-lr=0.1:1", SettingRange("agent.outer_lr", 0.1, 1.0)),
        ("agent.outer_steps=int:1:10", SettingRange("agent.outer_steps", 1, 10, whole=True)),
        ("agent.epochs=log-int:1:100", SettingRange("agent.epochs", 1, 100, log=True, whole=True)),
        ("agent.policy.memory=gru,lstm", SettingRange("agent.policy.memory", values=("gru", "lstm"))),
    ],
)
def test_a_range_is_read(text: str, expected: SettingRange) -> None:
    assert parse_range(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agent.outer_lr", "--over takes SETTING=RANGE"),
        ("=1:2", "--over takes SETTING=RANGE"),
        ("agent.gamma=1", "at least two different ones"),
        ("agent.gamma=a,a", "at least two different ones"),
        ("agent.gamma=1:0", "the lower first; got 1:0"),
        ("agent.gamma=log:0:1", "numbers above 0, the lower first"),
        ("agent.gamma=int:0.5:2", "two whole numbers, the lower first"),
        ("agent.gamma=cube:1:2", "expected LOW:HIGH, log:LOW:HIGH"),
        ("agent.gamma=nan:1", "expected LOW:HIGH, log:LOW:HIGH"),
    ],
)
def test_what_is_no_range_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_range(text)


def test_a_range_knows_what_it_holds() -> None:
    assert parse_range("a=0.1:1").holds(1)
    assert not parse_range("a=0.1:1").holds(0.05)
    assert not parse_range("a=int:1:3").holds(1.5)
    assert not parse_range("a=int:0:3").holds(True)
    assert parse_range("a=gru,lstm").holds("gru")
    assert not parse_range("a=gru,lstm").holds("none")


def test_the_score_is_the_return_after_all_steps_unless_another_is_asked_for() -> None:
    result = {"adaptation": [{"return_mean": -9.0}, {"return_mean": -2.0, "success_mean": 0.5}]}
    assert score_of(result) == -2.0
    assert score_of(result, "success") == 0.5
    with pytest.raises(ValueError, match="no accuracy; it has return, success"):
        score_of(result, "accuracy")


def test_a_learner_scores_on_validation_classes_and_an_error_counts_against_it() -> None:
    test, validation = [{"accuracy_mean": 0.9}], [{"accuracy_mean": 0.8}]
    assert score_of({"adaptation": test, "splits": {"validation": validation}}) == 0.8
    assert score_of({"adaptation": [{"mse_mean": 3.0}], "splits": {}}) == -3.0
    assert progress_score({"train/mse_post": 2.0}) == -2.0
    assert progress_score({"train/return_post": 2.0, "loss/outer": 1.0}) == 2.0
    assert progress_score({"time/update_s": 1.0}) is None


def train_here(member: Member) -> None:
    """Train a member in this process, as its own process would."""
    assert member.make is not None
    assert member.watcher is not None
    watcher, member.watcher = member.watcher, None
    member.make()
    run = metarl.open_run(member.folder)
    stopped: list[bool] = []
    progress = run.train(
        loggers=[],
        report=lambda progress, metrics: stopped.append(watcher.heard(progress.iteration, metrics)),
        stop=lambda: any(stopped),
    )
    member.state = "stopped"
    if progress.iteration == run.experiment.training.iterations:
        (member.folder / "evaluation.json").write_text(json.dumps(run.evaluate(num_tasks=2)))
        member.state = "done"
    watcher.ended(member.state)


def run_here(members: list[Member], *limits: object) -> int:
    """A stand-in for processes, which take seconds to start."""
    for member in members:
        train_here(member)
    return 0 if all(member.state == "done" for member in members) else 130


@pytest.fixture(scope="module")
def two_trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two trials, made once."""
    folder = tmp_path_factory.mktemp("two-trials") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep_command, "train_members", run_here)
        assert main(["sweep", *WORDS, "--over", OVER, "--trials", "2", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def swept(two_trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of two trials, to go on with."""
    monkeypatch.setattr(sweep_command, "train_members", run_here)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(two_trials, tmp_path / "sweep")
    return tmp_path / "sweep"


def test_a_sweep_begins_with_the_experiments_own_settings(swept: Path) -> None:
    own = experiment(*WORDS)
    tried = [metarl.open_run(swept / f"trial00{number}").experiment for number in (0, 1)]
    assert tried[0].agent == own.agent  # type: ignore[union-attr]
    assert tried[1].agent != own.agent  # type: ignore[union-attr]
    assert 1e-4 <= tried[1].agent.outer_lr <= 1e-2
    assert [each.evaluation.task_seed for each in tried] == [1, 1]


def test_the_best_trial_is_an_experiment_file(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {
        n: json.loads((swept / f"trial00{n}/evaluation.json").read_text())["adaptation"][-1]["return_mean"]
        for n in (0, 1)
    }
    assert scores[0] != scores[1]
    best = metarl.open_run(swept / f"trial00{max(scores, key=scores.__getitem__)}").experiment
    assert main(["train", f"{swept}/best.py:BEST", "--out", "again"]) == 0
    assert metarl.open_run("again", experiment=f"{swept}/best.py:BEST").experiment.agent == best.agent


def test_a_sweep_goes_on_to_more_trials_and_refuses_other_settings(
    swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (swept / "trial000/checkpoint.pt").read_bytes()
    assert main(["sweep", *WORDS, "--over", OVER, "--trials", "3", "--out", "sweep"]) == 0
    assert "1 of 3 trials to do" in capsys.readouterr().out
    assert (swept / "trial002/evaluation.json").exists()
    assert (swept / "trial000/checkpoint.pt").read_bytes() == before
    rates = {metarl.open_run(swept / f"trial00{n}").experiment.agent.outer_lr for n in (0, 1, 2)}
    assert len(rates) == 3  # the sampler does not begin with the same proposals again
    assert main(["sweep", *WORDS, "--over", "agent.outer_lr=0.1:1", "--trials", "3", "--out", "sweep"]) == 2
    assert "is a sweep with over" in capsys.readouterr().err


def test_a_trial_that_was_begun_goes_on(swept: Path) -> None:
    plan = SweepPlan(tuple(WORDS), (OVER,))
    first = Sweep(plan, swept)
    member = first.members(3)[0]
    assert member.make is not None
    member.make()  # and the process dies
    made = (swept / "trial002/config.json").read_bytes()
    again = Sweep(plan, swept)
    (member,) = again.members(3)
    run_here([member])
    assert (swept / "trial002/config.json").read_bytes() == made
    assert len(again.finished()) == 3


def test_a_trial_below_the_median_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["point-promp", "--horizon", "5", "--training.iterations", "4", *TINY[2:]]
    sweep = Sweep(SweepPlan(tuple(words), (OVER,)), tmp_path / "sweep")
    for number in range(6):
        member = sweep.members(number + 1)[0]
        assert member.make is not None
        member.make()
        watcher = member.watcher
        assert watcher is not None
        worse = number == 5
        heard = [watcher.heard(i, {"train/return_post": -100.0 if worse else float(number)}) for i in (1, 2, 3)]
        assert heard == [worse, False, False]  # once, or a second signal would stop it without a checkpoint
        (member.folder / "evaluation.json").write_text('{"adaptation": [{"return_mean": 1.0}]}')
        watcher.ended("stopped" if worse else "done")
    assert [trial.state.name for trial in sweep.study.trials] == ["COMPLETE"] * 5 + ["PRUNED"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs an experiment"),
        (["point-promp"], "a sweep needs --over"),
        (["point-promp", "--over", OVER, OVER], "names agent.outer_lr twice"),
        (["point-promp", "--over", "agent.outer_lr=-1:1"], "outer_lr"),
        (["point-promp", "--over", "agent.nothing=1:2"], "--agent.nothing"),
        (["point-promp", "--over", OVER, "--trials", "many"], "--trials must be a whole number between 1"),
        (["point-promp", "--over", OVER, "--score", "beauty"], "--score must be return, success"),
        (["point-promp", "--over", OVER, "--hours", "-1"], "--hours must be a positive number"),
        (["point-promp", "--over", OVER, "--seeds", "3"], "have one seed"),
        (["point-prom", "--over", OVER], "point-promp"),
    ],
)
def test_bad_words_are_one_line_and_leave_no_folder(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("sweep/trial000", "is not a sweep; give another --out"),
        ("sweep/sweep.db", "is not a sweep; give another --out"),
        ("sweep/sweep.db/inside", "cannot make the sweep's folder"),
    ],
)
def test_what_is_no_sweep_is_left_alone(
    out: str, message: str, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(swept.rglob("*"))
    assert main(["sweep", *WORDS, "--over", OVER, "--out", out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(swept.rglob("*")) == before


def test_a_damaged_database_is_one_line(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (swept / "sweep.db").write_bytes(b"garbage")
    assert main(["sweep", *WORDS, "--over", OVER, "--trials", "3", "--out", "sweep"]) == 2
    error = capsys.readouterr().err
    assert "sweep/sweep.db cannot be read as a sweep's database: " in error
    assert error.count("\n") == 1


def test_a_score_from_python_in_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {word.removeprefix("--"): value for word, value in zip(TINY[::2], TINY[1::2], strict=True)}
    value = metarl.score("point-promp", {**settings, "horizon": 5, "agent.outer_lr": 1e-3})
    assert -20 < value < 0
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="settings change an experiment that is named"):
        metarl.score(experiment(*WORDS), {"seed": 1})
