"""The numbers of a comparison: by adaptation step, between groups, and curves over training."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.experiments.comparison import statistics
from metarl.experiments.comparison.records import Group, RunRecord
from metarl.intervals import student_quantile

Numbers = dict[str, Any]
_POINTS = 200  # of a learning curve


def summarise(groups: Sequence[Group]) -> Numbers:
    """All numbers of a comparison as JSON types."""
    tasks = groups[0].runs[0].tasks
    families = [task["family"] for task in tasks]
    return {
        "benchmark": groups[0].runs[0].benchmark,
        "num_tasks": len(tasks),
        "groups": {group.label: _of_group(group, families) for group in groups},
        "pairs": [_of_pair(first, second, families) for first, second in itertools.combinations(groups, 2)],
    }


def _of_group(group: Group, families: Sequence[str]) -> Numbers:
    rows = []
    returns, successes = group.returns, group.successes
    for step in range(returns.shape[1]):
        values = returns[:, step]
        row: Numbers = {
            "step": step,
            "return_mean": float(values.mean()),
            "return_ci95": statistics.interval(values, families),
            "return_iqm": float(statistics.interquartile_mean(values)),
            "return_iqm_ci95": statistics.interval(values, families, statistics.interquartile_mean),
        }
        if successes is not None:
            row["success_mean"] = float(successes[:, step].mean())
            row["success_ci95"] = statistics.rate_interval(successes[:, step], families)
        rows.append(row)
    return {
        "seeds": [run.seed for run in group.runs],
        "folders": [str(run.folder) for run in group.runs],
        "sequential": group.runs[0].sequential,
        "env_steps": [int(run.env_steps[-1]) for run in group.runs],
        "wall_s": [float(run.wall_s[-1]) for run in group.runs],
        "adaptation": rows,
        "learning": {
            "env_steps": learning_curve(group, [run.env_steps for run in group.runs]),
            "wall_s": learning_curve(group, [run.wall_s for run in group.runs]),
        },
    }


def _of_pair(first: Group, second: Group, families: Sequence[str]) -> Numbers:
    """Differences after the last adaptation step."""
    a, b = first.returns[:, -1], second.returns[:, -1]
    value, interval = statistics.difference(a, b, families)
    probability, bounds = statistics.probability_of_improvement(a, b, families)
    return {
        "first": first.label,
        "second": second.label,
        "difference": value,
        "difference_ci95": interval,
        "probability_of_improvement": probability,
        "probability_ci95": bounds,
    }


def learning_curve(group: Group, axes: Sequence[np.ndarray]) -> Numbers:
    """Mean over seeds of what is tested in training, where all runs are, with 95% intervals of Student's t.

    Args:
        group: Runs of one experiment.
        axes: Position of every iteration of each run: environment steps, or seconds.

    Returns:
        The metric's name, positions "x", "mean", and "low" and "high", which are None for one seed.
    """
    name, points = _tested(group.runs, axes)
    start = max(x[0] for x, _ in points)
    end = min(x[-1] for x, _ in points)
    grid = np.linspace(min(start, end), end, min(_POINTS, max(len(x) for x, _ in points)))
    values = np.stack([np.interp(grid, x, y) for x, y in points])
    curve: Numbers = {"metric": name, "x": grid.tolist(), "mean": values.mean(0).tolist()}
    curve |= {"low": None, "high": None}
    if len(values) > 1:
        half = student_quantile(len(values) - 1) * values.std(0, ddof=1) / np.sqrt(len(values))
        curve |= {"low": (values.mean(0) - half).tolist(), "high": (values.mean(0) + half).tolist()}
    return curve


def _tested(
    runs: Sequence[RunRecord], axes: Sequence[np.ndarray]
) -> tuple[str, list[tuple[np.ndarray, np.ndarray]]]:
    curves = [run.learning_curve() for run in runs]
    return curves[0][0], [(axis[there], values) for axis, (_, there, values) in zip(axes, curves, strict=True)]


def csv_rows(numbers: Mapping[str, Any]) -> tuple[list[str], list[dict[str, str]]]:
    """The table by group and adaptation step, as columns and rows of text."""
    columns = ["group", "seeds", "tasks", "step", "return_mean", "return_low", "return_high"]
    columns += ["return_iqm", "return_iqm_low", "return_iqm_high", "success_mean", "success_low", "success_high"]
    rows = []
    for label, group in numbers["groups"].items():
        for row in group["adaptation"]:
            line = {"group": label, "seeds": str(len(group["seeds"])), "tasks": str(numbers["num_tasks"])}
            line["step"] = str(row["step"])
            for name in ("return_mean", "return_iqm", "success_mean"):
                if name not in row:
                    continue
                stem = name.removesuffix("_mean")
                line[name] = repr(row[name])
                if row[f"{stem}_ci95"] is not None:
                    line[f"{stem}_low"], line[f"{stem}_high"] = map(repr, row[f"{stem}_ci95"])
            rows.append(line)
    return columns, rows
