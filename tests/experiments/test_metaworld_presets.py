"""Every agent trains on Meta-World through its preset, and evaluation tells environments apart."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.agent import AgentConfig
from metarl.agents.maml import AdaptationConfig
from metarl.agents.memory_sac import MemorySacConfig
from metarl.agents.pearl.pearl import PearlConfig
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.evaluation import AdaptationCurve
from metarl.experiments.cli import main
from metarl.experiments.configuration import (
    Experiment,
    experiment_benchmark,
    make_agent,
    make_workers,
)
from metarl.experiments.presets.metaworld import METAWORLD
from metarl.experiments.presets.table import preset
from metarl.runs.seeding import streams
from metarl.tasks import Task
from tests.experiments.tiny import SMALL


def tiny(experiment: Experiment) -> Experiment:
    """The experiment with episodes, networks and batches as small as they can be."""
    agent: AgentConfig = experiment.agent
    if isinstance(agent, PearlConfig):
        agent = replace(
            agent,
            num_initial_episodes=1,
            num_prior_episodes=1,
            num_posterior_episodes=0,
            num_extra_episodes=1,
            num_updates=2,
            update_tasks=2,
            batch_size=4,
            context_size=4,
            hidden_sizes=(8,),
            replay_capacity=20,
        )
    elif isinstance(agent, MemorySacConfig):
        agent = replace(agent, num_updates=2, batch_size=4, replay_capacity=1000)
    elif isinstance(agent, Rl2Config):
        agent = replace(agent, num_episodes=2, epochs=1, minibatches=1)
    else:
        adaptation: AdaptationConfig = replace(agent.adaptation, num_episodes=2)
        agent = replace(agent, adaptation=adaptation)
    return replace(experiment, agent=agent, horizon=5, num_train_tasks=3, num_threads=1)


@pytest.mark.parametrize("name", [name for name in METAWORLD if name.startswith(("ml1-reach", "ml10"))])
def test_every_agent_trains(name: str) -> None:
    experiment = tiny(preset(name))
    benchmark = experiment_benchmark(experiment)
    agent = make_agent(experiment, benchmark)
    rng = streams(0)["workers"]
    with make_workers(experiment, benchmark) as workers:
        tasks = benchmark.train.sample(3, np.random.default_rng(0))
        metrics = agent.update(agent.collect(workers, tasks, rng))
    assert np.isfinite(list(metrics.values())).all()
    assert metrics["train/return_post"] > 0


def test_presets_have_the_published_numbers_of_steps() -> None:
    for benchmark, steps in (("ml10", 60e6), ("ml45", 90e6)):
        for agent in ("promp", "maml-trpo", "rl2", "pearl"):
            experiment = preset(f"{benchmark}-{agent}")
            training = experiment.training
            per_task = 500 * {"rl2": 10, "pearl": 4}.get(agent, 20)
            total = training.iterations * training.meta_batch_size * per_task
            assert total == pytest.approx(steps, rel=0.01)


def test_a_curve_is_split_by_environment() -> None:
    names = ("reach-v3", "push-v3", "reach-v3")
    tasks = tuple(Task.of(f"meta-world/{name}", rand_vec=(float(i), 0, 0)) for i, name in enumerate(names))
    returns = np.arange(12.0).reshape(2, 3, 2)
    curve = AdaptationCurve(tasks, returns, returns > 6, num_steps=12)
    parts = curve.by_family()
    assert list(parts) == ["meta-world/reach-v3", "meta-world/push-v3"]
    reach, push = parts.values()
    assert np.array_equal(reach.returns, returns[:, [0, 2]])
    assert reach.tasks == (tasks[0], tasks[2])
    assert push.successes is not None
    assert np.array_equal(push.successes, (returns > 6)[:, [1]])


@pytest.mark.thorough
@pytest.mark.parametrize("split", ["test", "train"])
def test_an_evaluation_shows_every_environment(split: str, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    agent = ["--agent.adaptation.num-episodes", "2", "--training.evaluate-every", "0"]
    evaluation = ["--evaluation.num-tasks", "2", "--evaluation.num-episodes", "2"]
    assert main(["train", "ml10-promp", *SMALL, *agent, *evaluation, "--out", str(run)]) == 0
    capsys.readouterr()
    result = tmp_path / "result.json"
    words = ["--split", split, "--num-tasks", "5", "--num-episodes", "2", "--json", str(result)]
    assert main(["evaluate", str(run), *words]) == 0
    shown, found = capsys.readouterr().out, json.loads(result.read_text())
    assert f"5 {split} tasks" in shown
    assert "meta-trained, by environment" in shown
    assert found["split"] == split
    assert len(found["by_family"]) == 5
    assert all(part["num_tasks"] == 1 for part in found["by_family"].values())
    held_out = {"drawer-open-v3", "door-close-v3", "shelf-place-v3", "sweep-into-v3", "lever-pull-v3"}
    assert ({name.partition("/")[2] for name in found["by_family"]} == held_out) == (split == "test")


def test_training_tasks_are_asked_for_with_their_number(tmp_path: Path, capsys: Any) -> None:
    assert main(["evaluate", str(tmp_path), "--split", "train"]) == 2
    assert "--split train draws tasks and needs their number" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), "--split", "train", "--tasks", "tasks.json"]) == 2
    assert "--split train and --tasks exclude each other" in capsys.readouterr().err


def test_a_part_of_the_training_tasks_is_still_drawn_by_environment() -> None:
    experiment = replace(preset("ml10-pearl"), num_train_tasks=40)
    train = experiment_benchmark(experiment).train
    drawn = [task.family for task in train.sample(20, np.random.default_rng(0))]
    assert sorted(drawn.count(family) for family in set(drawn)) == [2] * 10


def test_several_workers_are_refused_where_environments_have_processes() -> None:
    experiment = replace(preset("ml1-reach-promp"), num_workers=2)
    with pytest.raises(ValueError, match="num_workers must be 1 for ml1-reach, whose environments have processes"):
        experiment_benchmark(experiment)


def test_what_is_refused_leaves_no_run_folder(tmp_path: Path, capsys: Any) -> None:
    words = ["train", "ml1-reach-promp", "--num-workers", "2", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "num_workers must be 1 for ml1-reach" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
