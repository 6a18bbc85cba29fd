"""The figures of a comparison, at the width of a paper's column: 8 pt, safe for colour-blind readers."""

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from metarl.experiments.comparison.records import Group
from metarl.experiments.comparison.statistics import profile
from metarl.runs.files import atomic_file

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""The palette of Okabe and Ito (2008)."""
MARKERS = "osD^vPX"
WIDTH, HEIGHT = 3.4, 2.5  # inches, one column
DPI = 300
FORMATS = ("png", "pdf")
HOW_TO_INSTALL = "no figures: matplotlib is not installed; pip install matplotlib and compare again"
Regions = Mapping[str, tuple[float, float]]
"""Least and greatest value of each number of the training tasks, by name."""
Drawing = Callable[[Any], None]
"""A function that draws on matplotlib's axes."""


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_all(
    numbers: Mapping[str, Any], groups: Sequence[Group], folder: Path, training: Regions | None = None
) -> list[str]:
    """Write every figure as PNG and PDF; returns their names without the endings.

    Args:
        numbers: Numbers of `metarl.experiments.comparison.summary.summarise`.
        groups: Groups that they were computed from.
        folder: Folder to write to.
        training: Region of the training tasks, to be shaded; None if it is not known.
    """
    figures = drawings(numbers, groups, training)
    for name, draw in figures.items():
        for ending in FORMATS:
            with atomic_file(folder / f"{name}.{ending}") as file:
                save(file, ending, draw, caption=_caption(numbers), num_labels=len(groups))
    return list(figures)


def drawings(
    numbers: Mapping[str, Any], groups: Sequence[Group], training: Regions | None = None
) -> dict[str, Drawing]:
    """The figures of a comparison by name, each as a function that draws it; see `draw_all`."""
    figures: dict[str, Drawing] = {
        "learning_steps": lambda axis: _learning(axis, numbers, "env_steps"),
        "learning_time": lambda axis: _learning(axis, numbers, "wall_s"),
        "adaptation": lambda axis: _adaptation(axis, numbers),
        "profile": lambda axis: _profile(axis, groups),
    }
    for name in _parameters(groups[0].runs[0].tasks):
        figures[f"return_by_{name.replace('[', '_').replace(']', '')}"] = _by_parameter(groups, name, training)
    return figures


def save(file: IO[bytes], ending: str, draw: Drawing, *, caption: str = "", num_labels: int = 1) -> None:
    """Write one figure, at the width of a paper's column, with its legend below.

    Args:
        file: Binary file to write to.
        ending: Format: png, pdf or svg. SVG has no background, and its texts are texts.
        draw: Function that draws on the axes.
        caption: Line above the axes; empty for none.
        num_labels: Number of entries of the legend.
    """
    # Imported here because it is an extra, and slow to load.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    settings: Any = {
        "font.size": 8,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "svg.hashsalt": "metarl",
    }
    # A name may hold dollars, and letters that the font lacks and a browser's has.
    settings |= {"axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        rows = -(-num_labels // 2)
        figure = Figure(figsize=(WIDTH, HEIGHT + 0.18 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        draw(axis)
        axis.grid(alpha=0.3, linewidth=0.5)
        axis.tick_params(labelsize=7)
        if caption:
            figure.suptitle(caption, fontsize=7)
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=7)
        figure.savefig(file, dpi=DPI, format=ending, transparent=ending == "svg")


def _caption(numbers: Mapping[str, Any]) -> str:
    seeds = sorted({len(group["seeds"]) for group in numbers["groups"].values()})
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    n = "1 seed, no interval" if seeds == [1] else f"n = {count} seeds"
    return f"{numbers['benchmark']}: {n}, {numbers['num_tasks']} test tasks"


def _learning(axis: Any, numbers: Mapping[str, Any], over: str) -> None:
    longest = max(group["learning"][over]["x"][-1] for group in numbers["groups"].values())
    unit, label = _unit(over, longest)
    for number, (name, group) in enumerate(numbers["groups"].items()):
        curve, colour = group["learning"][over], COLOURS[number % len(COLOURS)]
        x = np.array(curve["x"]) / unit
        axis.plot(x, curve["mean"], color=colour, label=name, linewidth=1.2)
        if curve["low"] is not None:
            axis.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.2, linewidth=0)
    axis.set_xlabel(label)
    metric = next(iter(numbers["groups"].values()))["learning"][over]["metric"]
    axis.set_ylabel("return on training tasks" if metric.startswith("train/") else "return after adaptation")


def _unit(over: str, longest: float) -> tuple[float, str]:
    if over == "wall_s":
        return (3600.0, "wall time (h)") if longest > 2 * 3600 else (60.0, "wall time (min)")
    if longest >= 1e6:
        return 1e6, "environment steps (millions)"
    return (1e3, "environment steps (thousands)") if longest >= 1e4 else (1.0, "environment steps")


def _adaptation(axis: Any, numbers: Mapping[str, Any]) -> None:
    sequential = {group["sequential"] for group in numbers["groups"].values()}
    for number, (name, group) in enumerate(numbers["groups"].items()):
        rows, colour = group["adaptation"], COLOURS[number % len(COLOURS)]
        steps = [row["step"] for row in rows]
        axis.plot(
            steps, [row["return_mean"] for row in rows], color=colour, label=name, linewidth=1.2, markersize=4,
            marker=MARKERS[number % len(MARKERS)] if len(steps) <= 20 else None,
        )  # fmt: skip
        if rows[0]["return_ci95"] is not None:
            low, high = ([row["return_ci95"][side] for row in rows] for side in (0, 1))
            axis.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    mixed = "adaptation steps, or episodes before"
    axis.set_xlabel(
        mixed if len(sequential) > 1 else "episodes before" if True in sequential else "adaptation steps"
    )
    axis.set_ylabel("return (sum of rewards)")
    axis.xaxis.get_major_locator().set_params(integer=True)


def _profile(axis: Any, groups: Sequence[Group]) -> None:
    finals = [group.returns[:, -1] for group in groups]
    thresholds = np.linspace(min(f.min() for f in finals), max(f.max() for f in finals), 201)
    for number, (group, values) in enumerate(zip(groups, finals, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        axis.plot(thresholds, profile(values, thresholds), color=colour, label=group.label, linewidth=1.2)
        if len(values) > 1:
            by_seed = np.stack([profile(of_seed[None], thresholds) for of_seed in values])
            axis.fill_between(thresholds, by_seed.min(0), by_seed.max(0), color=colour, alpha=0.2, linewidth=0)
    axis.set_xlabel("return after adaptation, r")
    axis.set_ylabel("share of tasks above r")
    axis.set_ylim(0, 1.02)


def _by_parameter(groups: Sequence[Group], name: str, training: Regions | None) -> Drawing:
    x = np.array([parameter_values(task)[name] for task in groups[0].runs[0].tasks])

    def draw(axis: Any) -> None:
        if training is not None and name in training:
            axis.axvspan(*training[name], color="#d0d0d0", alpha=0.4, linewidth=0, label="training range")
        for number, group in enumerate(groups):
            axis.plot(
                x, group.returns[:, -1].mean(0), MARKERS[number % len(MARKERS)], markersize=2.5, alpha=0.8,
                color=COLOURS[number % len(COLOURS)], label=group.label, markeredgewidth=0,
            )  # fmt: skip
        axis.set_xlabel(name)
        axis.set_ylabel("return after adaptation")

    return draw


def _parameters(tasks: Sequence[Any]) -> list[str]:
    """Names of the numbers in which tasks differ, at most six, if all tasks have them."""
    values = [parameter_values(task) for task in tasks]
    names = [name for name in values[0] if all(name in own for own in values)]
    varied = [name for name in names if len({own[name] for own in values}) > 1]
    return varied if len(varied) <= 6 else []


def parameter_values(task: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a task by name, those of a list with their place: {"goal[0]": 0.1, "goal[1]": 0.3}."""
    values: dict[str, float] = {}
    for name, value in task["params"].items():
        if isinstance(value, list):
            values |= {f"{name}[{place}]": float(x) for place, x in enumerate(value)}
        else:
            values[name] = float(value)
    return values
