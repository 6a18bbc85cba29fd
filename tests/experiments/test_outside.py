"""Experiments of a user's own: from a file, with every command, and from Python."""

import json
from pathlib import Path

import pytest

import metarl
from metarl.experiments.catalogue import experiment_of_word
from metarl.experiments.cli import main
from metarl.experiments.loading import load_agent

_FILE = """
from dataclasses import dataclass
import gymnasium
from metarl.agents.promp import Promp, PrompConfig
from metarl.envs import make_benchmark
from metarl.experiments.configuration import Experiment
from metarl.training import EvaluationConfig, TrainingConfig


@dataclass(frozen=True)
class OwnConfig(PrompConfig):
    def make(self, setup):
        return Promp(setup.env, self, iterations=setup.iterations, seed=setup.seed, device=setup.device)


BENCHMARK = make_benchmark("point")
OWN = Experiment(
    BENCHMARK,
    OwnConfig(),
    training=TrainingConfig(iterations=2, meta_batch_size=2),
    evaluation=EvaluationConfig(num_tasks=2, num_steps=1, num_episodes=2),
    horizon=6,
    num_threads=1,
)
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's file, by a name that no other test has loaded."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"own_{tmp_path.name.replace('-', '_')}.py"
    path.write_text(_FILE)
    return path.name


@pytest.mark.thorough
def test_an_agent_of_a_file_trains_evaluates_resumes_and_loads(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", f"{file}:OWN", "--out", "run"]) == 0
    assert f"metarl evaluate run --experiment {file}:OWN\n" in capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["kind"] == "rl"
    assert config["sources"]["experiment"]["source"] == f"{file}:OWN"
    capsys.readouterr()
    assert main(["evaluate", "run"]) == 2
    assert f"add --experiment {file}:OWN" in capsys.readouterr().err
    assert main(["evaluate", "run", "--experiment", f"{file}:OWN", "--num-tasks", "2"]) == 0
    assert main(["resume", "run", "--experiment", f"{file}:OWN", "--iterations", "3"]) == 0
    run = metarl.open_run("run", experiment=f"{file}:OWN")
    assert type(run.agent().config).__name__ == "OwnConfig"


@pytest.mark.parametrize(
    ("mistaken", "message"),
    [
        ("return0Promp(setup", "line 13: NameError: name 'return0Promp' is not defined"),
        ("import json; json.dumps({1}); Promp(setup", "line 13: TypeError: Object of type set"),
    ],
)
def test_a_mistake_in_a_method_of_a_file_is_one_line_with_its_place(
    file: str, mistaken: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _FILE.count("return Promp(setup") == 1
    (tmp_path / file).write_text(_FILE.replace("return Promp(setup", mistaken))
    assert main(["train", f"{file}:OWN", "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"metarl: error: {tmp_path / file}, {message}")
    assert error.count("\n") == 1


def test_a_mistake_of_ours_beneath_a_file_is_not_blamed_on_it(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("metarl.agents.promp.torch")  # which the agent's own __init__ reads
    with pytest.raises(NameError, match="torch"):
        main(["train", f"{file}:OWN", "--out", "run"])


@pytest.mark.thorough
def test_what_a_benchmark_of_a_file_needs_again_is_said(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = (
        "--training.iterations 1 --training.meta-batch-size 2 --evaluation.num-tasks 2 --horizon 5 --num-threads 1"
    )
    assert main(["train", "promp", "--benchmark", f"{file}:BENCHMARK", *tiny.split(), "--out", "run"]) == 0
    again = f"run --benchmark {file}:BENCHMARK"
    assert f"metarl evaluate {again}\n" in capsys.readouterr().out
    assert main(["resume", *again.split(), "--iterations", "2"]) == 0
    assert f"metarl evaluate {again}\n" in capsys.readouterr().out


def test_a_file_that_has_changed_is_said(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"{file}:OWN", "--out", "run"]) == 0
    (tmp_path / file).write_text(_FILE + "\n# changed\n")
    capsys.readouterr()
    assert main(["evaluate", "run", "--experiment", f"{file}:OWN", "--num-tasks", "2"]) == 0
    assert f"{file}:OWN has changed since the run was made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nowhere.py:OWN", "no such file: nowhere.py"),
        ("FILE:ELSE", "has no 'ELSE'"),
        ("FILE:BENCHMARK", "is a benchmark or a family, expected an experiment; give it as --benchmark"),
        ("FILE:gymnasium", "must be an Experiment or a FewshotExperiment"),
    ],
)
def test_what_a_file_lacks_is_one_line(
    word: str, message: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", word.replace("FILE", file)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_made_by_python_is_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metarl.agents.promp import PrompConfig
    from metarl.experiments.configuration import Experiment
    from metarl.training import EvaluationConfig, TrainingConfig

    monkeypatch.chdir(tmp_path)
    experiment = Experiment(
        "point",
        PrompConfig(),
        training=TrainingConfig(iterations=1, meta_batch_size=2),
        evaluation=EvaluationConfig(num_tasks=2, num_steps=1, num_episodes=2),
        horizon=6,
        num_threads=1,
    )
    reported: list[int] = []
    run = metarl.train(experiment, report=lambda progress, metrics: reported.append(progress.iteration))
    assert reported == [1]
    assert run.folder.name == "point-promp-seed0"
    assert len(run.evaluate(num_tasks=3)["tasks"]) == 3
    assert main(["evaluate", str(run.folder)]) == 0


_FEWSHOT = """
from dataclasses import dataclass
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.fewshot.data.sinusoids import SinusoidData
from metarl.fewshot.learners.maml import MamlConfig
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig


@dataclass(frozen=True)
class OwnLearner(MamlConfig):
    pass


FEW = FewshotExperiment(
    SinusoidData(),
    OwnLearner(),
    training=FewshotTrainingConfig(iterations=1, updates_per_iteration=1, meta_batch_size=2),
    evaluation=FewshotEvaluationConfig(num_tasks=2, num_steps=1),
)
"""


@pytest.mark.parametrize("name", ["OWN", "FEW"])
@pytest.mark.parametrize("kind", ["FILE.py", "module", "installed"])
def test_every_command_takes_an_experiment_from_outside(
    kind: str, name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).write_text(_FILE + _FEWSHOT)
    module = file.removesuffix(".py")
    word = {"FILE.py": f"{file}:{name}", "module": f"{module}:{name}", "installed": "mine"}[kind]
    again = ["--experiment", word]
    if kind == "installed":
        package = tmp_path / "mine-1.0.dist-info"
        package.mkdir()
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
        (package / "entry_points.txt").write_text(f"[metarl.experiments]\nmine = {module}:{name}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        again = []  # it is found where it is installed
    assert main(["train", word, "--out", "run"]) == 0
    assert main(["resume", "run", "--iterations", "3", *again]) == 0
    assert main(["evaluate", "run", "--num-tasks", "2", *again]) == 0
    agent = load_agent("run", experiment=word if again else None)
    assert type(agent.config).__name__ == {"OWN": "OwnConfig", "FEW": "OwnLearner"}[name]


@pytest.mark.parametrize(
    ("part", "name"),
    [("RL2", "own-names-rl2"), ("BIG", "own-names-big-rl2"), ("small_promp", "own-names-small-promp")],
)
def test_runs_of_a_file_are_named_after_the_file_the_part_and_the_agent(
    part: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "own_names.py").write_text(
        "from metarl.agents.promp import PrompConfig\nfrom metarl.agents.rl2 import Rl2Config\n"
        "from metarl.experiments.configuration import Experiment\n"
        'RL2 = BIG = Experiment("point", Rl2Config())\nsmall_promp = Experiment("point", PrompConfig())\n'
    )
    assert experiment_of_word(f"{tmp_path / 'own_names.py'}:{part}").name == name
