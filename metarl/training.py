"""train(): the one meta-RL loop.

tasks      = benchmark.train.sample(meta_batch_size)
experience = agent.collect(workers, tasks)
metrics    = agent.update(experience)
now and then: the adaptation curve on test tasks, and a checkpoint

An evaluation acts and adapts with a copy of the agent on the CPU, by random numbers of its own. So it is the same
whether the next iteration waits for it, or workers elsewhere run it during the next update.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.agent import Actor, Agent, Collector, KeepsData, beside
from metarl.evaluation import adaptation_curve
from metarl.executors.divided import DividedCollector
from metarl.loop import Progress, Report, Tested, begin, repeat
from metarl.runs import parallel, seeding
from metarl.runs.configs import MOST_REPEATS, MOST_TASKS, MOST_UPDATES, check_counts, check_seed
from metarl.runs.lock import locked
from metarl.runs.loggers import Logger
from metarl.runs.pending import Pending
from metarl.runs.seeding import draw_seed
from metarl.states import load_state, state_of
from metarl.tasks import Benchmark, Task


@dataclass(frozen=True)
class TrainingConfig:
    """The length of a training, and the time between its tests and checkpoints.

    Attributes:
        iterations: Number of outer updates.
        meta_batch_size: Number of tasks per update.
        checkpoint_every: Number of iterations between checkpoints; one more is written at the end.
        evaluate_every: Number of iterations between evaluations on test tasks; 0 for none while training.
        overlap_evaluation: Whether an evaluation runs during the next iteration's update, with workers in other
            processes or on Ray. The numbers are the same; an evaluated iteration is reported one iteration later.
    """

    iterations: int = 100
    meta_batch_size: int = 40
    checkpoint_every: int = 5
    evaluate_every: int = 20
    overlap_evaluation: bool = True

    def __post_init__(self) -> None:
        check_counts(self, "iterations", "checkpoint_every", most=MOST_UPDATES)
        check_counts(self, "evaluate_every", least=0, most=MOST_UPDATES)
        check_counts(self, "meta_batch_size", most=MOST_TASKS)


@dataclass(frozen=True)
class EvaluationConfig:
    """Sizes of an evaluation, and the tasks that it is made on.

    Attributes:
        num_tasks: Number of held-out tasks, drawn once per run.
        num_steps: Number of adaptation steps.
        num_episodes: Number of episodes per task and adaptation step.
        deterministic: Measure the mode of the policy instead of samples; gradient learners still adapt to samples.
        task_seed: Seed of the test tasks; by default the run's own, so that other seeds have other tasks.
    """

    num_tasks: int = 40
    num_steps: int = 3
    num_episodes: int = 20
    deterministic: bool = False
    task_seed: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "num_tasks", "num_episodes", most=MOST_TASKS)
        check_counts(self, "num_steps", least=0, most=MOST_REPEATS)
        check_seed(self, "task_seed")


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
    loggers: Sequence[Logger],
    report: Report,
    stop: Callable[[], bool],
) -> Progress:
    """Train until the configured number of iterations, or until `stop` says so.

    Continues from the folder's checkpoint if there is one, to the bit as an uninterrupted run would have.

    Args:
        agent: Agent, trained in place.
        benchmark: Benchmark whose training tasks are drawn.
        collector: Collector that runs the episodes.
        config: Length of the run.
        evaluation: Numbers of adaptation steps and of episodes of the evaluations on the way.
        folder: Run folder; checkpoints go there.
        seed: Seed of all random streams of the run.
        test_tasks: Tasks of the evaluation every `config.evaluate_every` iterations.
        loggers: Receivers of the metrics; left open.
        report: Function that is called after every iteration.
        stop: Function that is asked after every iteration; a checkpoint is written before leaving.

    Raises:
        TrainingDiverged: if a loss is not finite; says the iteration and the task.
        LockedError: if another process trains in the folder.
        WriteError: if a file cannot be written.
    """
    generators = seeding.streams(seed)

    def resume(path: Path) -> Progress:
        progress = restore(agent, generators, path, benchmark)
        if isinstance(agent, KeepsData):
            agent.load_data(folder)
        return progress

    parallel.check_divisible(agent, config.meta_batch_size)
    with locked(folder):
        progress = begin(folder, config, loggers, resume, "env_steps")
        work = _AgentTraining(agent, benchmark, collector, config, evaluation, folder, test_tasks, generators)
        repeat(
            work,
            progress,
            config,
            folder=folder,
            loggers=loggers,
            axis="env_steps",
            report=report,
            stop=stop,
        )
    return progress


@dataclass
class _AgentTraining:
    """The repeated part of training: episodes of fresh tasks, and an update of the agent."""

    agent: Agent[Any]
    benchmark: Benchmark
    collector: Collector
    config: TrainingConfig
    evaluation: EvaluationConfig
    folder: Path
    test_tasks: Sequence[Task]
    generators: dict[str, np.random.Generator]
    waiting: Pending[Tested] | None = None

    def iterate(self, progress: Progress) -> dict[str, float]:
        """One meta-iteration."""
        tasks = self.benchmark.train.sample(self.config.meta_batch_size, self.generators["tasks"])
        started, steps_before = time.perf_counter(), self.collector.steps_collected
        experience = self.agent.collect(self.collector, tasks, self.generators["workers"])
        collected = time.perf_counter()
        if self.waiting is not None:
            self.waiting.begin(beside=True)  # the workers have nothing else to do until the update is done
            self.waiting = None
        metrics = self.agent.update(experience)
        updated = time.perf_counter()
        steps = parallel.total_count(self.collector.steps_collected - steps_before)
        progress.env_steps += steps
        return metrics | {
            "time/collect_s": collected - started,
            "time/update_s": updated - collected,
            "time/env_steps_per_s": steps / (updated - started),
        }

    def test(self) -> Pending[Tested]:
        """An evaluation of the agent as it is now; where it can be beside the next update, it begins there."""
        others = beside(self.collector) if self.config.overlap_evaluation else None
        actor = copy.deepcopy(self.agent.actor())
        rng = np.random.default_rng(draw_seed(self.generators["evaluation"]))
        collector = DividedCollector(others or self.collector)
        pending = Pending(lambda: self._tested(actor, collector, rng))
        if others is None:
            pending.begin(beside=False)
        else:
            self.waiting = pending
        return pending

    def _tested(self, actor: Actor, collector: Collector, rng: np.random.Generator) -> Tested:
        """The adaptation curve on test tasks, and success, or return where there is none, at its end."""
        curve = adaptation_curve(
            actor,
            collector,
            self.test_tasks,
            rng,
            num_steps=self.evaluation.num_steps,
            num_episodes=self.evaluation.num_episodes,
            deterministic=self.evaluation.deterministic,
        )
        metrics = {f"test/return_after_{k}": float(r.mean()) for k, r in enumerate(curve.returns)}
        if curve.successes is not None:
            metrics |= {f"test/success_after_{k}": float(s.mean()) for k, s in enumerate(curve.successes)}
        best_by = curve.returns if curve.successes is None else curve.successes
        return Tested(metrics, float(best_by[-1].mean()))

    def state(self, progress: Progress) -> dict[str, Any]:
        """The agent and its random streams."""
        return state_of(self.agent, self.generators, progress, _identity(self.agent, self.benchmark))

    def save_data(self) -> None:
        """The agent's data, if it keeps any."""
        if isinstance(self.agent, KeepsData):
            self.agent.save_data(self.folder)


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
    """Agent and benchmark of a checkpoint: networks of two benchmarks may have the same shapes."""
    return f"{type(agent).__name__} on {benchmark.name}"
