"""Figures of a diagnosis: confusions, features in a plane, accuracy by shots, under attack and by probability."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl.experiments.comparison.figures import COLOURS, FORMATS, MARKERS, Drawing, save
from metarl.fewshot.data.groups import group_of
from metarl.fewshot.diagnosis import Diagnosis, EmbeddedTask, Projection
from metarl.intervals import Sampling
from metarl.runs.files import atomic_file

_MOST_NAMES = 25  # of classes that an axis has room for
_NUM_LABELS = {"embedding": 11, "robustness": 2}


def draw_all(figures: Mapping[str, Drawing], folder: Path, title: str, num_tasks: int) -> None:
    """Write figures as PNG and PDF into a new folder.

    Args:
        figures: Functions that draw, by the names of the files.
        folder: Folder to make.
        title: Beginning of the line above each figure.
        num_tasks: Number of tasks that figures are of, but for the embedding, which is of one.

    Raises:
        WriteError: If a file cannot be written.
    """
    folder.mkdir(parents=True)
    for name, draw in figures.items():
        caption = f"{title}: {'one task' if name == 'embedding' else f'{num_tasks} tasks'}"
        for ending in FORMATS:
            with atomic_file(folder / f"{name}.{ending}") as file:
                save(file, ending, draw, caption=caption, num_labels=_NUM_LABELS.get(name, 1))


def confusion(diagnosis: Diagnosis) -> Drawing:
    """The confusions of every class that was drawn: what its queries were taken for, as shares of them."""

    def draw(axis: Any) -> None:
        from matplotlib.colors import PowerNorm  # noqa: PLC0415  # an extra, and slow to load

        totals = diagnosis.num_queries
        drawn = totals.nonzero().squeeze(1)
        counts = diagnosis.confusion[drawn][:, drawn].double()
        shares = (counts / totals[drawn].unsqueeze(1)).numpy()
        # Roots of shares: confusions are rare beside what is right, and would look like none.
        image = axis.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), aspect="auto", zorder=3)
        axis.figure.colorbar(image, ax=axis, label="share of the class's queries")
        names = [diagnosis.names[place] for place in drawn.tolist()]
        if len(names) <= _MOST_NAMES:
            axis.set_xticks(range(len(names)), names, rotation=90)
            axis.set_yticks(range(len(names)), names)
        else:
            _mark_groups(axis, [group_of(name) for name in names])
        axis.set_xlabel("taken for")
        axis.set_ylabel("class")

    return draw


def _mark_groups(axis: Any, groups: Sequence[str]) -> None:
    """Name the groups that classes lie in, and part them by lines; nothing where they are too many."""
    starts = [place for place, group in enumerate(groups) if place == 0 or group != groups[place - 1]]
    ends = [*starts[1:], len(groups)]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    names = [groups[start] for start in starts]
    if len(names) > _MOST_NAMES:
        middles, names = [], []
    axis.set_xticks(middles, names)
    axis.set_yticks(middles, names, rotation=90, va="center")
    axis.tick_params(length=0)
    for start in starts[1:] if names else ():
        axis.axhline(start - 0.5, color="black", linewidth=0.5, zorder=4)
        axis.axvline(start - 0.5, color="black", linewidth=0.5, zorder=4)


def under_attack(scores: Mapping[str, Mapping[float, np.ndarray]]) -> Drawing:
    """Mean accuracy by the size of attacks, with 95% intervals, from accuracies [task] by attack and size."""

    def draw(axis: Any) -> None:
        for place, (name, by_size) in enumerate(scores.items()):
            sizes = sorted(by_size)
            _with_interval(axis, sizes, [by_size[size] for size in sizes], place, name)
        axis.set_xlabel("largest change of an entry")
        axis.set_ylabel("accuracy (%)")

    return draw


def embedding(task: EmbeddedTask, projection: Projection) -> Drawing:
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
        axes = "component" if projection == "pca" else "t-SNE axis"
        axis.set_xlabel(f"first {axes}")
        axis.set_ylabel(f"second {axes}")

    return draw


def by_shots(accuracies: Mapping[int, np.ndarray]) -> Drawing:
    """Mean accuracy by the number of support examples per class, with 95% intervals over tasks."""

    def draw(axis: Any) -> None:
        shots = sorted(accuracies)
        _with_interval(axis, shots, [accuracies[number] for number in shots], 0, None)
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


def _with_interval(
    axis: Any, places: Sequence[float], accuracies: Sequence[np.ndarray], number: int, label: str | None
) -> None:
    """A line of mean accuracies in percent, and their 95% intervals over tasks as a band."""
    colour = COLOURS[number]
    bounds = [Sampling.independent(len(each)).mean_interval(100 * each, least=0, most=100) for each in accuracies]
    if all(bound is not None for bound in bounds):
        low, high = np.array(bounds).T
        axis.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
    means = [100 * each.mean() for each in accuracies]
    axis.plot(places, means, color=colour, marker=MARKERS[number], markersize=3, linewidth=1.2, label=label)
