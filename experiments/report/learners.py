"""The parts of a report on runs of few-shot learners: scores by split and adaptation step, and learning curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.experiments.comparison.figures import COLOURS, MARKERS, Drawing
from metarl.experiments.comparison.grouping import grouped
from metarl.experiments.comparison.records import METRICS, read_metrics
from metarl.experiments.evaluations import read_evaluation, score_name, score_words
from metarl.experiments.report.drawings import figure
from metarl.experiments.report.page import (
    NONE,
    Node,
    Row,
    Section,
    interval,
    node,
    number,
    paragraph,
    table,
    thinned,
)
from metarl.fewshot.objectives import score_range
from metarl.intervals import student_quantile

_MOST_STEPS = 6  # of a curve by adaptation step, in its table
_NUM_POINTS = 10  # of a learning curve, in its table


@dataclass(frozen=True)
class Curve:
    """Scores by adaptation step, means over seeds.

    Attributes:
        steps: Numbers of adaptation steps.
        mean: Mean score after each.
        bounds: Intervals over seeds, or over tasks where there is one seed; None where there is none.
    """

    steps: list[int]
    mean: list[float]
    bounds: list[Sequence[float] | None]


@dataclass(frozen=True)
class LearnerGroup:
    """Few-shot runs that differ by their seeds.

    Attributes:
        label: Name in tables and figures.
        folders: Run folders.
        metric: Name of the score, such as accuracy or mse.
        episodes: Sizes of the tasks, in words.
        num_tasks: Number of evaluated tasks.
        train_tasks: Number of tasks that each run was trained on.
        curves: Scores by what was measured: test, other splits, and the untrained learner on test tasks.
        learning: Tasks trained on and score at each test in training, of every run.
    """

    label: str
    folders: tuple[Path, ...]
    metric: str
    episodes: str
    num_tasks: int
    train_tasks: tuple[int, ...]
    curves: Mapping[str, Curve]
    learning: Sequence[tuple[np.ndarray, np.ndarray]]


def read_learners(folders: Sequence[Path], evaluation: str) -> list[LearnerGroup]:
    """The groups of folders of few-shot runs, as `metarl.experiments.comparison.grouping.grouped` makes them.

    Raises:
        ValueError: if a file is missing or malformed, or scores are of different kinds.
    """
    groups = [_read_group(label, runs, evaluation) for label, runs in grouped(folders).items()]
    metrics = {group.metric for group in groups}
    if len(metrics) > 1:
        raise ValueError(f"expected runs with one kind of score, got {' and '.join(sorted(metrics))}")
    return groups


def _read_group(label: str, runs: Sequence[Path], evaluation: str) -> LearnerGroup:
    results = []
    for run in runs:
        path = run / evaluation
        if not path.is_file():
            raise ValueError(f"{run} has no {evaluation}; finish it with `metarl resume {run}`")
        results.append((path, read_evaluation(path)))
    try:
        first = results[0][1]
        metric = score_name(first["adaptation"][0])
        measured = [
            {
                "test": data["adaptation"],
                **{str(split): rows for split, rows in data["splits"].items()},
                "test, untrained": data["baselines"]["untrained"],
            }
            for _, data in results
        ]
        curves = {name: _curve([each[name] for each in measured], metric) for name in measured[0]}
        sizes = str(first["episodes"]), int(first["num_tasks"])
        train_tasks = tuple(int(data["train_tasks"]) for _, data in results)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{results[0][0]} is no evaluation of a learner ({type(error).__name__} {error})"
        ) from error
    learning = [learning_points(run, metric) for run in runs]
    return LearnerGroup(label, tuple(runs), metric, *sizes, train_tasks, curves, learning)


def _curve(of_seeds: Sequence[Sequence[Mapping[str, Any]]], metric: str) -> Curve:
    steps = [int(row["step"]) for row in of_seeds[0]]
    values = np.array([[row[f"{metric}_mean"] for row in rows] for rows in of_seeds], dtype=np.float64)
    bounds: list[Sequence[float] | None] = [row[f"{metric}_ci95"] for row in of_seeds[0]]
    if len(values) > 1:
        half = student_quantile(len(values) - 1) * values.std(0, ddof=1) / np.sqrt(len(values))
        low, high = (np.clip(values.mean(0) + side * half, *score_range(metric)) for side in (-1, 1))
        bounds = [[float(a), float(b)] for a, b in zip(low, high, strict=True)]
    return Curve(steps, values.mean(0).tolist(), bounds)


def learning_points(run: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Tasks and scores of the tests in training, or of training tasks where no test was made.

    Args:
        run: Run folder.
        metric: Name of the score, such as accuracy or mse.
    """
    metrics = read_metrics(run / METRICS, "tasks")
    tested = [name for split in ("validation", "test") for name in metrics if name.startswith(f"{split}/{metric}")]
    names = [max(tested, key=lambda name: int(name.rsplit("_", 1)[1]))] if tested else []
    for name in [*names, f"train/{metric}_post"]:
        if name in metrics and np.isfinite(metrics[name]).sum() > 1:
            there = np.isfinite(metrics[name])
            return metrics["tasks"][there], metrics[name][there]
    return np.empty(0), np.empty(0)


def headline(groups: Sequence[LearnerGroup]) -> list[Node]:
    """One sentence for each group: what it reaches, after how much."""
    lines = []
    for group in groups:
        test, untrained = group.curves["test"], group.curves["test, untrained"]
        seeds = len(group.folders)
        lines.append(
            paragraph(
                node("strong", None, group.label),
                f", {seeds} seed{'s' * (seeds > 1)} of {max(group.train_tasks):,} tasks: {_words(group.metric)} ",
                node("strong", None, _score(group.metric, test.mean[-1])),
                f" on test tasks of {group.episodes}, untrained {_score(group.metric, untrained.mean[-1])}.",
            )
        )
    return lines


def results(groups: Sequence[LearnerGroup]) -> Section:
    """Scores by split and adaptation step."""
    section, alone = Section("Results"), len(groups) == 1
    rows: list[Row] = []
    for group in groups:
        for name, curve in group.curves.items():
            for place in thinned(range(len(curve.steps)), _MOST_STEPS):
                bounds = curve.bounds[place]
                percent = None if bounds is None else [_scaled(group.metric, x) for x in bounds]
                score = _score(group.metric, curve.mean[place])
                line = [name, str(curve.steps[place]), score, interval(percent)]
                rows.append([*([] if alone else [group.label]), *line])
    over = "over tasks" if all(len(group.folders) == 1 for group in groups) else "over seeds, or tasks of one seed"
    sizes = " and ".join(dict.fromkeys(f"{group.num_tasks} tasks of {group.episodes}" for group in groups))
    caption = f"{_words(groups[0].metric).capitalize()} by adaptation step, {sizes}; 95% intervals {over}"
    columns = [*([] if alone else ["learner"]), "tasks", "step", _words(groups[0].metric), "95% interval"]
    section.content.append(table(caption, columns, rows, text_columns=len(columns) - 3))
    return section


def curves(groups: Sequence[LearnerGroup]) -> list[Section]:
    """The figures of adaptation and of learning."""
    adaptation, learning = Section("Adaptation"), Section("Learning")
    label = _words(groups[0].metric)
    if any(len(group.curves["test"].steps) > 1 for group in groups):
        texts = [
            f"{g.label} goes from {_score(g.metric, g.curves['test'].mean[0])} to "
            f"{_score(g.metric, g.curves['test'].mean[-1])} after {g.curves['test'].steps[-1]} steps"
            for g in groups
        ]
        drawn = figure(
            "adaptation",
            _draw_adaptation(groups),
            alternative=f"Adaptation curve on test tasks: {label}. {'; '.join(texts)}.",
            caption=["Adaptation curve", " on test tasks, with 95% intervals; dashed: untrained."],
            num_labels=2 * len(groups),
        )
        adaptation.content.append(node("div", {"class": "figures"}, drawn))
    curves_ = [(group, x, y) for group in groups for x, y in group.learning if len(x)]
    if curves_:
        texts = [
            f"{g.label} goes from {_score(g.metric, y[0])} at {x[0]:,.0f} tasks to "
            f"{_score(g.metric, y[-1])} at {x[-1]:,.0f}"
            for g, x, y in curves_
        ]
        drawn = figure(
            "learning",
            _draw_learning(groups),
            alternative=f"Learning curve: {label}. {'; '.join(texts)}.",
            caption=["Learning curve", " over training tasks, a line for each seed."],
            num_labels=len(groups),
            numbers=(["learner", "tasks", label], _learning_rows(curves_)),
        )
        learning.content.append(node("div", {"class": "figures"}, drawn))
    return [adaptation, learning]


def _learning_rows(of_runs: Sequence[tuple[LearnerGroup, np.ndarray, np.ndarray]]) -> list[Row]:
    rows: list[Row] = []
    for group, x, y in of_runs:
        for place in thinned(range(len(x)), _NUM_POINTS):
            rows.append([group.label, f"{x[place]:,.0f}", _score(group.metric, y[place])])
    return rows


def _draw_adaptation(groups: Sequence[LearnerGroup]) -> Drawing:
    def draw(axis: Any) -> None:
        for place, group in enumerate(groups):
            colour = COLOURS[place % len(COLOURS)]
            for name, style in (("test", "-"), ("test, untrained", "--")):
                curve = group.curves[name]
                values = [_scaled(group.metric, x) for x in curve.mean]
                label = group.label if name == "test" else f"{group.label}, untrained"
                axis.plot(curve.steps, values, style, color=colour, label=label, linewidth=1.2, markersize=4,
                          marker=MARKERS[place % len(MARKERS)] if len(values) <= 20 else None)  # fmt: skip
                if all(bounds is not None for bounds in curve.bounds):
                    low, high = ([_scaled(group.metric, b[side]) for b in curve.bounds if b] for side in (0, 1))
                    axis.fill_between(curve.steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set_xlabel("adaptation steps")
        axis.set_ylabel(_words(groups[0].metric))
        axis.xaxis.get_major_locator().set_params(integer=True)

    return draw


def _draw_learning(groups: Sequence[LearnerGroup]) -> Drawing:
    def draw(axis: Any) -> None:
        for place, group in enumerate(groups):
            for run, (x, y) in enumerate(group.learning):
                values = [_scaled(group.metric, value) for value in y]
                label = group.label if run == 0 else None
                axis.plot(x / 1000, values, color=COLOURS[place % len(COLOURS)], label=label, linewidth=1.2)
        axis.set_xlabel("tasks trained on (thousands)")
        axis.set_ylabel(_words(groups[0].metric))

    return draw


def _words(metric: str) -> str:
    return "accuracy (%)" if metric == "accuracy" else score_words(metric)


def _scaled(metric: str, value: float) -> float:
    return 100 * float(value) if metric == "accuracy" else float(value)


def _score(metric: str, value: float) -> str:
    return number(_scaled(metric, value)) if np.isfinite(value) else NONE
