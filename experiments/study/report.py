"""The results of a study: returns by adaptation episode, the worst decile of tasks, and regret; table and JSON."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from metarl.evaluation import worst_decile
from metarl.experiments.console import SELECTED, say, show_table
from metarl.experiments.study.configuration import FINE_TUNED, FROM_SCRATCH, TEST_EPISODES, Study
from metarl.experiments.study.held_out import HeldOut
from metarl.experiments.versions import versions
from metarl.intervals import Sampling
from metarl.tasks import TaskFamily

DISJOINT = "no held-out task is in training, and none in two sets; the gap has the interpolation tasks"


def summarise(
    name: str, study: Study, sets: Mapping[str, HeldOut], evaluations: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """All results as JSON types.

    Regret of a learner on a task is the oracle's mean return there, over all its episodes, minus the learner's.
    The oracle is a trained agent and no bound: a learner that does better has negative regret. Intervals are over
    tasks (`metarl.intervals`), those of regret over differences on the same task; they do not hold what another
    training seed would change. `worst_decile_cross_fitted` is true where other episodes chose the worst tenth of
    tasks than those that they were measured by; where it is false, the value is too low. This mean of the worst
    tenth is the conditional value at risk (CVaR) over tasks of the literature on robust meta-RL. Robot time is
    that of the adaptation, at the family's own control period.

    Args:
        name: Name of the study.
        study: The study that was run.
        sets: Held-out tasks by name of the set.
        evaluations: Returns of every learner, as `metarl.experiments.study.running` writes them.
    """
    horizon = study.horizon or next(iter(sets.values())).family.horizon
    period_s = _control_period_s(next(iter(sets.values())).family)
    results: dict[str, Any] = {}
    for key, held_out in sets.items():
        oracle = np.array(evaluations[study.oracle]["sets"][key]["returns"]).mean(0)  # [task]
        results[key] = {
            "meaning": held_out.meaning,
            "num_tasks": len(held_out.tasks),
            "learners": {
                learner: {"episodes_per_task_and_point": _episodes(study, learner, evaluation)}
                | _points(evaluation["sets"][key], held_out, oracle, horizon, period_s)
                for learner, evaluation in evaluations.items()
            },
        }
    return {
        "study": name,
        "benchmark": study.benchmark,
        "seed": study.seed,
        "oracle": study.oracle,
        "disjoint": DISJOINT,
        "versions": versions(),
        "learners": {
            learner: {
                "train_env_steps": evaluation["train_env_steps"],
                "train_wall_s": evaluation["train_wall_s"],
                "adaptation_env_steps": _adaptation_steps(study, learner, evaluation["sets"], horizon),
            }
            for learner, evaluation in evaluations.items()
        },
        "sets": results,
    }


def _control_period_s(family: TaskFamily) -> float | None:
    """Seconds between two actions, None if the family's world has no time."""
    env = family.make_env(1, num_threads=1)
    try:
        period_s: float | None = getattr(env, "control_period_s", None)
        return period_s
    finally:
        env.close()


def _episodes(study: Study, learner: str, evaluation: Mapping[str, Any]) -> int:
    """Episodes that a mean return of one task, at one point of the curve, is of."""
    if learner in (FROM_SCRATCH, FINE_TUNED):
        return TEST_EPISODES * study.num_trials
    if learner in {each.teacher for each in study.learners}:
        return study.num_trials * (study.num_episodes + 1)
    return int(evaluation["episodes_per_step"]) * study.num_trials


def _adaptation_steps(study: Study, learner: str, curves: Mapping[str, Mapping[str, Any]], horizon: int) -> int:
    """Most environment steps that a learner adapted on, 0 if its episodes change nothing in it."""
    if any(not each.adapts for each in study.learners if each.name == learner):
        return 0
    return int(max(next(iter(curves.values()))["episodes"])) * horizon


def _points(
    curve: Mapping[str, Any], held_out: HeldOut, oracle: np.ndarray, horizon: int, period_s: float | None
) -> dict[str, Any]:
    """Results of one learner on one set, as JSON types."""
    tasks = held_out.tasks
    returns = np.array(curve["returns"])  # [point, task]
    regret = oracle - returns
    sampling = Sampling.of_tasks(tasks, [task.family for task in tasks], exhaustive=held_out.exhaustive)
    intervals = sampling.mean_intervals(returns.T), sampling.mean_intervals(regret.T)
    first, second = np.array(curve.get("halves", [returns, returns]))  # each [point, task]
    worst = worst_decile(first.T, second.T)
    return {
        "adaptation": [
            {
                "episodes": episodes,
                "env_steps_at_most": episodes * horizon,
                "robot_time_s_at_most": None if period_s is None else episodes * horizon * period_s,
                "return_mean": float(returns[point].mean()),
                "return_ci95": intervals[0][point],
                "return_worst_decile": float(worst[point]),
                "worst_decile_cross_fitted": "halves" in curve,
                "regret_mean": float(regret[point].mean()),
                "regret_ci95": intervals[1][point],
            }
            for point, episodes in enumerate(curve["episodes"])
        ],
        "tasks": [
            task.to_json() | {"return_mean": returns[:, i].tolist(), "regret": regret[:, i].tolist()}
            for i, task in enumerate(tasks)
        ],
    }


def show(results: Mapping[str, Any]) -> None:
    """Print a table per set: every learner without adaptation, and after all of it."""
    columns = ["learner", "training steps", "episodes", "robot time", "return", "95% interval over tasks"]
    columns += ["CVaR, worst 10% of tasks", "regret", "95% interval over tasks"]
    selected = False
    for key, held_out in results["sets"].items():
        lines = []
        for learner, measured in held_out["learners"].items():
            steps = f"{results['learners'][learner]['train_env_steps']:,}"
            points = measured["adaptation"]
            for number, row in enumerate([points[0], points[-1]][: len(points)]):
                selected |= not row["worst_decile_cross_fitted"]
                lines.append(
                    (
                        learner if not number else "",
                        steps if not number else "",
                        str(row["episodes"]),
                        _seconds(row["robot_time_s_at_most"]),
                        f"{row['return_mean']:.1f}",
                        _interval(row["return_ci95"]),
                        f"{row['return_worst_decile']:.1f}" + "*" * (not row["worst_decile_cross_fitted"]),
                        f"{row['regret_mean']:.1f}",
                        _interval(row["regret_ci95"]),
                    )
                )
        title = f"{results['study']}, {key}: {held_out['num_tasks']} tasks, {held_out['meaning']}"
        show_table(title, columns, lines, keys=4)
    if selected:
        say(SELECTED)


def _seconds(time_s: float | None) -> str:
    return "-" if time_s is None else f"{time_s:.0f} s"


def _interval(bounds: list[float] | None) -> str:
    return "-" if bounds is None else f"[{bounds[0]:.1f}, {bounds[1]:.1f}]"
