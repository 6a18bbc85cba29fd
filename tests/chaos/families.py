"""Runs of every family, so small that they end within seconds, and what is compared of two of them."""

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metarl.experiments.presets.studies import STUDIES
from metarl.experiments.study.configuration import Study
from metarl.runs.checkpoint import BEST, CHECKPOINT, load_checkpoint


def words(**options: object) -> list[str]:
    """The options as words of a command line; a double underscore stands for a dot."""
    pairs = ((f"--{name.replace('__', '.').replace('_', '-')}", str(value)) for name, value in options.items())
    return [word for pair in pairs for word in pair]


_TRAINING = {"training__checkpoint_every": 2, "training__meta_batch_size": 2, "training__evaluate_every": 3}
_RL = words(
    **_TRAINING,
    evaluation__num_tasks=2,
    evaluation__num_episodes=1,
    evaluation__num_steps=1,
    num_threads=1,
    device="cpu",
)
_GRADIENT = words(agent__adaptation__num_episodes=2, agent__policy__hidden_sizes=8)
_PEARL = words(
    agent__num_initial_episodes=1,
    agent__num_prior_episodes=1,
    agent__num_extra_episodes=1,
    agent__num_updates=5,
    agent__update_tasks=2,
    agent__batch_size=8,
    agent__context_size=8,
    agent__hidden_sizes=8,
    num_train_tasks=3,
)
_FEWSHOT = words(**_TRAINING, training__updates_per_iteration=2, evaluation__num_tasks=4, evaluation__num_steps=1)
_RL2 = words(agent__policy__memory_size=8, agent__policy__head_sizes=8)
FAMILIES = {
    "promp": ["point-promp", *_RL, *_GRADIENT],
    "maml-trpo": ["point-maml-trpo", *_RL, *_GRADIENT],
    "rl2": ["gridnavi-rl2", *_RL, *_RL2],
    "pearl": ["point-robot-pearl-cpu", *_RL, *_PEARL],
    "meta-world": ["ml1-reach-promp", *_RL, *_GRADIENT, "--horizon", "5"],
    "few-shot": ["sinusoid-maml", *_FEWSHOT],
}
ITERATIONS = {"promp": 24, "maml-trpo": 16, "rl2": 16, "pearl": 12, "meta-world": 6, "few-shot": 16}


def train_words(family: str, *, iterations: int | None = None) -> list[str]:
    """The command that trains a family's run."""
    number = ITERATIONS[family] if iterations is None else iterations
    return ["train", *FAMILIES[family], "--training.iterations", str(number)]


def tiny_study() -> Study:
    """The study `quick`, with two iterations and two tasks."""
    quick = STUDIES["quick"].configuration
    learners = tuple(
        replace(
            x, experiment=replace(x.experiment, training=replace(x.experiment.training, iterations=2), horizon=5)
        )
        for x in quick.learners
    )
    assert quick.stable is not None
    stable = replace(quick.stable, total_steps=40, num_envs=2, minibatches=1, epochs=1)
    return replace(quick, learners=learners, horizon=5, num_tasks=2, stable=stable, num_threads=1)


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without times."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def result(path: Path) -> Any:
    """A JSON file without what depends on the clock and the process."""
    return _timeless(json.loads(path.read_text()))


def _timeless(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {k: _timeless(v) for k, v in data.items() if not k.endswith(("_s", "memory_gb")) and k != "run"}
    return [_timeless(value) for value in data] if isinstance(data, list) else data


def leaves(tree: Any) -> list[Any]:
    """Tensors and numbers of a checkpoint, except times."""
    if isinstance(tree, dict):
        return [leaf for name, value in tree.items() if name != "elapsed_s" for leaf in leaves(value)]
    if isinstance(tree, list | tuple):
        return [leaf for value in tree for leaf in leaves(value)]
    return [tree]


def check_same_checkpoint(one: Path, two: Path) -> None:
    """Raise an AssertionError unless two checkpoints hold the same bits."""
    first, second = leaves(load_checkpoint(one)), leaves(load_checkpoint(two))
    assert len(first) == len(second) > 5
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, (one, two)


def check_same_run(one: Path, two: Path) -> None:
    """Raise an AssertionError unless two run folders hold the same files with the same bits, times apart."""
    there = [{p.name for p in folder.iterdir()} - {"run.lock"} for folder in (one, two)]
    assert there[0] == there[1]
    assert rows(one) == rows(two)
    for name in {CHECKPOINT, BEST} & there[0]:
        check_same_checkpoint(one / name, two / name)
    assert result(one / "evaluation.json") == result(two / "evaluation.json")
    assert not list(two.rglob("*.tmp"))
