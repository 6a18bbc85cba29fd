"""Evaluation is a curve: return, and success, after 0, 1, ... k adaptation steps on held-out tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarl.agent import Actor, Collector
from metarl.seeding import draw_seed
from metarl.tasks import Task

OnStep = Callable[[int, int], None]
"""Told (steps done, steps in all) after each adaptation step."""


def bootstrap_interval(
    values: np.ndarray, rng: np.random.Generator, *, confidence: float = 0.95, resamples: int = 10_000
) -> list[float] | None:
    """Percentile bootstrap interval [low, high] of the mean of independent values, shape [sample].

    None with fewer than two values: there is nothing to resample.
    """
    if len(values) < 2:
        return None
    means = values[rng.integers(len(values), size=(resamples, len(values)))].mean(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return [float(low), float(high)]


@dataclass(frozen=True)
class AdaptationCurve:
    """Returns and successes by adaptation step, on fixed tasks.

    Attributes:
        tasks: evaluated; repeats of one task were each adapted to separately.
        returns: undiscounted, float64 [step, task, episode].
        successes: bool [step, task, episode], or None where the family reports none.
        num_steps: environment steps simulated.
    """

    tasks: tuple[Task, ...]
    returns: np.ndarray
    successes: np.ndarray | None
    num_steps: int

    def summary(self, rng: np.random.Generator) -> list[dict[str, Any]]:
        """One row per adaptation step: means, and 95% bootstrap intervals over tasks.

        Episodes of one task share its adaptation, so tasks are what is resampled.
        """
        rows = []
        for step, returns in enumerate(self.returns):
            per_task = returns.mean(1)
            row: dict[str, Any] = {
                "step": step,
                "return_mean": float(per_task.mean()),
                "return_ci95": bootstrap_interval(per_task, rng),
            }
            if self.successes is not None:
                success = self.successes[step].mean(1)
                row["success_mean"] = float(success.mean())
                row["success_ci95"] = bootstrap_interval(success, rng)
            rows.append(row)
        return rows


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
    returns, successes, steps = [], [], 0
    for step in range(num_steps + 1):
        trajectories = collector.collect(actor, tasks, num_episodes, draw_seed(rng))
        returns.append(trajectories.returns().double().numpy())
        bad = np.flatnonzero(~np.isfinite(returns[-1]).all(1))
        if len(bad):
            raise FloatingPointError(f"the return on test task {bad[0]}, {tasks[bad[0]]}, is not finite")
        success = trajectories.successes()
        if success is not None:
            successes.append(success.numpy())
        steps += trajectories.num_steps
        if step < num_steps:
            actor = actor.adapt(trajectories)
        if progress is not None:
            progress(step + 1, num_steps + 1)
    return AdaptationCurve(tuple(tasks), np.stack(returns), np.stack(successes) if successes else None, steps)
