"""Evaluation is a curve: return, and success, after 0, 1, ... k adaptation steps on held-out tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarl.agent import Actor, Collector
from metarl.runs.seeding import draw_seed
from metarl.tasks import Task
from metarl.trajectories import Trajectories

OnStep = Callable[[int, int], None]
"""Told (steps done, steps in all) after each adaptation step."""


def bootstrap_intervals(
    values: np.ndarray, rng: np.random.Generator, *, confidence: float = 0.95, resamples: int = 10_000
) -> list[list[float] | None]:
    """Percentile bootstrap intervals [low, high] of the means of independent samples.

    All columns are resampled together, so that hundreds of them cost little more than one.

    Args:
        values: shape [sample, column].
        rng: draws the resamples.
        confidence: of each interval.
        resamples: how many.

    Returns:
        One interval per column; None with fewer than two samples: there is nothing to resample.
    """
    num_samples, num_columns = values.shape
    if num_samples < 2:
        return [None] * num_columns
    means = []
    chunk = max(1, min(resamples, 4_000_000 // num_samples))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(num_samples, size=(rows, num_samples)) + num_samples * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * num_samples).reshape(rows, num_samples)
        means.append(counts @ values / num_samples)
    tail = (1 - confidence) / 2
    bounds = np.quantile(np.concatenate(means), (tail, 1 - tail), axis=0)
    return [[float(low), float(high)] for low, high in bounds.T]


def bootstrap_interval(values: np.ndarray, rng: np.random.Generator) -> list[float] | None:
    """The 95% percentile bootstrap interval of the mean of independent values [sample]."""
    return bootstrap_intervals(values[:, None], rng)[0]


def worst_decile(values: np.ndarray) -> np.ndarray:
    """Mean of the worst tenth of tasks, of at least one: what a robot in an unlucky world has to expect.

    Args:
        values: larger is better, [task, ...].

    Returns:
        Per column, [...]; each column has its own worst tasks.
    """
    count = -(-len(values) // 10)
    worst: np.ndarray = np.sort(values, axis=0)[:count].mean(0)
    return worst


@dataclass(frozen=True)
class AdaptationCurve:
    """Returns and successes by adaptation step, on fixed tasks.

    Attributes:
        tasks: evaluated; repeats of one task were each adapted to separately.
        returns: undiscounted, float64 [step, task, episode].
        successes: bool [step, task, episode], or None where the family reports none.
        num_steps: environment steps simulated for the whole curve.
    """

    tasks: tuple[Task, ...]
    returns: np.ndarray
    successes: np.ndarray | None
    num_steps: int

    def summary(self, rng: np.random.Generator) -> list[dict[str, Any]]:
        """One row per adaptation step: means, 95% bootstrap intervals over tasks, and the worst decile of tasks.

        Episodes of one task share its adaptation, so tasks are what is resampled.
        """
        per_task = self.returns.mean(2).T  # [task, step]
        rows: list[dict[str, Any]] = [
            {
                "step": step,
                "return_mean": float(mean),
                "return_ci95": interval,
                "return_worst_decile": float(worst),
            }
            for step, (mean, interval, worst) in enumerate(
                zip(per_task.mean(0), bootstrap_intervals(per_task, rng), worst_decile(per_task), strict=True)
            )
        ]
        if self.successes is not None:
            success = self.successes.mean(2).T
            for row, mean, interval in zip(rows, success.mean(0), bootstrap_intervals(success, rng), strict=True):
                row |= {"success_mean": float(mean), "success_ci95": interval}
        return rows

    def by_family(self) -> dict[str, "AdaptationCurve"]:
        """The part of the curve on the tasks of each family, in the order in which families come."""
        parts = {}
        for family in dict.fromkeys(task.family for task in self.tasks):
            rows = [i for i, task in enumerate(self.tasks) if task.family == family]
            successes = None if self.successes is None else self.successes[:, rows]
            own = tuple(self.tasks[i] for i in rows)
            parts[family] = AdaptationCurve(own, self.returns[:, rows], successes, self.num_steps)
        return parts

    def trial_return(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return over all steps together: mean, and 95% bootstrap interval over tasks.

        It is what a sequential actor maximises: what it learns by and what it earns by are the same episodes.
        """
        per_task = self.returns.sum(0).mean(1)
        return {"return_mean": float(per_task.mean()), "return_ci95": bootstrap_interval(per_task, rng)}


def adaptation_curve(
    actor: Actor,
    collector: Collector,
    tasks: Sequence[Task],
    rng: np.random.Generator,
    *,
    num_steps: int,
    num_episodes: int,
    progress: OnStep | None = None,
) -> AdaptationCurve:
    """Adapt an unadapted actor to each task step by step, measuring on the way.

    An actor that adapts while it acts is given `num_episodes` trials per task, of `num_steps + 1` episodes each:
    step k is the trial's episode k + 1.

    Step k's returns are those of the episodes that adaptation step k + 1 then learns from, as in training: every
    task gets exactly `num_episodes` episodes at every step, all of which count.

    Args:
        actor: not adapted to anything.
        collector: runs the episodes.
        tasks: to evaluate on.
        rng: seeds the episodes.
        num_steps: adaptation steps; the curve has one point more.
        num_episodes: per task and step.
        progress: told after each step.
    """
    if actor.sequential:
        return _trial_curve(actor, collector, tasks, rng, num_steps=num_steps, num_episodes=num_episodes)
    returns, successes, steps = [], [], 0
    for step in range(num_steps + 1):
        trajectories = collector.collect(actor, tasks, num_episodes, draw_seed(rng))
        returns.append(_finite_returns(trajectories))
        success = trajectories.successes()
        if success is not None:
            successes.append(success.numpy())
        steps += trajectories.num_steps
        if step < num_steps:
            actor = actor.adapt(trajectories)
        if progress is not None:
            progress(step + 1, num_steps + 1)
    return AdaptationCurve(tuple(tasks), np.stack(returns), np.stack(successes) if successes else None, steps)


def _trial_curve(
    actor: Actor,
    collector: Collector,
    tasks: Sequence[Task],
    rng: np.random.Generator,
    *,
    num_steps: int,
    num_episodes: int,
) -> AdaptationCurve:
    repeated = [task for task in tasks for _ in range(num_episodes)]
    trajectories = collector.collect(actor, repeated, num_steps + 1, draw_seed(rng))
    shape = (len(tasks), num_episodes, num_steps + 1)
    returns = _finite_returns(trajectories).reshape(shape).transpose(2, 0, 1)
    success = trajectories.successes()
    successes = None if success is None else success.numpy().reshape(shape).transpose(2, 0, 1)
    return AdaptationCurve(tuple(tasks), returns, successes, trajectories.num_steps)


def _finite_returns(trajectories: Trajectories) -> np.ndarray:
    """Returns, float64 [task, episode]; raises a FloatingPointError that names the task if one is not finite."""
    returns: np.ndarray = trajectories.returns().double().numpy()
    bad = np.flatnonzero(~np.isfinite(returns).all(1))
    if len(bad):
        raise FloatingPointError(f"the return on test task {bad[0]}, {trajectories.tasks[bad[0]]}, is not finite")
    return returns
