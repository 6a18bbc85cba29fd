"""Rewards of a user's own for robots of family files, from the command line and from Python."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import metarl
from metarl.experiments.cli import main
from metarl.experiments.commands import train
from metarl.experiments.loading import open_again
from metarl.experiments.outside import load_object
from metarl.experiments.seeds import Member
from metarl.experiments.settings import settings_for
from metarl.training import EvaluationConfig, TrainingConfig
from tests.experiments.tiny import TINY

FAMILY = """
name: slider
model: slider.xml
horizon: 6
ranges: [{field: damping, low: 0.5, high: 2}, {field: target, name: goal, low: -1, high: 1}]
places: [hand]
"""
MODEL = """<mujoco>
<worldbody><body name="hand"><joint name="j" type="slide" damping="1"/><geom size="0.1"/></body></worldbody>
<actuator><motor joint="j" ctrlrange="-1 1" ctrllimited="true"/></actuator></mujoco>"""
REWARDS = """
from dataclasses import dataclass
import numpy as np

def reach(motion, actions):
    return {"near": -np.abs(motion.positions["hand"][:, 2] - motion.params["goal"])}

@dataclass(frozen=True)
class Scaled:
    scale: float

    def __call__(self, motion, actions):
        return {name: self.scale * term for name, term in reach(motion, actions).items()}

TWICE = Scaled(2.0)
NUMBER = 3

def array(motion, actions):
    return -np.abs(motion.qpos[:, 0])

def nothing(motion, actions):
    pass

def short(motion, actions):
    return {"near": 1.0}

def infinite(motion, actions):
    return {"near": np.full(len(actions), np.inf)}

def elsewhere(motion, actions):
    return {"near": motion.positions["foot"][:, 0]}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of rewards, by a name that no other test has loaded, and beside it a family that needs one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slider.yaml").write_text(FAMILY)
    (tmp_path / "slider.xml").write_text(MODEL)
    (tmp_path / "own").mkdir()
    name = f"own/rewards_{tmp_path.name.replace('-', '_')}.py"
    (tmp_path / name).write_text(REWARDS)
    return name


def _train(reward: str, *more: str) -> int:
    return main(["train", "promp", "--benchmark", "slider.yaml", "--reward", reward, *TINY, *more])


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["reach", "TWICE"])
def test_a_reward_of_a_file_is_trained_on_and_needed_again(
    name: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(f"{file}:{name}", "--out", "run") == 0
    assert f"metarl evaluate run --reward {file}:{name}\n" in capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["sources"]["reward"]["source"] == f"{Path(file).name}:{name}"
    assert not list((tmp_path / "run").rglob("*.py"))
    assert main(["evaluate", "run"]) == 2
    assert f"add --reward {Path(file).name}:{name}" in _error(capsys)
    (tmp_path / "slider.yaml").unlink()  # a copy is read
    assert main(["evaluate", "run", "--reward", f"{file}:{name}", "--num-tasks", "2"]) == 0
    assert main(["resume", "run", "--reward", f"{file}:{name}", "--iterations", "2"]) == 0
    (tmp_path / file).write_text(REWARDS + "\n# changed\n")
    capsys.readouterr()
    assert main(["evaluate", "run", "--reward", f"{file}:{name}", "--num-tasks", "2"]) == 0
    assert f"{file}:{name} has changed since the run was made" in capsys.readouterr().err


@pytest.mark.thorough
def test_the_reward_is_what_is_earned(file: str) -> None:
    assert _train(f"{file}:reach", "--out", "once") == 0
    assert _train(f"{file}:TWICE", "--out", "twice") == 0
    once = metarl.open_run("once", reward=f"{file}:reach").evaluate(num_tasks=2)
    twice = metarl.open_run("twice", reward=f"{file}:TWICE").evaluate(num_tasks=2)
    untrained = [result["baselines"]["untrained"][0]["return_mean"] for result in (once, twice)]
    assert untrained[0] < 0
    assert untrained[1] == pytest.approx(2 * untrained[0], rel=1e-5)


def test_runs_of_several_seeds_find_the_reward_in_its_folder(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Member] = []
    monkeypatch.setattr(train, "finish_group", lambda folder, members, place: begun.extend(members) or 0)
    assert _train(f"{file}:reach", "--seeds", "2", "--out", "runs") == 0
    assert [open_again(member.folder, member.own).experiment.seed for member in begun] == [0, 1]


@pytest.mark.thorough
def test_a_reward_is_given_from_python(file: str) -> None:
    reward, _ = load_object(f"{file}:reach")
    experiment = settings_for("rl2", "slider.yaml", reward)
    small = TrainingConfig(iterations=1, meta_batch_size=2, evaluate_every=0)
    experiment = replace(experiment, training=small, evaluation=EvaluationConfig(2, 1, 2), num_threads=1)
    run = metarl.train(experiment)
    assert dict(run.sources)["reward"]["source"] == f"{Path(file).name}:reach"
    assert "experiment" not in run.sources
    assert metarl.open_run(run.folder, reward=f"{file}:reach").experiment == experiment
    assert metarl.open_run(run.folder, experiment=experiment).experiment == experiment


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "NUMBER",
            "must be a function of (motion, actions) that returns named terms, or an object like one, got int",
        ),
        ("Scaled", "got the class Scaled"),
        ("gone", "has no 'gone'"),
        (
            "array",
            "the reward of slider must return named terms, {name: array of one number per row}, got an array",
        ),
        ("nothing", "the reward of slider must return named terms, {name: array of one number per row}, got None"),
        (
            "short",
            "the term 'near' of the reward of slider must be an array of shape (1,), a number per row, got 1.0",
        ),
        ("infinite", "the term 'near' of the reward of slider must be finite, got inf"),
        ("elsewhere", "KeyError: 'foot'; a reward reads the bodies and sites that `places` of the family names"),
    ],
)
def test_a_mistake_in_a_reward_is_one_line_and_leaves_no_folder(
    name: str, said: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(f"{file}:{name}", "--out", "run") == 2
    assert said in _error(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["promp", "--benchmark", "point"],
            "needs a YAML family as the benchmark, got point",
        ),
        (["point-promp"], "needs a YAML family as the benchmark, got point"),
        (["sinusoid-maml"], "--reward is of meta-RL on YAML families, got the few-shot experiment sinusoid-maml"),
    ],
)
def test_other_experiments_have_rewards_of_their_own(
    words: list[str], said: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words, "--reward", f"{file}:reach"]) == 2
    assert said in _error(capsys)
