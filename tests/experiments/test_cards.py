"""Cards of agents and of exported policies: ranges of parameters, and what was measured."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import metarl
from metarl.evaluation import adaptation_curve
from metarl.experiments import export_cards
from metarl.experiments.agent_run import AgentRun
from metarl.experiments.cards import _trained_range
from metarl.experiments.cli import main
from metarl.experiments.export_cards import last_evaluation, met_in_training
from metarl.tasks import Parameter, Task
from tests.experiments.tiny import TINY


def test_ranges_of_parameters_are_of_the_tasks_that_have_each_number() -> None:
    tasks = [
        Task("mixed", (("vector", (1.0, 5.0, 2.0)),)),
        Task("mixed", (("vector", (0.0, 7.0)),)),
    ]
    measured = _trained_range(Parameter("vector", size=3), tasks)
    assert measured == {"name": "vector", "low": [0.0, 5.0, 2.0], "high": [1.0, 7.0, 2.0]}


def test_tests_without_a_finite_number_are_no_evaluation(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("env_steps,test/return_after_0\n10,\n20,nan\n")
    run: Any = SimpleNamespace(folder=tmp_path)
    assert last_evaluation(run) == {}
    (tmp_path / "metrics.csv").write_text("env_steps,test/return_after_0\n10,1.5\n20,nan\n")
    assert last_evaluation(run) == {"env_steps": 10.0, "test/return_after_0": 1.5}


def test_the_card_measures_as_the_evaluation_of_the_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*TINY, "--horizon", "5", "--evaluation.deterministic", "True"]
    assert main(["train", "point-promp", "--out", str(tmp_path / "run"), *words]) == 0
    asked: list[bool] = []

    def measure(*arguments: Any, deterministic: bool = False, **sizes: Any) -> Any:
        asked.append(deterministic)
        return adaptation_curve(*arguments, deterministic=deterministic, **sizes)

    monkeypatch.setattr(export_cards, "adaptation_curve", measure)
    run = metarl.open_run(tmp_path / "run")
    assert isinstance(run, AgentRun)
    met_in_training(run, run.agent(), 2)
    assert asked == [True]
