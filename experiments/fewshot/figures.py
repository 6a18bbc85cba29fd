"""Figures of a diagnosis: a task's features in a plane, accuracy by shots, and probabilities beside accuracies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl.experiments.comparison.figures import COLOURS, FORMATS, MARKERS, Drawing, save
from metarl.fewshot.diagnosis import EmbeddedTask
from metarl.intervals import Sampling
from metarl.runs.files import atomic_file


def draw_all(figures: Mapping[str, Drawing], folder: Path, caption: str) -> None:
    """Write figures as PNG and PDF into a new folder.

    Args:
        figures: Functions that draw, by the names of the files.
        folder: Folder to make.
        caption: Line above each figure.

    Raises:
        WriteError: If a file cannot be written.
    """
    folder.mkdir(parents=True)
    for name, draw in figures.items():
        for ending in FORMATS:
            with atomic_file(folder / f"{name}.{ending}") as file:
                save(file, ending, draw, caption=caption, num_labels=11 if name == "embedding" else 1)


def embedding(task: EmbeddedTask) -> Drawing:
    """A task's features: support filled, queries hollow, wrong ones crossed out, means of classes as stars."""

    def draw(axis: Any) -> None:
        for place, name in enumerate(task.names):
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place // len(COLOURS) % len(MARKERS)]
            shown, judged = task.support_classes == place, task.query_classes == place
            label = name if place < 10 else None
            axis.scatter(
                *task.query[judged].T, s=12, marker=marker, edgecolors=colour, facecolors="none", linewidths=0.7
            )
            axis.scatter(*task.support[shown].T, s=14, marker=marker, color=colour, label=label, linewidths=0)
            axis.scatter(
                *task.prototypes[place], s=70, marker="*", color=colour, edgecolors="black", linewidths=0.5
            )
        axis.scatter(
            *task.query[~task.right].T, s=12, marker="x", color="black", linewidths=0.6, label="wrong query"
        )
        axis.set_xlabel("first component")
        axis.set_ylabel("second component")

    return draw


def by_shots(accuracies: Mapping[int, np.ndarray]) -> Drawing:
    """Mean accuracy by the number of support examples per class, with 95% intervals over tasks."""

    def draw(axis: Any) -> None:
        shots = sorted(accuracies)
        means = np.array([100 * accuracies[number].mean() for number in shots])
        bounds = [Sampling.independent(len(accuracies[n])).mean_interval(100 * accuracies[n]) for n in shots]
        if all(bound is not None for bound in bounds):
            low, high = np.array(bounds).T
            axis.fill_between(shots, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
        axis.plot(shots, means, color=COLOURS[0], marker=MARKERS[0], markersize=3, linewidth=1.2)
        axis.set_xscale("log")
        axis.set_xticks(shots, [str(number) for number in shots], minor=False)
        axis.minorticks_off()
        axis.set_xlabel("support examples per class")
        axis.set_ylabel("accuracy (%)")

    return draw


def calibration(bins: Sequence[tuple[float, float, int]]) -> Drawing:
    """Accuracy against mean probability of bins, the larger the more queries; on the diagonal both are equal."""

    def draw(axis: Any) -> None:
        probabilities, accuracies, counts = (np.array(column) for column in zip(*bins, strict=True))
        axis.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=0.7)
        axis.scatter(probabilities, accuracies, s=4 + 60 * counts / counts.max(), color=COLOURS[0], alpha=0.7)
        axis.set_xlabel("probability of the predicted class")
        axis.set_ylabel("accuracy")

    return draw
