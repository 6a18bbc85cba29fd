"""train(): the one meta-RL loop.

tasks      = benchmark.train.sample(meta_batch_size)
experience = agent.collect(workers, tasks)
metrics    = agent.update(experience)
now and then: the adaptation curve on test tasks, and a checkpoint
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl import seeding
from metarl.agent import Agent, Collector
from metarl.checkpoint import FILE, load_checkpoint, save_checkpoint
from metarl.configs import check_counts, check_not_negative
from metarl.evaluation import adaptation_curve
from metarl.metrics import MetricsWriter
from metarl.tasks import Benchmark, Task


class TrainingDiverged(RuntimeError):
    """A loss was not finite; the last checkpoint is from before it."""


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


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        iteration: outer updates done.
        env_steps: simulated for training, adaptation included.
        elapsed_s: wall time spent training, over all resumptions.
    """

    iteration: int = 0
    env_steps: int = 0
    elapsed_s: float = 0.0


Report = Callable[[Progress, Mapping[str, float]], None]


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
    writer = MetricsWriter(folder, keep_iterations=progress.iteration, keep_steps=progress.env_steps)
    saved_at = progress.iteration
    try:
        while progress.iteration < config.iterations:
            started = time.perf_counter()
            try:
                progress.iteration += 1
                tasks = benchmark.train.sample(config.meta_batch_size, generators["tasks"])
                metrics = _iterate(agent, collector, tasks, generators["workers"], progress)
                if config.evaluate_every and progress.iteration % config.evaluate_every == 0:
                    metrics |= _test(agent, collector, test_tasks, evaluation, generators["evaluation"])
            except FloatingPointError as error:
                kept = f"the checkpoint of iteration {saved_at} is intact" if saved_at else "no checkpoint yet"
                raise TrainingDiverged(f"iteration {progress.iteration}: {error}; {kept}") from error
            progress.elapsed_s += time.perf_counter() - started
            writer.write(progress.iteration, progress.env_steps, metrics)
            report(progress, metrics)
            stopping = stop()
            if stopping or progress.iteration in (config.iterations, saved_at + config.checkpoint_every):
                _save(agent, generators, progress, folder, benchmark)
                saved_at = progress.iteration
            if stopping:
                break
    finally:
        writer.close()
    return progress


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
    state = load_checkpoint(path)
    found, expected = state.get("of"), _identity(agent, benchmark)
    if found != expected:
        raise ValueError(f"{path} is a checkpoint of {found}, expected one of {expected}; use the run's own")
    try:
        agent.load_state_dict(state["agent"])
        seeding.load_states(dict(generators), state["generators"])
        return Progress(**state["progress"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise ValueError(f"{path} is a checkpoint of another agent or network than the run's: {reason}") from error


def _save(
    agent: Agent[Any],
    generators: dict[str, np.random.Generator],
    progress: Progress,
    folder: Path,
    benchmark: Benchmark,
) -> None:
    save_checkpoint(
        folder,
        {
            "of": _identity(agent, benchmark),
            "agent": agent.state_dict(),
            "generators": seeding.dump_states(generators),
            "progress": asdict(progress),
        },
    )


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
