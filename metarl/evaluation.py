"""Evaluation is a curve: return, and success, after 0, 1, ... k adaptation steps on held-out tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metarl.agent import Actor, ActsDeterministically, Collector
from metarl.intervals import Sampling
from metarl.runs.seeding import draw_seed
from metarl.tasks import Task
from metarl.trajectories import Trajectories

OnStep = Callable[[int, int], None]
"""A function that is called with (steps done, steps in all) after each adaptation step."""


def halves(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Means of the first and of the second half of samples, each [...]; None if there is only one sample.

    Args:
        samples: Independent repetitions last, shape [..., sample].
    """
    count = samples.shape[-1]
    if count < 2:
        return None
    return samples[..., : count // 2].mean(-1), samples[..., count // 2 :].mean(-1)


def worst_decile(chosen_by: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Mean of the worst tenth of tasks, of at least one: what a robot in an unlucky world has to expect.

    Tasks that are chosen by the values that they are then measured by look worse than they are: the worst tenth of
    20 equal tasks with unit noise reads -1.64. Two independent measurements of every task, each choosing for the
    other (cross-fitting), have no such bias.

    Args:
        chosen_by: Values that say which tasks are worst, larger is better, shape [task, ...].
        measured: Values that are averaged, of the same shape; the same values where there are no others.

    Returns:
        Means per column, shape [...]; each column has its own worst tasks.
    """
    count = -(-len(measured) // 10)

    def mean_of_worst(choosing: np.ndarray, values: np.ndarray) -> np.ndarray:
        worst = np.argsort(choosing, axis=0, kind="stable")[:count]
        of_worst: np.ndarray = np.take_along_axis(values, worst, axis=0).mean(0)
        return of_worst

    mean: np.ndarray = (mean_of_worst(chosen_by, measured) + mean_of_worst(measured, chosen_by)) / 2
    return mean


@dataclass(frozen=True)
class AdaptationCurve:
    """Returns and successes by adaptation step, on fixed tasks.

    Attributes:
        tasks: Evaluated tasks; repeats of one task were each adapted to separately.
        returns: Undiscounted returns, float64 [step, task, episode].
        successes: Whether episodes succeeded, bool [step, task, episode]; None where the family reports none.
        num_steps: Number of environment steps simulated for the whole curve.
        exhaustive: True where the tasks are the whole distribution, so that intervals are over repetitions; false
            where they were drawn from it, so that intervals are over tasks.
        separate_episodes: True where the episodes of a task at one step share no adaptation.
    """

    tasks: tuple[Task, ...]
    returns: np.ndarray
    successes: np.ndarray | None
    num_steps: int
    exhaustive: bool = False
    separate_episodes: bool = False

    def summary(self) -> list[dict[str, Any]]:
        """One row per adaptation step: means, their 95% intervals, and the worst decile of tasks.

        Keys of a row:
            step: Number of adaptation steps.
            return_mean, return_ci95: Mean return and its interval; see `metarl.intervals`.
            return_worst_decile: Mean return of the worst tenth of the distinct tasks.
            worst_decile_cross_fitted: True where other episodes chose these tasks than those that measured them.
                Where it is false, the tasks are selected by their own noise and the value is too low.
            success_mean, success_ci95: Success rate and its interval, where the family reports successes.
        """
        sampling, values = self._measurements(self.returns)
        worst, cross_fitted = self._worst_decile()
        rows: list[dict[str, Any]] = [
            {
                "step": step,
                "return_mean": float(mean),
                "return_ci95": interval,
                "return_worst_decile": float(worst[step]),
                "worst_decile_cross_fitted": cross_fitted,
            }
            for step, (mean, interval) in enumerate(
                zip(values.mean(0), sampling.mean_intervals(values), strict=True)
            )
        ]
        if self.successes is not None:
            sampling, rates = self._measurements(self.successes)
            intervals = sampling.rate_intervals(rates, self.successes[0].size // len(rates))
            for row, mean, interval in zip(rows, rates.mean(0), intervals, strict=True):
                row |= {"success_mean": float(mean), "success_ci95": interval}
        return rows

    def by_family(self) -> dict[str, "AdaptationCurve"]:
        """The part of the curve on the tasks of each family, in the order in which families come."""
        parts = {}
        for family in dict.fromkeys(task.family for task in self.tasks):
            rows = [i for i, task in enumerate(self.tasks) if task.family == family]
            successes = None if self.successes is None else self.successes[:, rows]
            own = tuple(self.tasks[i] for i in rows)
            parts[family] = replace(self, tasks=own, returns=self.returns[:, rows], successes=successes)
        return parts

    def trial_return(self) -> dict[str, Any]:
        """Return over all steps together: its mean, and the 95% interval of that.

        It is what a sequential actor maximises: the episodes that it learns from are those that it is paid for.
        """
        sampling, values = self._measurements(self.returns)
        sums = values.sum(1)
        return {"return_mean": float(sums.mean()), "return_ci95": sampling.mean_interval(sums)}

    def _measurements(self, values: np.ndarray) -> tuple[Sampling, np.ndarray]:
        """How measurements were sampled, and their values, as independent as can be, [measurement, step]."""
        tasks = self.tasks
        if self.separate_episodes:
            tasks = tuple(task for task in tasks for _ in range(values.shape[2]))
            flat = values.reshape(len(values), -1)
        else:
            flat = values.mean(2)
        families = [task.family for task in tasks]
        return Sampling.of_tasks(tasks, families, exhaustive=self.exhaustive), flat.T.astype(np.float64)

    def _worst_decile(self) -> tuple[np.ndarray, bool]:
        """The worst decile of distinct tasks by step, and whether other episodes chose it."""
        places: dict[Task, list[int]] = {}
        for place, task in enumerate(self.tasks):
            places.setdefault(task, []).append(place)
        num_steps = len(self.returns)
        samples = [self.returns[:, own].reshape(num_steps, -1) for own in places.values()]
        pairs = [pair for pair in map(halves, samples) if pair is not None]
        if len(pairs) < len(samples):
            means = np.stack([of_task.mean(1) for of_task in samples])
            return worst_decile(means, means), False
        first, second = (np.stack(half) for half in zip(*pairs, strict=True))
        return worst_decile(first, second), True


def adaptation_curve(
    actor: Actor,
    collector: Collector,
    tasks: Sequence[Task],
    rng: np.random.Generator,
    *,
    num_steps: int,
    num_episodes: int,
    exhaustive: bool = False,
    deterministic: bool = False,
    progress: OnStep | None = None,
) -> AdaptationCurve:
    """Adapt an unadapted actor to each task step by step, measuring on the way.

    An actor that adapts while it acts is given `num_episodes` trials per task, of `num_steps + 1` episodes each:
    step k is the trial's episode k + 1.

    Step k's returns are those of the episodes that adaptation step k + 1 then learns from, as in training: every
    task gets exactly `num_episodes` episodes at every step, all of which count.

    Args:
        actor: An actor that is not adapted to anything.
        collector: The collector that runs the episodes.
        tasks: Tasks to evaluate on.
        rng: Generator that seeds the episodes.
        num_steps: Number of adaptation steps; the curve has one point more.
        num_episodes: Number of episodes per task and step.
        exhaustive: True where the tasks are the whole distribution; see `TaskDistribution.exhausted_by`.
        deterministic: True to measure actors that take the mode of their distribution. An actor that learns from
            episode to episode then never samples. One that takes gradient steps adapts to episodes of sampled
            actions, which are not measured, and the deterministic ones are further episodes.
        progress: Function that is called after each step.

    Raises:
        ValueError: if the actor cannot act deterministically and should.
    """
    if actor.sequential:
        actor = _without_sampling(actor) if deterministic else actor
        curve = _trial_curve(actor, collector, tasks, rng, num_steps=num_steps, num_episodes=num_episodes)
        return replace(curve, exhaustive=exhaustive)
    returns, successes, steps = [], [], 0
    for step in range(num_steps + 1):
        measured = _without_sampling(actor) if deterministic else actor
        trajectories = collector.collect(measured, tasks, num_episodes, draw_seed(rng))
        returns.append(_finite_returns(trajectories))
        success = trajectories.successes()
        if success is not None:
            successes.append(success.numpy())
        steps += trajectories.num_steps
        if step < num_steps:
            if deterministic:
                trajectories = collector.collect(actor, tasks, num_episodes, draw_seed(rng))
                steps += trajectories.num_steps
            actor = actor.adapt(trajectories)
        if progress is not None:
            progress(step + 1, num_steps + 1)
    success_rates = np.stack(successes) if successes else None
    return AdaptationCurve(tuple(tasks), np.stack(returns), success_rates, steps, exhaustive)


def _without_sampling(actor: Actor) -> Actor:
    if not isinstance(actor, ActsDeterministically):
        raise ValueError(
            f"{type(actor).__name__} cannot act deterministically: it has no such method; sample instead"
        )
    return actor.deterministic()


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
    return AdaptationCurve(tuple(tasks), returns, successes, trajectories.num_steps, separate_episodes=True)


def _finite_returns(trajectories: Trajectories) -> np.ndarray:
    """Returns, float64 [task, episode]; raises a FloatingPointError that names the task if one is not finite."""
    returns: np.ndarray = trajectories.returns().double().numpy()
    bad = np.flatnonzero(~np.isfinite(returns).all(1))
    if len(bad):
        raise FloatingPointError(f"the return on test task {bad[0]}, {trajectories.tasks[bad[0]]}, is not finite")
    return returns
