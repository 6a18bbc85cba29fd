"""Algorithms and benchmarks by name: settings for every kind of benchmark, from the shell and from Python."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import metarl
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.varibad import VaribadConfig
from metarl.envs import make_benchmark
from metarl.experiments.catalogue import title
from metarl.experiments.cli import main
from metarl.experiments.configuration import ALGORITHMS, experiment_benchmark, make_agent
from metarl.experiments.presets.table import preset
from metarl.experiments.settings import kind_of, settings_for
from metarl.training import EvaluationConfig

_TOY = {"bandit": "gaussian-bandit-k2", "grid": "gridnavi", "point": "sparse-point-100"}
_OWN = """
import gymnasium
import numpy as np
from metarl.envs import CustomFamily
from metarl.tasks import Parameter


class Line(gymnasium.Env):
    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self):
        self.target = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(action == (self.target > 0)), False, False, {}


def give(env, task):
    env.target = task["target"]


LINE = CustomFamily("line", [Parameter("target", low=-1, high=1)], make=Line, set_task=give, horizon=40)
"""


@pytest.mark.parametrize(
    ("benchmark", "kind"),
    [
        ("bernoulli-bandit-k5", "bandit"),
        ("tabular-mdp", "grid"),
        ("gridnavi", "grid"),
        ("point", "point"),
        ("sparse-point", "point"),
        ("half-cheetah-vel", "robot"),
        ("ant-goal", "robot"),
    ],
)
def test_the_kind_of_a_benchmark_follows_from_its_spaces_and_episodes(benchmark: str, kind: str) -> None:
    assert kind_of(make_benchmark(benchmark)) == kind


@pytest.mark.parametrize(
    ("algorithm", "benchmark", "name"),
    [
        ("promp", "point", "point-promp"),
        ("maml-trpo", "point", "point-maml-trpo"),
        ("es-maml", "point", "point-es-maml"),
        ("promp", "half-cheetah-dir", "half-cheetah-dir-promp"),  # and not the quick start
        ("rl2", "half-cheetah-vel", "half-cheetah-vel-rl2"),
        ("rl2", "tabular-mdp", "tabular-n10-rl2"),
        ("pearl", "half-cheetah-vel", "half-cheetah-vel-pearl"),
        ("pearl", "ml1-push", "ml1-push-pearl"),
        ("varibad", "gridnavi", "gridnavi-varibad"),
        ("varibad", "half-cheetah-dir", "half-cheetah-dir-varibad"),
        ("teacher-student", "half-cheetah-dynamics", "half-cheetah-dynamics-teacher-student"),
        ("memory-sac", "gridnavi", "gridnavi-memory-sac"),
        ("memory-sac", "half-cheetah-vel", "half-cheetah-vel-memory-sac"),
    ],
)
def test_what_a_preset_does_has_its_settings(algorithm: str, benchmark: str, name: str) -> None:
    assert settings_for(algorithm, benchmark) == preset(name)


@pytest.mark.parametrize("algorithm", ["promp", "maml-trpo", "rl2", "varibad", "es-maml", "reptile", "multi-task"])
@pytest.mark.parametrize("kind", sorted(_TOY))
def test_each_algorithm_trains_on_toys_of_each_kind_by_name(algorithm: str, kind: str, tmp_path: Path) -> None:
    experiment = settings_for(algorithm, _TOY[kind])
    assert kind_of(experiment_benchmark(experiment)) == kind
    training = replace(experiment.training, iterations=1, meta_batch_size=2, evaluate_every=0)
    experiment = replace(
        experiment,
        training=training,
        evaluation=EvaluationConfig(2, 1, 1),
        horizon=20 if kind == "point" else experiment.horizon,
        num_threads=1,
        loggers=("csv",),
    )
    run = metarl.train(experiment, out=tmp_path / "run")
    assert run.name == f"{_TOY[kind]}-{algorithm}"
    assert len((run.folder / "metrics.csv").read_text().splitlines()) == 2


@pytest.mark.thorough
@pytest.mark.parametrize("kind", sorted(_TOY))
def test_memory_sac_trains_on_toys_of_each_kind_by_name(kind: str, tmp_path: Path) -> None:
    experiment = settings_for("memory-sac", _TOY[kind])
    agent = replace(experiment.agent, num_updates=2, batch_size=4)  # type: ignore[call-arg]
    training = replace(experiment.training, iterations=1, meta_batch_size=4, evaluate_every=0)
    tiny = {"training": training, "evaluation": EvaluationConfig(2, 1, 1), "num_threads": 1, "loggers": ("csv",)}
    run = metarl.train(replace(experiment, agent=agent, **tiny), out=tmp_path / "run")
    assert run.name == f"{_TOY[kind]}-memory-sac"
    assert len((run.folder / "metrics.csv").read_text().splitlines()) == 2


@pytest.mark.thorough
def test_pearl_trains_on_a_point_robot_by_name_with_tasks_of_its_own(tmp_path: Path) -> None:
    experiment = settings_for("pearl", "point")
    assert experiment.num_train_tasks == 100
    assert settings_for("pearl", "ant-dir-2d").num_train_tasks == 100
    assert settings_for("pearl", "humanoid-dir-2").num_train_tasks is None  # there are two
    agent = replace(experiment.agent, num_updates=2, num_initial_episodes=1)  # type: ignore[call-arg]
    training = replace(experiment.training, iterations=1, meta_batch_size=2, evaluate_every=0)
    experiment = replace(
        experiment,
        agent=agent,
        training=training,
        evaluation=EvaluationConfig(2, 1, 1),
        horizon=5,
        num_threads=1,
        loggers=("csv",),
    )
    assert metarl.train(experiment, out=tmp_path / "run").name == "point-pearl"


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@pytest.mark.parametrize("benchmark", ["half-cheetah-vel-2", "hopper-dynamics", "ant-goal-square"])
def test_each_algorithm_is_made_for_robots_by_name(algorithm: str, benchmark: str) -> None:
    experiment = replace(settings_for(algorithm, benchmark), num_threads=1)
    if algorithm == "pearl":
        experiment = replace(experiment, agent=replace(experiment.agent, replay_capacity=5_000))  # type: ignore[call-arg]
    made = experiment_benchmark(experiment)
    assert kind_of(made) == "robot"
    assert type(make_agent(experiment, made).config) is ALGORITHMS[algorithm]
    assert title(experiment) == f"{benchmark}-{algorithm}"


@pytest.mark.parametrize("algorithm", ["promp", "maml-trpo", "rl2", "pearl"])
def test_other_benchmarks_of_meta_world_have_the_settings_of_those_with_presets(algorithm: str) -> None:
    pytest.importorskip("metaworld")
    expected = replace(preset(f"ml1-reach-{algorithm}"), benchmark="ml1-door-open")
    assert settings_for(algorithm, "ml1-door-open") == expected
    assert settings_for(algorithm, "ml25") == replace(preset(f"ml10-{algorithm}"), benchmark="ml25")
    assert title(expected) == f"ml1-door-open-{algorithm}"


def test_memory_sac_has_the_settings_of_its_preset_on_other_tasks_of_meta_world() -> None:
    pytest.importorskip("metaworld")
    expected = replace(preset("ml1-reach-memory-sac"), benchmark="ml1-reach+fresh-goals")
    assert settings_for("memory-sac", "ml1-reach+fresh-goals") == expected


def test_varibad_has_rl2s_trials_where_it_has_no_preset() -> None:
    pytest.importorskip("metaworld")
    for benchmark, like in (("ml1-door-open", "ml1-reach-rl2"), ("ml25", "ml10-rl2")):
        experiment, known = settings_for("varibad", benchmark), preset(like)
        agent, rl2 = experiment.agent, known.agent
        assert isinstance(agent, VaribadConfig)
        assert isinstance(rl2, Rl2Config)
        assert (agent.num_episodes, agent.gamma, agent.epochs) == (rl2.num_episodes, rl2.gamma, rl2.epochs)
        assert replace(experiment, agent=rl2) == replace(known, benchmark=benchmark)
        assert title(experiment) == f"{benchmark}-varibad"


def test_what_no_preset_trains_on_meta_world_has_the_settings_for_robots() -> None:
    pytest.importorskip("metaworld")
    experiment = settings_for("es-maml", "ml1-door-open")
    assert experiment == replace(settings_for("es-maml", "half-cheetah-vel-2"), benchmark="ml1-door-open")


_SHORT = ["--training.iterations", "1", "--training.meta-batch-size", "2", "--training.evaluate-every", "0"]
_SHORT += ["--evaluation.num-tasks", "2", "--evaluation.num-episodes", "2", "--num-threads", "1"]


@pytest.mark.thorough
def test_a_run_from_the_shell_is_named_after_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--horizon", "5", "--seed", "3", *_SHORT]
    assert main(["train", "rl2", *words, "--benchmark", "point"]) == 0
    assert "point-rl2: goal in" in capsys.readouterr().out
    folder = tmp_path / "runs" / "point-rl2-seed3"
    config = json.loads((folder / "config.json").read_text())
    assert config["name"] == "point-rl2"
    assert config["experiment"]["benchmark"] == "point"
    assert config["experiment"]["agent"]["algorithm"] == "rl2"
    assert main(["train", "rl2", "--benchmark=point", *words]) == 0
    assert (tmp_path / "runs" / "point-rl2-seed3-2").is_dir()


@pytest.mark.thorough
def test_a_family_of_a_file_is_trained_by_an_algorithm_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    module = f"line_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(_OWN)
    word = f"{module}.py:LINE"
    assert main(["train", "maml-trpo", "--benchmark", word, *_SHORT, "--out", "run"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["name"] == "line-maml-trpo"
    assert config["sources"]["benchmark"]["source"] == word
    assert config["experiment"]["agent"]["adaptation"]["gae_lambda"] == 0.95  # the episodes are long
    assert main(["evaluate", "run", "--benchmark", word]) == 0
    capsys.readouterr()
    assert main(["train", "pearl", "--benchmark", word, *_SHORT]) == 2
    assert capsys.readouterr().err.startswith("metarl: error: PEARL takes bounded Box actions, got Discrete(2)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rl2"], "rl2 is an algorithm and needs a benchmark: `metarl train rl2 --benchmark point`"),
        (["pearl", "--benchmark", "gridnavi"], "PEARL takes bounded Box actions, got Discrete(5)"),
        (["pearl", "--benchmark", "bernoulli-bandit-k5"], "PEARL takes bounded Box actions, got Discrete(5)"),
        (["promp", "--benchmark", "pint"], "unknown benchmark 'pint'"),
        (["promp", "--benchmark"], "promp is an algorithm and needs a benchmark"),
        (["half-cheetah-dir"], f"`metarl train {'|'.join(ALGORITHMS)} --benchmark half-cheetah-dir`"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_no_folder(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_describes_the_fields_of_an_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "rl2", "--help"])
    assert stop.value.code == 0
    assert "--agent.policy.memory-size" in capsys.readouterr().out
