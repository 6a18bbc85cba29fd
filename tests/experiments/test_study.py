"""Studies: what is compared on which tasks, resumption, and results by hand."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.teacher_student import InformedPolicyConfig, TeacherStudentConfig
from metarl.envs import make_benchmark
from metarl.envs.dynamics import DynamicsTasks, SimulatorGap, dynamics_family
from metarl.envs.mujoco.families import HalfCheetahVel
from metarl.experiments.cli import main
from metarl.experiments.configuration import Experiment
from metarl.experiments.loading import open_run
from metarl.experiments.outside import GROUP
from metarl.experiments.presets.studies import STUDIES
from metarl.experiments.runs import Run
from metarl.experiments.study import command, running
from metarl.experiments.study.configuration import Learner, StablePpo, Study, on_benchmark
from metarl.experiments.study.figure import draw
from metarl.experiments.study.held_out import (
    EXTRAPOLATION,
    GAP,
    INTERPOLATION,
    HeldOut,
    check_disjoint,
    held_out_sets,
)
from metarl.experiments.study.report import summarise
from metarl.experiments.study.running import TimeLeft
from metarl.loop import Progress
from metarl.runs.loggers import Logger
from metarl.tasks import FiniteTasks, Task
from metarl.training import EvaluationConfig, TrainingConfig

pytestmark = pytest.mark.thorough

_ONCE = (TrainingConfig(2, 2, evaluate_every=0), EvaluationConfig(1, 1, 1))


def _rl2(memory: str, benchmark: str, *, observe_task: bool = False) -> Experiment:
    policy = TrialPolicyConfig(memory=memory, memory_size=8, head_sizes=(8,))  # type: ignore[arg-type]
    agent = Rl2Config(policy=policy, num_episodes=2, minibatches=1)
    return Experiment(benchmark, agent, *_ONCE, horizon=5, observe_task=observe_task, device="cpu")


def _study(benchmark: str = "half-cheetah-dynamics", **changes: Any) -> Study:
    promp = PrompConfig(PolicyConfig(hidden_sizes=(8,)), AdaptationConfig(num_episodes=2))
    learners = (
        Learner("oracle", _rl2("none", benchmark, observe_task=True)),
        Learner("rl2", _rl2("gru", benchmark)),
        Learner("promp", Experiment(benchmark, promp, *_ONCE, horizon=5, device="cpu")),
    )
    study = Study(
        benchmark=benchmark,
        learners=learners,
        oracle="oracle",
        stable=StablePpo(total_steps=20, num_envs=2, minibatches=1, epochs=1),
        gap=SimulatorGap(timestep=0.005, integrator="implicitfast"),
        num_tasks=3,
        num_episodes=4,
        num_trials=2,
        horizon=5,
        num_threads=1,
    )
    return replace(study, **changes)


def _error(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished study's folder, and a copy of its files as they were."""
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    assert command.run_study("tiny", _study(), folder, {}) == 0
    return folder, folder / "results.json"


def test_a_study_is_one_folder(done: tuple[Path, Path]) -> None:
    folder, results = done
    assert {p.name for p in folder.iterdir()} >= {
        "study.json",
        "tasks",
        "runs",
        "stable",
        "evaluations",
        "results.json",
    }
    assert {p.stem for p in (folder / "tasks").iterdir()} == {INTERPOLATION, EXTRAPOLATION, GAP}
    found = json.loads(results.read_text())
    assert set(found["sets"]) == {INTERPOLATION, EXTRAPOLATION, GAP}
    names = ["oracle", "rl2", "promp", "sb3-scratch", "sb3-fine-tuned"]
    assert list(found["learners"]) == names
    steps = {name: found["learners"][name]["train_env_steps"] for name in names}
    # 2 iterations x 2 tasks x 2 episodes x 5 steps; ProMP collects before and after adapting; 2 rollouts of 2 x 5.
    assert steps == {"oracle": 40, "rl2": 40, "promp": 80, "sb3-scratch": 0, "sb3-fine-tuned": 20}
    for held_out in found["sets"].values():
        points = {name: [row["episodes"] for row in held_out["learners"][name]["adaptation"]] for name in names}
        assert points["rl2"] == points["oracle"] == [0, 1, 2, 3, 4]
        assert points["promp"] == [0, 2, 4]
        assert points["sb3-scratch"] == points["sb3-fine-tuned"] == [0, 1, 2, 4]
        assert len(held_out["learners"]["rl2"]["tasks"]) == 3
        counts = {name: held_out["learners"][name]["episodes_per_task_and_point"] for name in names}
        # Of 2 trials: one episode each, 2 of a gradient step each, and 5 each of one adapted learner.
        assert counts == {"oracle": 2, "rl2": 2, "promp": 4, "sb3-scratch": 10, "sb3-fine-tuned": 10}
    spent = {name: found["learners"][name]["adaptation_env_steps"] for name in names}
    assert spent == {"oracle": 0} | dict.fromkeys(names[1:], 20)  # the oracle has no memory: 4 episodes of 5 steps


def test_a_finished_study_is_shown_again_and_nothing_is_trained(done: tuple[Path, Path]) -> None:
    folder, results = done
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.parent.name != "tasks"}
    found = results.read_text()
    assert command.run_study("tiny", _study(), folder, {}) == 0
    changed = {p.name for p, at in before.items() if p.stat().st_mtime_ns != at}
    assert changed <= {"results.json", "figure.png"}
    assert results.read_text() == found


def test_what_is_missing_is_done_and_comes_out_the_same(done: tuple[Path, Path]) -> None:
    folder, results = done
    found = json.loads(results.read_text())
    (folder / "evaluations" / "rl2.json").unlink()
    (folder / "evaluations" / "sb3-fine-tuned.json").unlink()
    assert command.run_study("tiny", _study(), folder, {}) == 0
    assert json.loads(results.read_text()) == found


def test_an_agent_can_come_from_a_run_folder(
    done: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, results = done
    study = _study(stable=None, gap=None)
    given = {name: folder / "runs" / name for name in ("oracle", "rl2", "promp")}
    assert command.run_study("tiny", study, tmp_path / "other", given) == 0
    assert not list((tmp_path / "other" / "runs").iterdir())
    here, there = json.loads((tmp_path / "other" / "results.json").read_text()), json.loads(results.read_text())
    for key in (INTERPOLATION, EXTRAPOLATION):
        rows = [found["sets"][key]["learners"]["rl2"]["tasks"] for found in (here, there)]
        assert rows[0] == rows[1]
    with pytest.raises(ValueError, match="for rl2 must have observe_task False, got True"):
        command.run_study("tiny", study, tmp_path / "wrong", {"rl2": folder / "runs" / "oracle"})


def _changed_run(folder: Path, source: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a run with another configuration."""
    shutil.copytree(source, folder)
    data = json.loads((folder / "config.json").read_text())
    change(data["experiment"])
    (folder / "config.json").write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize(
    ("roles", "change", "message"),
    [
        (("rl2", "promp"), {}, "for rl2 must have agent Rl2Config, got PrompConfig"),
        (("rl2", "rl2"), {"policy": {"memory": "none"}}, "must have memory or gradient steps True, got False"),
        (("promp", "promp"), {"adaptation": {"num_episodes": 5}}, "takes 5 episodes for a step"),
        (("rl2", "rl2"), {"training": {"iterations": 9}}, "was trained for 2 of its 9 iterations; go on with"),
    ],
)
def test_a_run_that_is_not_what_the_study_needs_is_refused(
    done: tuple[Path, Path], tmp_path: Path, roles: tuple[str, str], change: dict[str, Any], message: str
) -> None:
    learner, source = roles

    def changed(experiment: dict[str, Any]) -> None:
        for part, fields in change.items():
            holder = experiment if part == "training" else experiment["agent"]
            holder[part] |= fields

    run = _changed_run(tmp_path / "run", done[0] / "runs" / source, changed)
    with pytest.raises(ValueError, match=message):
        command.run_study("tiny", _study(), tmp_path / "study", {learner: run})
    assert not (tmp_path / "study").exists()


def test_a_run_without_a_checkpoint_is_refused(done: tuple[Path, Path], tmp_path: Path) -> None:
    run = _changed_run(tmp_path / "run", done[0] / "runs" / "rl2", lambda experiment: None)
    (run / "checkpoint.pt").unlink()
    with pytest.raises(ValueError, match="for rl2 was trained for 0 of its 2 iterations"):
        command.run_study("tiny", _study(), tmp_path / "study", {"rl2": run})


def test_run_folders_are_known_wherever_the_command_is_given(
    done: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(done[0])
    study = _study(stable=None, gap=None)
    given = {name: Path("runs") / name for name in ("oracle", "rl2", "promp")}
    assert command.run_study("tiny", study, tmp_path / "study", given) == 0
    described = json.loads((tmp_path / "study" / "study.json").read_text())
    assert described["runs"] == {name: str(done[0] / folder) for name, folder in given.items()}


_OWN = """
from dataclasses import dataclass
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.experiments.configuration import Experiment


@dataclass(frozen=True)
class OwnRl2(Rl2Config):
    pass


OWN = Experiment("half-cheetah-dynamics", OwnRl2())
"""


@pytest.mark.parametrize("kind", ["file", "module", "installed"])
def test_a_run_of_an_experiment_of_ones_own_is_taken_with_what_it_is_of(
    kind: str, done: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"own_of_a_study_{kind}"
    file = tmp_path / f"{module}.py"
    file.write_text(_OWN)
    monkeypatch.syspath_prepend(tmp_path)
    word = {"file": f"{file}:OWN", "module": f"{module}:OWN", "installed": "mine"}[kind]
    shutil.copytree(done[0] / "runs" / "rl2", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    config["experiment"]["agent"]["algorithm"] = f"{module}:OwnRl2"
    source = {"experiment": {"source": word.removeprefix(f"{tmp_path}/")}}
    path.write_text(json.dumps(config | {"sources": source}))
    study, given = _study(stable=None, gap=None), {"rl2": tmp_path / "run"}
    given |= {name: done[0] / "runs" / name for name in ("oracle", "promp")}
    with pytest.raises(ValueError, match=r"add --experiment|install"):
        command.run_study("tiny", study, tmp_path / "study", given)
    own: str | None = word
    if kind == "installed":
        (tmp_path / "mine-1.dist-info").mkdir()
        (tmp_path / "mine-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
        (tmp_path / "mine-1.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\nmine = {module}:OWN\n")
        own = None  # it is found where it is installed
    assert command.run_study("tiny", study, tmp_path / "study", given, own) == 0
    evaluation = json.loads((tmp_path / "study" / "evaluations" / "rl2.json").read_text())
    assert evaluation["experiment"]["agent"]["algorithm"] == f"{module}:OwnRl2"


def test_a_student_is_measured_beside_its_teacher(done: tuple[Path, Path], tmp_path: Path) -> None:
    policy = InformedPolicyConfig(memory_size=8, head_sizes=(8,), latent_size=2)
    agent = TeacherStudentConfig(policy=policy, teacher_fraction=0.5, minibatches=1, student_minibatches=1)
    experiment = Experiment("half-cheetah-dynamics", agent, *_ONCE, horizon=5, device="cpu")
    learners = (_study().learners[0], Learner("student", experiment))
    study = _study(stable=None, gap=None, learners=learners)
    folder = tmp_path / "study"
    assert command.run_study("tiny", study, folder, {"oracle": done[0] / "runs" / "oracle"}) == 0
    results = json.loads((folder / "results.json").read_text())
    assert list(results["learners"]) == ["oracle", "student-teacher", "student"]
    spent = {name: each["adaptation_env_steps"] for name, each in results["learners"].items()}
    assert spent == {"oracle": 0, "student-teacher": 0, "student": 20}
    for key in (INTERPOLATION, EXTRAPOLATION):
        learners_of = results["sets"][key]["learners"]
        teacher, student = learners_of["student-teacher"], learners_of["student"]
        assert [row["episodes"] for row in teacher["adaptation"]] == [0]
        assert teacher["episodes_per_task_and_point"] == 10  # two trials of five episodes
        assert teacher["adaptation"][0]["worst_decile_cross_fitted"]
        # Episodes of 5 steps of 0.05 s.
        assert [row["robot_time_s_at_most"] for row in student["adaptation"]] == pytest.approx(
            [0.0, 0.25, 0.5, 0.75, 1.0]
        )
    with pytest.raises(ValueError, match="learners must have names of their own"):
        replace(study, learners=(*learners, replace(_study().learners[1], name="student-teacher")))


def test_another_study_does_not_go_into_the_folder(done: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = done
    with pytest.raises(ValueError, match="holds another study: it differs in num_tasks, seed; give another --out"):
        command.run_study("tiny", _study(seed=3, num_tasks=4), folder, {})
    (tmp_path / "notes").mkdir()
    with pytest.raises(ValueError, match="exists and is no study's folder"):
        command.run_study("tiny", _study(), tmp_path / "notes", {})


def test_a_study_that_was_begun_with_old_names_of_fields_goes_on(tmp_path: Path) -> None:
    results = Path(__file__).resolve().parents[2] / "experiments" / "results"
    stored = results / "study-half-cheetah-dynamics-seed0" / "study.json"
    assert "adaptation_learning_rate" in json.loads(stored.read_text())["stable"]
    shutil.copy(stored, tmp_path)
    name = "half-cheetah-dynamics"
    assert command._open(name, STUDIES[name].configuration, tmp_path, {}) == tmp_path
    assert STUDIES[name].configuration.stable is not None
    changed = replace(
        STUDIES[name].configuration, stable=replace(STUDIES[name].configuration.stable, inner_lr=1e-3)
    )
    with pytest.raises(ValueError, match="holds another study: it differs in stable"):
        command._open(name, changed, tmp_path, {})


def test_regret_and_worst_decile_by_hand() -> None:
    tasks = tuple(Task.of("half-cheetah-vel", velocity=float(v)) for v in range(2))
    sets = {"test": HeldOut(HalfCheetahVel(), tasks, "two")}
    study = _study("half-cheetah-vel", stable=None, gap=None)
    common = {"train_env_steps": 1, "train_wall_s": 1.0, "episodes_per_step": 1}
    oracle = {"episodes": [0, 1], "returns": [[10.0, 20.0], [14.0, 20.0]]}  # means by task: 12 and 20
    other = {"episodes": [0, 1], "returns": [[2.0, 25.0], [11.0, 18.0]]}
    evaluations = {name: {**common, "sets": {"test": r}} for name, r in (("oracle", oracle), ("rl2", other))}
    rows = summarise("tiny", study, sets, evaluations)["sets"]["test"]["learners"]["rl2"]
    assert [row["return_mean"] for row in rows["adaptation"]] == [13.5, 14.5]
    assert [row["return_worst_decile"] for row in rows["adaptation"]] == [2.0, 11.0]
    assert not rows["adaptation"][0]["worst_decile_cross_fitted"]
    # Differences on the same task: 10 and -5 at first, whose standard error is 7.5; t of one degree is 12.706.
    assert rows["adaptation"][0]["regret_ci95"] == pytest.approx(
        [2.5 - 12.706 * 7.5, 2.5 + 12.706 * 7.5], rel=1e-3
    )
    assert [row["regret_mean"] for row in rows["adaptation"]] == [2.5, 1.5]
    assert [row["env_steps_at_most"] for row in rows["adaptation"]] == [0, 5]
    assert [task["regret"] for task in rows["tasks"]] == [[10.0, 1.0], [-5.0, 2.0]]
    # Either half chooses the task that the other measures: task 0 by both at first, then 0 and 1.
    split = other | {"halves": [[[1.0, 24.0], [10.0, 19.0]], [[3.0, 26.0], [12.0, 7.0]]]}
    evaluations["rl2"] = {**common, "sets": {"test": split}}
    rows = summarise("tiny", study, sets, evaluations)["sets"]["test"]["learners"]["rl2"]["adaptation"]
    assert [row["return_worst_decile"] for row in rows] == [2.0, (12.0 + 19.0) / 2]
    assert rows[0]["worst_decile_cross_fitted"]


def test_held_out_tasks_are_checked() -> None:
    sets = held_out_sets(_study())
    assert sets[GAP].tasks == sets[INTERPOLATION].tasks
    assert not set(sets[EXTRAPOLATION].tasks) & set(sets[INTERPOLATION].tasks)
    benchmark = make_benchmark("half-cheetah-dynamics")
    trained = tuple(benchmark.train.sample(2, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="is a training task of half-cheetah-dynamics"):
        check_disjoint(benchmark, {"test": HeldOut(benchmark.family, trained, "")})
    points = make_benchmark("point")
    some = tuple(points.train.sample(2, np.random.default_rng(0)))
    finite = replace(points, train=FiniteTasks(points.family, some))
    with pytest.raises(ValueError, match="is a training task of point"):
        check_disjoint(finite, {"test": HeldOut(points.family, some, "")})
    with pytest.raises(ValueError, match="is in one and in two"):
        check_disjoint(points, {name: HeldOut(points.family, some, "") for name in ("one", "two")})
    with pytest.raises(ValueError, match="ant-dir tests on its training tasks"):
        check_disjoint(make_benchmark("ant-dir"), {})
    with pytest.raises(ValueError, match="a simulator gap needs a dynamics benchmark, got point"):
        held_out_sets(_study("point", learners=_study("point").learners))


def test_a_benchmark_that_holds_no_cells_out_is_refused() -> None:
    name = "half-cheetah-mass-friction"
    with pytest.raises(ValueError, match=f"{name} trains on all of its ranges"):
        held_out_sets(_study(name, gap=None))
    benchmark = make_benchmark(name)
    inside = tuple(DynamicsTasks(dynamics_family(name), "interpolation").sample(2, np.random.default_rng(0)))
    with pytest.raises(ValueError, match=f"is a training task of {name}"):
        check_disjoint(benchmark, {"test": HeldOut(benchmark.family, inside, "")})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oracle": "promp"}, "the oracle alone observes its task"),
        ({"oracle": "nobody"}, "must be one of the learners oracle, rl2, promp, got 'nobody'"),
        ({"num_episodes": 1}, "at least 2, those of a gradient step of promp, got 1"),
        ({"horizon": 7}, "learner oracle must train on half-cheetah-dynamics with horizon 7"),
        ({"benchmark": "point"}, "must train on point"),
        ({"num_tasks": 0}, "num_tasks must be at least 1, got 0"),
        ({"learners": _study().learners[:1] * 2}, "names of their own"),
    ],
)
def test_a_study_that_makes_no_sense_is_one_line(changes: dict[str, Any], message: str) -> None:
    study = _study()
    with pytest.raises(ValueError, match=message):
        replace(study, **changes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study"], "study needs a study's name; known: half-cheetah-dynamics"),
        (["study", "moon"], "unknown study 'moon'; known: half-cheetah-dynamics"),
        (["study", "quick", "--runs", "rl2"], "--runs must be NAME=DIR with a NAME of"),
        (["study", "quick", "--runs", "rl3=here"], "got 'rl3=here'"),
        (["study", "quick", "--runs", "rl2=nowhere"], "nowhere is not a run folder"),
        (["study", "quick", "--runs", "rl2=a", "rl2=b"], "--runs names rl2 twice, a and b"),
        (["study", "quick", "--runs", "rl2=a", "--runs", "rl2=b"], "--runs names rl2 twice, a and b"),
        (["study", "quick", "--num-tasks", "0"], "num_tasks must be at least 1, got 0"),
        (["study", "quick", "--seed", "-1"], "seed must be at least 0"),
        (["study", "quick", "--speed", "2"], "--speed"),
        (["study", "quick", "--benchmark", "no.yaml"], "cannot read the family file"),
        (["train", "half-cheetah-dir-promp", "--benchmark", "no.yaml"], "cannot read the family file"),
    ],
)
def test_a_bad_argument_is_one_line_and_leaves_nothing(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in _error(capsys, words)
    assert not list(tmp_path.iterdir())


def test_studies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "studies"]) == 0
    assert all(name in capsys.readouterr().out for name in ["half-cheetah-dynamics"])
    assert main(["study", "--help"]) == 0
    for preset in STUDIES.values():
        held_out_sets(preset.configuration)


def test_the_time_left_follows_the_pace_of_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 0.0, 240.0, 240.0))
    monkeypatch.setattr("metarl.experiments.study.running.time.monotonic", lambda: next(clock))
    time_left = TimeLeft({"a": 2.0, "b": 3.0, "c": 1.0})
    time_left.begin("a", "training")
    assert time_left.left_s == 360.0
    time_left.end("a", worked=True)  # 4 minutes in the place of 2
    assert time_left.left_s == 480.0
    time_left.end("b", worked=False)
    assert time_left.left_s == 120.0


def test_a_study_that_is_stopped_goes_on_where_it_was(
    done: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, folder = _study(stable=None, gap=None), tmp_path / "stopped"
    learn, trained = running.train_shown, []

    def stops_at_the_second(run: Run, loggers: Sequence[Logger]) -> tuple[Progress, bool]:
        trained.append(run.name)
        return learn(run, loggers)[0], len(trained) == 2

    monkeypatch.setattr(running, "train_shown", stops_at_the_second)
    assert command.run_study("tiny", study, folder, {}) == 130
    assert f"go on with the same command and --out {folder}" in capsys.readouterr().out
    assert {p.stem for p in (folder / "evaluations").iterdir()} == {"oracle"}
    assert not (folder / "results.json").exists()
    assert command.run_study("tiny", study, folder, {}) == 0
    assert trained == ["oracle", "rl2", "rl2", "promp"]
    here, there = (json.loads(p.read_text())["sets"] for p in (folder / "results.json", done[1]))
    for key in (INTERPOLATION, EXTRAPOLATION):
        for name in ("oracle", "rl2", "promp"):
            assert here[key]["learners"][name]["tasks"] == there[key]["learners"][name]["tasks"]


@pytest.mark.parametrize("place", ["held_out_sets", "run_parts", "show"])
def test_a_study_that_is_stopped_anywhere_says_how_to_go_on(
    done: tuple[Path, Path], place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, place, stopped)
    assert command.run_study("tiny", _study(), done[0], {}) == 130
    assert f"go on with the same command and --out {done[0]}" in capsys.readouterr().out
    if place == "held_out_sets":
        assert command.run_study("tiny", _study(), None, {}) == 130
        assert capsys.readouterr().out.strip().endswith("go on with the same command")


def test_a_family_file_is_trained_and_studied_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ranges = "[{field: density, low: 0.5, high: 2, ring: 0.25}, {field: tilt, low: -5, high: 5}]"
    Path("mine.yaml").write_text(f"{{name: mine, robot: half-cheetah, ranges: {ranges}}}")
    study = on_benchmark(_study(stable=None), "mine.yaml")
    assert study.benchmark == str(tmp_path / "mine.yaml")
    monkeypatch.chdir("/")  # a path is known from anywhere
    assert command.run_study("mine", study, tmp_path / "study", {}) == 0
    found = json.loads((tmp_path / "study" / "results.json").read_text())
    assert set(found["sets"]) == {INTERPOLATION, EXTRAPOLATION, GAP}
    run = open_run(tmp_path / "study" / "runs" / "rl2")
    assert {task.family for task in run.test_tasks} == {"mine"}
    assert run.benchmark.train.region == "train"  # type: ignore[attr-defined]


def test_the_figure_is_drawn_where_matplotlib_is(done: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra report is not installed")
    draw(json.loads(done[1].read_text()), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_study_says_how_to_get_it(
    done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "can_draw", lambda: False)
    assert command.run_study("tiny", _study(), done[0], {}) == 0
    assert 'pip install "metarl-toolkit[report]"' in capsys.readouterr().out
