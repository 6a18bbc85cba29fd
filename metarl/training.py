"""train(): the one meta-RL loop.

tasks      = benchmark.train.sample(meta_batch_size)
experience = agent.collect(workers, tasks)
metrics    = agent.update(experience)
now and then: the adaptation curve on test tasks, and a checkpoint
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.agent import Agent, Collector, KeepsData
from metarl.evaluation import adaptation_curve
from metarl.loop import Progress, Report, load_state, repeat, save_state
from metarl.runs import seeding
from metarl.runs.checkpoint import FILE
from metarl.runs.configs import check_counts, check_not_negative
from metarl.runs.metrics import MetricsWriter
from metarl.tasks import Benchmark, Task


@dataclass(frozen=True)
class TrainingConfig:
    """How long to train.

    Attributes:
        iterations: outer updates.
        meta_batch_size: tasks per update.
        checkpoint_every: iterations between checkpoints; one more is written at the end.
        evaluate_every: iterations between evaluations on test tasks; 0 for none while training.
    """

    iterations: int = 100
    meta_batch_size: int = 40
    checkpoint_every: int = 5
    evaluate_every: int = 20

    def __post_init__(self) -> None:
        check_counts(self, "iterations", "meta_batch_size", "checkpoint_every")
        check_not_negative(self, "evaluate_every")


@dataclass(frozen=True)
class EvaluationConfig:
    """How to evaluate.

    Attributes:
        num_tasks: held-out tasks, drawn once per run.
        num_steps: adaptation steps.
        num_episodes: per task and step.
    """

    num_tasks: int = 40
    num_steps: int = 3
    num_episodes: int = 20

    def __post_init__(self) -> None:
        check_counts(self, "num_tasks", "num_episodes")
        check_not_negative(self, "num_steps")


def train(
    agent: Agent[Any],
    benchmark: Benchmark,
    collector: Collector,
    config: TrainingConfig,
    evaluation: EvaluationConfig,
    *,
    folder: Path,
    seed: int,
    test_tasks: Sequence[Task],
    report: Report,
    stop: Callable[[], bool],
) -> Progress:
    """Train until the configured number of iterations, or until told to stop.

    Continues from the folder's checkpoint if there is one, to the bit as an uninterrupted run would have.

    Args:
        agent: trained in place.
        benchmark: where tasks come from.
        collector: runs the episodes.
        config: how long.
        evaluation: how test tasks are evaluated on the way.
        folder: of the run; metrics, events and checkpoints go there.
        seed: of everything random.
        test_tasks: evaluated every `config.evaluate_every` iterations.
        report: told after every iteration.
        stop: asked after every iteration; a checkpoint is written before leaving.

    Raises:
        TrainingDiverged: if a loss is not finite; says the iteration and the task.
    """
    generators = seeding.streams(seed)
    resuming = (folder / FILE).exists()
    progress = restore(agent, generators, folder / FILE, benchmark) if resuming else Progress()
    if resuming and isinstance(agent, KeepsData):
        agent.load_data(folder)
    writer = MetricsWriter(folder, keep_iterations=progress.iteration, keep_steps=progress.env_steps)
    work = _AgentTraining(agent, benchmark, collector, config, evaluation, folder, test_tasks, generators)
    repeat(work, progress, config, writer=writer, report=report, stop=stop)
    return progress


@dataclass
class _AgentTraining:
    """What is repeated: episodes of fresh tasks, and an update of the agent."""

    agent: Agent[Any]
    benchmark: Benchmark
    collector: Collector
    config: TrainingConfig
    evaluation: EvaluationConfig
    folder: Path
    test_tasks: Sequence[Task]
    generators: dict[str, np.random.Generator]

    def iterate(self, progress: Progress) -> dict[str, float]:
        """One meta-iteration."""
        tasks = self.benchmark.train.sample(self.config.meta_batch_size, self.generators["tasks"])
        return _iterate(self.agent, self.collector, tasks, self.generators["workers"], progress)

    def test(self) -> dict[str, float]:
        """The adaptation curve on test tasks."""
        return _test(self.agent, self.collector, self.test_tasks, self.evaluation, self.generators["evaluation"])

    def save(self, progress: Progress) -> None:
        """A checkpoint of the agent and its random streams."""
        identity = _identity(self.agent, self.benchmark)
        if isinstance(self.agent, KeepsData):
            self.agent.save_data(self.folder)
        save_state(self.agent, self.generators, progress, self.folder, identity)


def _iterate(
    agent: Agent[Any],
    collector: Collector,
    tasks: Sequence[Task],
    rng: np.random.Generator,
    progress: Progress,
) -> dict[str, float]:
    """One outer update on the tasks; counts its steps and returns the metrics."""
    started, steps_before = time.perf_counter(), collector.steps_collected
    experience = agent.collect(collector, tasks, rng)
    collected = time.perf_counter()
    metrics = agent.update(experience)
    updated = time.perf_counter()
    steps = collector.steps_collected - steps_before
    progress.env_steps += steps
    return metrics | {
        "time/collect_s": collected - started,
        "time/update_s": updated - collected,
        "time/env_steps_per_s": steps / (updated - started),
    }


def restore(
    agent: Agent[Any], generators: Mapping[str, np.random.Generator], path: Path, benchmark: Benchmark
) -> Progress:
    """Put an agent and its random streams where a checkpoint left them.

    Raises:
        CheckpointError: if the file is not a checkpoint.
        ValueError: if it is one of another agent, network or benchmark.
    """
    return load_state(agent, generators, path, _identity(agent, benchmark))


def _identity(agent: Agent[Any], benchmark: Benchmark) -> str:
    """Whose checkpoint it is: networks of two benchmarks may have the same shapes."""
    return f"{type(agent).__name__} on {benchmark.name}"


def _test(
    agent: Agent[Any],
    collector: Collector,
    tasks: Sequence[Task],
    evaluation: EvaluationConfig,
    rng: np.random.Generator,
) -> dict[str, float]:
    curve = adaptation_curve(
        agent.actor(),
        collector,
        tasks,
        rng,
        num_steps=evaluation.num_steps,
        num_episodes=evaluation.num_episodes,
    )
    metrics = {f"test/return_after_{k}": float(r.mean()) for k, r in enumerate(curve.returns)}
    if curve.successes is not None:
        metrics |= {f"test/success_after_{k}": float(s.mean()) for k, s in enumerate(curve.successes)}
    return metrics
