"""The examples are trained, evaluated, resumed and adapted, from the shell and from Python."""

import ast
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metarl
from metarl.experiments.catalogue import experiment_of_word
from metarl.experiments.cli import main
from metarl.experiments.configuration import Experiment
from metarl.experiments.outside import load_object
from metarl.tasks import Task

EXAMPLES = Path(__file__).resolve().parents[2] / "experiments" / "examples"
NAMES = {"cartpole": "poles", "pendulum": "pendulums"}
LIMITS = {"poles": [{"length": 0.25}, {"length": 2.0}], "pendulums": [{"gravity": 5.0}, {"gravity": 15.0}]}
TINY = (
    "--horizon 5 --training.meta-batch-size 2 --num-threads 1 --evaluation.num-tasks 2 --evaluation.num-episodes 1"
)


def _object(name: str, part: str) -> Any:
    return load_object(f"{EXAMPLES / name}.py:{part}")[0]


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("agent", ["RL2", "PROMP"])
def test_an_example_is_trained_resumed_and_evaluated_from_the_shell(name: str, agent: str, tmp_path: Path) -> None:
    word, run = f"{EXAMPLES / name}.py:{agent}", str(tmp_path / "run")
    assert main(["train", word, *TINY.split(), "--training.iterations", "1", "--out", run]) == 0
    assert main(["resume", run, "--experiment", word, "--iterations", "2"]) == 0
    tasks, result = tmp_path / "tasks.json", tmp_path / "result.json"
    tasks.write_text(json.dumps([{"family": NAMES[name], "params": params} for params in LIMITS[NAMES[name]]]))
    words = [
        "evaluate",
        run,
        "--experiment",
        word,
        "--tasks",
        str(tasks),
        "--num-steps",
        "2",
        "--json",
        str(result),
    ]
    assert main(words) == 0
    assert [step["step"] for step in json.loads(result.read_text())["adaptation"]] == [0, 1, 2]
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("agent", ["RL2", "PROMP"])
def test_an_example_is_trained_and_adapted_from_python(name: str, agent: str, tmp_path: Path) -> None:
    experiment = experiment_of_word(f"{EXAMPLES / name}.py:{agent}").experiment
    assert isinstance(experiment, Experiment)
    training = replace(experiment.training, iterations=1, meta_batch_size=2)
    evaluation = replace(experiment.evaluation, num_tasks=2, num_episodes=1)
    experiment = replace(experiment, training=training, evaluation=evaluation, horizon=5, num_threads=1)
    run = metarl.train(experiment, out=tmp_path / "run")
    assert len(run.evaluate(num_tasks=2, num_steps=1)["adaptation"]) == 2
    trained = metarl.open_run(run.folder, experiment=experiment).agent()
    assert len(metarl.adapt(trained, _object(name, "make")(), episodes=2, max_episode_steps=5).returns) == 2


@pytest.mark.parametrize("name", NAMES)
def test_an_examples_tasks_differ(name: str) -> None:
    benchmark, family = _object(name, NAMES[name].upper()), NAMES[name]
    env = benchmark.family.make_env(2, num_threads=1)
    env.set_tasks([Task.of(family, **params) for params in LIMITS[family]])
    observations, _ = env.reset(seed=[0, 0])
    assert np.array_equal(observations[0], observations[1])
    action = np.ones((2, *(env.single_action_space.shape or ())), env.single_action_space.dtype)
    for _ in range(3):
        after = env.advance(action).observations
    assert not np.allclose(after[0], after[1])


LESSONS: dict[str, tuple[str, Callable[..., bool], str]] = {
    "adapt_a_point": (
        r"before adaptation (.+), after one gradient step (.+)",
        lambda before, after: after > before + 20,
        "adaptation.png",
    ),
    "cartpole": (
        r"untrained (.+), trained (.+)\n(?:.*\n)*.*by episode: \[(.+), (.+), (.+)\]",
        lambda untrained, trained, *longest: untrained < trained <= 100 and min(longest) > 80,
        "run/evaluation.json",
    ),
    "image_folders": (
        r"(.+) of (.+) images",
        lambda right, number: right > 0.8 * number == 32,
        "run/evaluation.json",
    ),
    "exported_policy": (
        r"before.onnx: mean .* (-.+)\nafter.onnx: mean .* (-.+)",
        lambda before, after: after > before + 20,
        "after.npz",
    ),
    "compare_agents": (
        r"returns (.+) more, 95% interval (.+) to (.+)",
        lambda more, low, high: 0 < low < more < high,
        "comparison/adaptation.png",
    ),
}
"""What each script prints, what must be true of the numbers, and a file that it leaves."""


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_says_what_it_teaches_and_can_be_imported(name: str) -> None:
    file = EXAMPLES / f"{name}.py"
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    assert "You learn" in text
    assert "Expect" in text
    assert f"python experiments/examples/{name}.py [FOLDER]" in text
    assert re.search(r"# .*minute.* on (one|two) cores?", text)
    assert callable(runpy.run_path(str(file), run_name=name)["main"])


@pytest.mark.slow
@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_shows_what_it_promises(name: str, tmp_path: Path) -> None:
    printed, holds, left = LESSONS[name]
    words = [sys.executable, EXAMPLES / f"{name}.py", "out"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr
    match = re.search(printed, done.stdout)
    assert match is not None, done.stdout
    assert holds(*map(float, match.groups())), match[0]
    assert (tmp_path / "out" / left).stat().st_size > 0
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


SHORT = {"poles": "POLES", "gravities": "PENDULUMS"}


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "family"), SHORT.items())
def test_a_short_example_has_fifteen_lines_and_runs(
    name: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = EXAMPLES / f"{name}.py"
    lines = [line.strip() for line in file.read_text().splitlines()]
    code = [line for line in lines if line and not line.startswith('"""')]  # what it does, not what it says of it
    assert len([line for line in code if not line.startswith(("import ", "from "))]) <= 10
    assert len(code) <= 17
    words = [*TINY.split(), "--training.iterations", "1"]
    assert main(["train", "rl2", "--benchmark", f"{file}:{family}", *words, "--out", str(tmp_path / "run")]) == 0
    again = ["--benchmark", f"{file}:{family}"]
    assert main(["evaluate", str(tmp_path / "run"), *again, "--num-tasks", "2"]) == 0
    assert main(["resume", str(tmp_path / "run"), *again, "--iterations", "2"]) == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(file), *words])
    capsys.readouterr()
    runpy.run_path(str(file), run_name="__main__")
    assert f"{family.lower()}-rl2, seed 0: 1 iterations, evaluated" in capsys.readouterr().out


@pytest.mark.slow
def test_a_robot_in_another_process_is_adapted_to_and_controlled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapt_and_control, link = _object("robot", "adapt_and_control"), _object("robot", "Link")(loss=0.2)
    agent = "--agent.adaptation.num-episodes 2 --training.iterations 1"
    run = str(tmp_path / "run")
    assert main(["train", "point-promp", *TINY.split(), *agent.split(), "--out", run]) == 0
    returns = adapt_and_control(run, tmp_path, link, num_episodes=3, horizon=20)
    said = capsys.readouterr().out
    assert [len(episodes) for episodes in returns.values()] == [3, 3]
    assert all(value < 0 for episodes in returns.values() for value in episodes)
    assert "held" in said  # messages were lost
    card = json.loads((tmp_path / "after.json").read_text())
    assert card["adapted_to"][0]["episodes"] == 3
