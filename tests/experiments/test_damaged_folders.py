"""Run and study folders whose files are damaged: one line that names the file, whatever is wrong in it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from metarl.envs.mujoco.families import HalfCheetahVel
from metarl.experiments import cli
from metarl.experiments.cli import main
from metarl.experiments.study import command, fine_tuning
from metarl.experiments.study.configuration import StablePpo
from metarl.experiments.study.evaluations import read_evaluation
from metarl.experiments.study.held_out import held_out_sets
from metarl.experiments.study.stable_baselines import Snapshot, StableLearner
from metarl.runs.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from metarl.tasks import Task
from tests.experiments.test_cli import TINY
from tests.experiments.test_study import _study


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "point"
    assert main(["train", "point-promp", "--out", str(folder), *TINY, "--training.iterations", "1"]) == 0
    return folder


def _error(capsys: pytest.CaptureFixture[str], words: list[str], status: int = 2) -> str:
    capsys.readouterr()
    assert main(words) == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: [config], "expected an experiment and a name"),
        (lambda config: config | {"experiment": [1]}, "expected an experiment and a name"),
        (lambda config: config | {"name": None}, "expected an experiment and a name"),
        (lambda config: config | {"sources": ["a.py"]}, "sources must say where the experiment came from"),
        (lambda config: config | {"sources": {"experiment": None}}, "sources must say where"),
        (lambda config: config | {"sources": {"benchmark": {}}}, "sources must say where"),
        (lambda config: config | {"sources": {"weights": {"run": "x"}}}, "sources must say where"),
        (lambda config: config | {"kind": ["rl"]}, "kind must be rl or few-shot, got ['rl']"),
    ],
)
def test_a_configuration_that_is_none_is_one_line(
    change: Callable[[Any], Any], message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    line = _error(capsys, ["evaluate", str(tmp_path / "run")])
    assert message in line
    assert str(path) in line


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "NaN", "\x00", '{"name": 1, "name": 2}', "\ud800"])
def test_a_configuration_that_is_no_plain_json_is_one_line(
    text: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(text, errors="surrogatepass")
    for words in (["resume"], ["resume", "--iterations", "9"], ["evaluate"]):
        assert "the configuration" in _error(capsys, [words[0], str(tmp_path / "run"), *words[1:]])


def test_an_error_fits_on_a_screen_whatever_it_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    line = _error(capsys, ["train", "x" * 5000])
    assert line.startswith("metarl: error: unknown experiment 'xxx")
    assert " ... " in line
    assert len(line) < 1100


def _model_of(memory: str) -> mujoco.MjData:
    body = '<body pos="0 0 1"><freejoint/><geom size="1"/></body>'
    xml = f'<mujoco><size memory="{memory}"/><worldbody>{body}{body}</worldbody></mujoco>'
    return mujoco.MjData(mujoco.MjModel.from_xml_string(xml))


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "use",
    [
        lambda: torch.empty(2**50),
        lambda: torch.empty(2**62),
        lambda: _model_of("900T"),
        lambda: _model_of("1K"),
        lambda: _raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee")),
        lambda: _raise(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.")),
        lambda: _raise(mujoco.FatalError("mj_stackAlloc: out of memory, stack overflow\n  max = 1")),
    ],
    ids=["torch", "torch's count", "MuJoCo", "MuJoCo's stack", "CUDA", "torch's words", "MuJoCo's words"],
)
def test_too_little_memory_is_one_line(
    use: Callable[[], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_run", lambda words: use())
    assert "not enough memory for what was asked" in _error(capsys, ["train"])


@pytest.mark.parametrize("kind", [mujoco.FatalError, mujoco.UnexpectedError])
def test_an_error_of_the_simulator_is_one_line(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_run", lambda words: _raise(kind("engine error: cannot\nfactorise")))
    assert _error(capsys, ["train"]) == "metarl: error: engine error: cannot factorise"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: [data], "expected an evaluation with the sets"),
        (lambda data: data | {"sets": {}}, "expected an evaluation with the sets"),
        (lambda data: data | {"train_wall_s": True}, "train_wall_s must be a number"),
        (lambda data: data | {"episodes_per_step": None}, "episodes_per_step must be"),
        (lambda data: _curve(data, "episodes", [-1]), "episodes must be a list of counts"),
        (lambda data: _curve(data, "returns", [[1.0]]), "returns must have shape (2, 3)"),
        (lambda data: _curve(data, "halves", "x"), "halves must have shape (2, 2, 3)"),
        (lambda data: _curve(data, "returns", [[None] * 3] * 2), "finite numbers, got None"),
    ],
)
def test_a_damaged_evaluation_of_a_study_is_one_line(
    change: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    sets, path = held_out_sets(_study(gap=None)), tmp_path / "oracle.json"
    curve = {"episodes": [0, 4], "returns": [[1.0] * 3] * 2, "halves": [[[1.0] * 3] * 2] * 2}
    data = {"train_env_steps": 40, "train_wall_s": 0.5, "episodes_per_step": 1}
    whole = data | {"sets": dict.fromkeys(sets, curve)}
    path.write_text(json.dumps(whole))
    assert read_evaluation(path, sets) == whole
    path.write_text(json.dumps(change(whole)))
    with pytest.raises(ValueError, match="delete it to measure again") as raised:
        read_evaluation(path, sets)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def _curve(data: Any, name: str, value: Any) -> Any:
    return data | {"sets": {key: curve | {name: value} for key, curve in data["sets"].items()}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: [data], "holds another study"),
        (lambda data: data | {"num_tasks": 9}, "differs in num_tasks"),
        (lambda data: data | {"learners": {"oracle": {}}}, "study.json cannot be read: "),
        (lambda data: data | {"stable": {"x": 1}}, "study.json cannot be read: "),
    ],
)
def test_a_damaged_description_of_a_study_is_one_line(
    change: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    study, folder = _study(gap=None), tmp_path / "study"
    assert command._open("tiny", study, folder, {}) == folder
    assert command._open("tiny", study, folder, {}) == folder  # again, with what is written there
    path = folder / "study.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the messages are below
        command.run_study("tiny", study, folder, {})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["{}", "[]", '{"wall_s": "x"}', "{"])
def test_a_damaged_time_of_ppo_is_one_line(content: str, tmp_path: Path) -> None:
    study = _study(gap=None)
    assert study.stable is not None
    save_checkpoint(tmp_path, {"of": "Stable-Baselines3 PPO", "snapshot": _SNAPSHOT})
    (tmp_path / "took.json").write_text(content)
    with pytest.raises(ValueError, match=r"took\.json"):
        fine_tuning._randomised(study, study.stable, tmp_path)


def test_a_study_folder_appears_with_its_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path, data: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "write_json", fails)
    assert command.run_study("tiny", _study(), tmp_path / "study", {}) == 130
    assert not list(tmp_path.iterdir())


_UNITS = {"mean": torch.zeros(2), "variance": torch.ones(2), "return_mean": 0.5, "return_variance": 2.0}
_SNAPSHOT = {"policy": {"w": torch.ones(1)}, **_UNITS, "num_observations": 30.0, "num_returns": 40.0, "steps": 50}


@pytest.mark.parametrize(
    "snapshot",
    [
        None,
        {},
        _SNAPSHOT | {"steps": "x"},
        _SNAPSHOT | {"policy": {"w": 1}},
        _SNAPSHOT | {"policy": [torch.ones(1)]},
        _SNAPSHOT | {"mean": torch.full((2,), float("nan"))},
        _SNAPSHOT | {"return_mean": float("inf")},
        _SNAPSHOT | {"other": 1},
    ],
)
def test_a_damaged_snapshot_of_ppo_is_one_line(snapshot: object, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"of": "Stable-Baselines3 PPO", "snapshot": _SNAPSHOT})
    assert Snapshot.load(tmp_path / "checkpoint.pt").steps == 50
    save_checkpoint(tmp_path, {"of": "Stable-Baselines3 PPO", "snapshot": snapshot})
    with pytest.raises(CheckpointError, match=r"is no snapshot of PPO .*; delete it to train again"):
        Snapshot.load(tmp_path / "checkpoint.pt")


def test_a_snapshot_of_another_network_is_one_line(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"of": "Stable-Baselines3 PPO", "snapshot": _SNAPSHOT})
    start = Snapshot.load(tmp_path / "checkpoint.pt")
    shape = HalfCheetahVel().make_env(1, horizon=3, num_threads=1).single_observation_space.shape
    fitting = start._replace(mean=torch.zeros(shape or ()), variance=torch.ones(shape or ()))
    tasks = [Task.of("half-cheetah-vel", velocity=1.0)]
    for snapshot, message in ((start, "observations of shape"), (fitting, "another network")):
        env = HalfCheetahVel().make_env(1, horizon=3, num_threads=1)
        with pytest.raises(ValueError, match=message) as raised:
            StableLearner(env, lambda: tasks, StablePpo(num_envs=1), learning_rate=1e-3, seed=1, start=snapshot)
        assert "\n" not in str(raised.value)
        env.close()


@pytest.mark.thorough
@pytest.mark.parametrize("weights", [None, [torch.ones(2)], {"policy.x": 1}])
def test_weights_to_start_from_that_are_damaged_are_one_line(
    weights: object, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "warm"
    words = ["train", "point-promp", "--out", str(folder), *TINY, "--init-from", str(trained)]
    assert main([*words, "--training.iterations", "1"]) == 0
    state = load_checkpoint(folder / "initial.pt")
    assert all(isinstance(tensor, torch.Tensor) for tensor in state["weights"].values())
    for name in ("checkpoint.pt", "metrics.csv"):
        (folder / name).unlink()
    save_checkpoint(folder, state | {"weights": weights})
    (folder / "checkpoint.pt").rename(folder / "initial.pt")
    assert "initial.pt holds no weights to start from" in _error(capsys, ["resume", str(folder)])


def test_a_checkpoint_without_an_agent_is_no_start(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "other")
    save_checkpoint(tmp_path / "other", {"of": "nobody", "progress": {"iteration": 1, "env_steps": 1}})
    words = ["train", "point-promp", "--out", str(tmp_path / "run"), *TINY, "--init-from", str(tmp_path / "other")]
    assert "holds no agent or learner to start from" in _error(capsys, words)
    assert np.array_equal([path.name for path in tmp_path.iterdir()], ["other"])
