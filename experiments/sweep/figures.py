"""The figure of a sweep: how much each setting matters, and the scores trial by trial."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from metarl.experiments.comparison.figures import COLOURS, FORMATS, HEIGHT, WIDTH
from metarl.runs.files import atomic_file


def draw(importances: Mapping[str, float], scores: Sequence[tuple[int, float]], folder: Path) -> list[Path]:
    """Write the figure as PNG and PDF; returns the paths.

    Args:
        importances: Share of each setting, by name.
        scores: Number and score of each trial that was finished.
        folder: Folder to write to.
    """
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    with plt.rc_context({"font.size": 8}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(2 * WIDTH, HEIGHT), layout="constrained")
        names = list(importances)[::-1]
        left.barh(names, [importances[name] for name in names], color=COLOURS[0])
        left.set_xlabel("importance, share of 1")
        left.set_xlim(0, 1)
        ordered = sorted(scores)
        numbers, values = [number for number, _ in ordered], [value for _, value in ordered]
        right.plot(numbers, values, "o", color=COLOURS[5], markersize=3, label="trial")
        right.step(numbers, np.maximum.accumulate(values), where="post", color=COLOURS[1], label="best so far")
        right.set_xlabel("trial")
        right.set_ylabel("score")
        right.legend(frameon=False)
        for axis in (left, right):
            axis.spines[["top", "right"]].set_visible(False)
        paths = [folder / f"importances.{ending}" for ending in FORMATS]
        for path in paths:
            with atomic_file(path) as file:
                figure.savefig(file, format=path.suffix[1:], dpi=200)
        plt.close(figure)
    return paths
