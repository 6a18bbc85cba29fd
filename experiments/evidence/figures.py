"""Learning curves of a section as SVG: a panel for each benchmark, a line for each run name."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from metarl.experiments.comparison.figures import COLOURS
from metarl.experiments.comparison.records import METRICS, learning_curve, read_metrics
from metarl.experiments.evidence.entries import Entry
from metarl.experiments.report.learners import learning_points
from metarl.experiments.report.settings import Described

MOST_ERROR = 10
"""Squared error above which a curve is cut off: a learner may diverge beyond the steps that it was trained for."""
_POINTS = 100  # of a line
_COLUMNS = 3
_LINES = ("-", "--", ":")
_WIDTH, _HEIGHT = 7.0, 1.9  # inches, of the figure and of a row of panels

Curve = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Positions, means over seeds, lowest and highest seed, each [point]."""


def draw(entries: Sequence[Entry], metric: str) -> bytes | None:
    """The figure as SVG, the same for the same runs; None where no run has metrics.

    Args:
        entries: Entries of a section, of different names.
        metric: Name of the headline number.
    """
    few_shot = metric in ("accuracy", "mse")
    panels: dict[str, dict[str, Curve]] = {}
    for entry in entries:
        curve = _curve(entry.runs, metric)
        if curve is not None:
            panels.setdefault(_panel(entry), {})[entry.name] = curve
    if not panels:
        return None
    # Imported here because it is an extra, and slow to load.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    settings: Any = {"font.size": 7, "svg.fonttype": "none", "svg.hashsalt": "metarl", "text.parse_math": False}
    settings |= {"axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(settings):
        columns = min(_COLUMNS, len(panels))
        rows = -(-len(panels) // columns)
        names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
        height = _HEIGHT * rows + 0.16 * -(-len(names) // _COLUMNS)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, (title, lines) in zip(axes, panels.items(), strict=False):
            _draw_panel(axis, lines, names)
            axis.set_title(title, fontsize=7)
            axis.set_xlabel("tasks (thousands)" if few_shot else "environment steps (millions)", fontsize=6)
            if metric == "mse":
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter("{x:g}")
                axis.set_ylim(top=min(MOST_ERROR, axis.get_ylim()[1]))
        for axis in axes[::columns]:
            axis.set_ylabel({"mse": "squared error"}.get(metric, metric) if few_shot else "return")
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        by_name = {line.get_label(): line for axis in axes for line in axis.get_lines()}
        figure.legend([by_name[name] for name in names], names, loc="outside lower center", ncols=_COLUMNS,
                      frameon=False, fontsize=6)  # fmt: skip
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    return file.getvalue()


def _draw_panel(axis: Any, lines: dict[str, Curve], names: Sequence[str]) -> None:
    for name, (x, mean, low, high) in lines.items():
        place = names.index(name)
        colour, style = COLOURS[place % len(COLOURS)], _LINES[place // len(COLOURS) % len(_LINES)]
        axis.plot(x, mean, color=colour, linestyle=style, linewidth=1, label=name)
        if (high > low).any():
            axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.grid(alpha=0.3, linewidth=0.5)
    axis.tick_params(labelsize=6)
    axis.locator_params(axis="x", nbins=5)


def _panel(entry: Entry) -> str:
    """The title of the panel that runs belong to: their benchmark, or their data."""
    data = entry.runs[0].data
    benchmark = data.get("benchmark") if entry.runs[0].kind == "rl" else data.get("data", {}).get("kind")
    return benchmark if isinstance(benchmark, str) else "tasks of its own"


def _curve(runs: Sequence[Described], metric: str) -> Curve | None:
    points = [_points(run, metric) for run in runs if (run.folder / METRICS).is_file()]
    points = [(x, y) for x, y in points if len(x) > 1]
    if not points:
        return None
    start, end = max(x[0] for x, _ in points), min(x[-1] for x, _ in points)
    if end <= start:
        return None
    grid = np.linspace(start, end, min(_POINTS, max(len(x) for x, _ in points)))
    values = np.stack([np.interp(grid, x, y) for x, y in points])
    return grid, values.mean(0), values.min(0), values.max(0)


def _points(run: Described, metric: str) -> tuple[np.ndarray, np.ndarray]:
    if run.kind == "few-shot":
        x, y = learning_points(run.folder, metric)
        return x / 1e3, y
    metrics = read_metrics(run.folder / METRICS)
    curve = learning_curve(metrics)
    return (metrics["env_steps"][curve[1]] / 1e6, curve[2]) if curve else (np.empty(0), np.empty(0))
