"""The figure of a study: return against adaptation episodes, a panel per set of held-out tasks."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.experiments.comparison.figures import COLOURS, MARKERS
from metarl.runs.files import atomic_file

HOW_TO_INSTALL = (
    'no figure: matplotlib is not installed; pip install "metarl-toolkit[report]" and run the study again'
)


def can_draw() -> bool:
    """Whether matplotlib, the extra `report`, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Write the figure: means with 95% intervals over tasks; the oracle is a line.

    Args:
        results: Results as `metarl.experiments.study.report.summarise` returns them.
        path: Path of the image; its ending is the format.
    """
    # Imported here because it is an extra, and slow to load.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    sets = results["sets"]
    figure = Figure(figsize=(4.6 * len(sets) + 1.8, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for axis, (key, held_out) in zip(axes, sets.items(), strict=True):
        draw_set(axis, held_out, results["oracle"])
        axis.set_title(f"{key}, {held_out['num_tasks']} tasks")
        axis.grid(alpha=0.3)
        axis.label_outer()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.suptitle(f"{results['study']}, seed {results['seed']}")
    with atomic_file(path) as file:
        figure.savefig(file, dpi=150, format=path.suffix[1:])


def draw_set(axis: Any, held_out: Mapping[str, Any], oracle: str) -> None:
    """Draw the curves on one set of held-out tasks.

    Args:
        axis: Axes of matplotlib.
        held_out: Results on the set.
        oracle: Name of the learner that is a line.
    """
    for number, (learner, measured) in enumerate(held_out["learners"].items()):
        rows, colour = measured["adaptation"], COLOURS[number % len(COLOURS)]
        if learner == oracle:
            mean = sum(row["return_mean"] for row in rows) / len(rows)
            axis.axhline(mean, color="black", linestyle="--", label="oracle: observes the task")
            continue
        episodes = [row["episodes"] for row in rows]
        axis.plot(
            episodes, [row["return_mean"] for row in rows], color=colour, label=learner, markersize=3,
            marker=MARKERS[number % len(MARKERS)],
        )  # fmt: skip
        if all(row["return_ci95"] is not None for row in rows):
            low, high = ([row["return_ci95"][side] for row in rows] for side in (0, 1))
            axis.fill_between(episodes, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_xlabel("adaptation episodes")
    axis.set_ylabel("return of the next episode")
