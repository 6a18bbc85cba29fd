"""Warm starts: another run's weights, what is left out of them, and runs that resume without the other run."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import metarl
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.pearl import PearlConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.experiments.cli import main
from metarl.experiments.configuration import Experiment
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.loading import AnyExperiment, open_run, prepare_run
from metarl.experiments.presets.table import FEWSHOT_PRESETS
from metarl.experiments.runs import Run, make_run
from metarl.fewshot.learners.reptile import ReptileConfig
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig
from metarl.runs.checkpoint import CHECKPOINT, INITIAL, load_checkpoint
from metarl.runs.warm_start import weights_of, without_parts
from metarl.training import EvaluationConfig, TrainingConfig
from tests.experiments.tiny import SMALL

POLICY, ADAPTATION = PolicyConfig(hidden_sizes=(8,)), AdaptationConfig(num_episodes=2)
AGENTS = {
    "promp": PrompConfig(policy=POLICY, adaptation=ADAPTATION),
    "maml-trpo": MamlTrpoConfig(policy=POLICY, adaptation=ADAPTATION),
    "rl2": Rl2Config(policy=TrialPolicyConfig(memory_size=8), epochs=1),
    "pearl": PearlConfig(
        context=ContextConfig(hidden_sizes=(8,)),
        hidden_sizes=(8,),
        num_initial_episodes=1,
        num_prior_episodes=1,
        num_extra_episodes=1,
        num_updates=3,
        update_tasks=2,
        batch_size=4,
        context_size=4,
        replay_capacity=24,
    ),
}
LEFT_OUT = {"promp": "log_std", "maml-trpo": "log_std", "rl2": "value", "pearl": "encoder"}


def _rl(agent: str, **changes: Any) -> Experiment:
    experiment = Experiment(
        "point",
        AGENTS[agent],
        training=TrainingConfig(iterations=2, meta_batch_size=2, checkpoint_every=2, evaluate_every=0),
        evaluation=EvaluationConfig(num_tasks=2, num_steps=1, num_episodes=2),
        horizon=6,
        num_train_tasks=3 if agent == "pearl" else None,
        num_threads=1,
        loggers=("csv",),
    )
    return replace(experiment, **changes)


def _few(name: str, **changes: Any) -> FewshotExperiment:
    training = FewshotTrainingConfig(iterations=2, updates_per_iteration=2, meta_batch_size=2, evaluate_every=0)
    evaluation = FewshotEvaluationConfig(num_tasks=4, num_steps=2)
    experiment = FEWSHOT_PRESETS[name].configuration
    return replace(experiment, training=training, evaluation=evaluation, loggers=("csv",), **changes)


def _weights(run: Run, trained: Any) -> dict[str, Tensor]:
    """A copy of the weights of an agent or a learner of the run."""
    weights = weights_of(trained.state_dict(), getattr(run.untrained(), "not_weights", ()))
    return {name: tensor.clone() for name, tensor in weights.items()}


def _made(experiment: AnyExperiment, folder: Path) -> Run:
    return make_run(prepare_run("warm", experiment), folder)


def _train(run: Run, stop: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Train the run; the content of its last checkpoint."""
    run.train(loggers=[], stop=stop)
    return load_checkpoint(run.folder / CHECKPOINT)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        assert list(first) == list(second)
        return all(_same(first[key], second[key]) for key in first if key != "elapsed_s")
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return torch.equal(first, second) if isinstance(first, Tensor) else bool(first == second)


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_starts_from_another_runs_weights_without_what_is_left_out(agent: str, tmp_path: Path) -> None:
    source = metarl.train(_rl(agent), out=tmp_path / "source")
    there = _weights(source, source.agent())
    part = LEFT_OUT[agent]
    run = _made(_rl(agent, seed=1, init_from=str(source.folder), init_without=(part,)), tmp_path / "run")
    fresh, here = _weights(run, run.untrained()), _weights(run, run.started())
    assert here.keys() == there.keys()
    left_out = [name for name in here if f".{part}." in f".{name}."]
    assert 0 < len(left_out) < len(here)
    changed = [name for name in here if not torch.equal(there[name], fresh[name])]
    assert set(changed) - set(left_out)  # or nothing would be shown
    for name in here:
        assert torch.equal(here[name], (fresh if name in left_out else there)[name]), name


@pytest.mark.parametrize("name", ["sinusoid-maml", "sinusoid-reptile", "sinusoid-meta-sgd"])
def test_a_few_shot_learner_starts_from_another_runs_weights(name: str, tmp_path: Path) -> None:
    experiment = _few(name)
    if isinstance(experiment.learner, ReptileConfig):  # whose moments are no weights
        experiment = replace(experiment, learner=replace(experiment.learner, inner_optimizer="adam"))
    source = metarl.train(experiment, out=tmp_path / "source")
    there = _weights(source, source.agent())
    warm = replace(experiment, seed=1, init_from=str(source.folder), init_without=("module.bias_0",))
    run = _made(warm, tmp_path / "run")
    fresh, here = _weights(run, run.untrained()), _weights(run, run.started())
    assert here.keys() == there.keys()
    for key in here:
        assert torch.equal(here[key], (fresh if key == "module.bias_0" else there)[key]), key
    assert not torch.equal(here["module.weight_0"], fresh["module.weight_0"])


@pytest.mark.thorough
@pytest.mark.parametrize("experiment", [*map(_rl, AGENTS), _few("sinusoid-maml")], ids=[*AGENTS, "few-shot"])
def test_a_run_resumes_to_the_same_bits_without_the_other_run(experiment: AnyExperiment, tmp_path: Path) -> None:
    source = metarl.train(experiment, out=tmp_path / "source").folder
    warm = replace(experiment, seed=1, init_from=str(source))
    before, stopped, whole = (_made(warm, tmp_path / name) for name in ("before", "stopped", "whole"))
    cold = _train(_made(replace(experiment, seed=1), tmp_path / "cold"))
    shutil.rmtree(source)
    expected = _train(whole)
    assert not _same(expected["agent"], cold["agent"])
    assert _same(_train(open_run(before.folder)), expected)  # killed before its first checkpoint
    assert _train(stopped, lambda: True)["progress"]["iteration"] == 1
    (stopped.folder / INITIAL).unlink()  # it has a checkpoint now
    assert _same(_train(open_run(stopped.folder)), expected)


@pytest.mark.thorough
def test_the_configuration_says_where_the_weights_are_from(tmp_path: Path) -> None:
    source = metarl.train(_rl("promp"), out=tmp_path / "source").folder
    words = ["train", "point-promp", "--init-from", str(source), "--init-without", "log_std", "--out"]
    small = ["--agent.policy.hidden-sizes", "8", "--training.iterations", "1", "--training.meta-batch-size", "2"]
    assert main([*words, str(tmp_path / "run"), *small, "--horizon", "6", "--num-threads", "1"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["experiment"]["init_from"] == str(source)
    assert config["experiment"]["init_without"] == ["log_std"]
    assert config["sources"]["weights"] == {
        "run": "source",
        "checkpoint": CHECKPOINT,
        "iteration": 2,
        "sha256": hashlib.sha256((source / CHECKPOINT).read_bytes()).hexdigest(),
    }


@pytest.fixture(scope="module")
def promp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run folder of ProMP on point navigation."""
    return metarl.train(_rl("promp"), out=tmp_path_factory.mktemp("runs") / "promp").folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["point-promp"],
            "policy.mean.weight_0 must be [2, 64], got [2, 8]; change the networks, or leave it out",
        ),
        (["point-promp", "--init-without", "means"], "named 'means'; did you mean mean? known: policy, "),
        (["point-maml-trpo"], "is a run of the agent promp, expected maml-trpo"),
        (["sinusoid-maml"], "is a run of kind rl, expected few-shot"),
        (
            ["point-promp", "--agent.policy.activation", "relu"],
            "trained with agent.policy.activation tanh, got relu",
        ),
        (["half-cheetah-dir-promp"], "are for observations Box("),
        (["point-promp", "--init-without", "policy"], "init_without leaves out all weights"),
    ],
)
def test_what_does_not_fit_is_one_line_and_no_folder(
    words: list[str], message: str, promp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["train", *words, "--init-from", str(promp), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_slow_copies_belong_to_what_they_are_copies_of() -> None:
    weights = dict.fromkeys(("learner.critics.weight", "learner.target_critics.weight", "policy.weight"), Tensor())
    assert list(without_parts(weights, ["critics"])) == ["policy.weight"]
    assert list(without_parts(weights, ["learner.critics"])) == ["policy.weight"]
    assert len(without_parts(weights, ["target_critics"])) == 2


@pytest.mark.thorough
def test_a_part_that_one_run_lacks_can_be_left_out_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """VariBAD with HyperX's bonuses has networks that it has not without them."""
    words = ["train", "varibad", "--benchmark", "point", *SMALL, "--evaluation.num-tasks", "2"]
    source, run = tmp_path / "source", tmp_path / "run"
    assert main([*words, "--agent.novelty-coef", "0.5", "--out", str(source)]) == 0
    capsys.readouterr()
    assert main([*words, "--init-from", str(source), "--out", str(run)]) == 2
    assert capsys.readouterr().err.endswith("or leave it out with --init-without novelty\n")
    assert main([*words, "--init-from", str(source), "--init-without", "novelty", "--out", str(run)]) == 0


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("agent", "changes", "message"),
    [
        ("rl2", ["--agent.policy.read-actions", "False"], "agent.policy.read_actions True, got False"),
        ("memory-sac", ["--agent.policy.init-std", "0.1"], "agent.policy.init_std 1.0, got 0.1"),
        ("teacher-student", ["--agent.policy.infers", "parameters"], "infers latent, expected parameters"),
    ],
)
def test_weights_that_would_mean_something_else_are_refused(
    agent: str, changes: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shapes are the same, so that only the settings tell."""
    words = ["train", agent, "--benchmark", "point", *SMALL, "--evaluation.num-tasks", "2"]
    words += ["--agent.num-updates", "1"] if agent == "memory-sac" else []
    source = tmp_path / "source"
    assert main([*words, "--out", str(source)]) == 0
    capsys.readouterr()
    assert main([*words, *changes, "--init-from", str(source), "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_weights_of_nowhere_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["train", "point-promp", "--init-from", str(tmp_path / "none"), "--out", str(tmp_path / "run")]) == 2
    )
    assert "is not a run folder" in capsys.readouterr().err
    assert main(["train", "point-promp", "--init-without", "value", "--out", str(tmp_path / "run")]) == 2
    assert "init_without needs init_from" in capsys.readouterr().err
    made = _made(_rl("promp"), tmp_path / "untrained").folder
    assert main(["train", "point-promp", "--init-from", str(made), "--out", str(tmp_path / "run")]) == 2
    assert "has no checkpoint to start from" in capsys.readouterr().err
