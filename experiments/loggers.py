"""The loggers that an experiment names, made for its run folder, and the final evaluation as they take it."""

import io
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metarl.experiments.comparison.figures import COLOURS, can_draw, save
from metarl.runs.loggers import Logger, LoggerName, TensorBoardLogger, WandbLogger
from metarl.runs.metrics import Axis, CsvLogger


def make_loggers(
    names: Sequence[LoggerName], folder: Path, *, name: str, axis: Axis, config: Mapping[str, Any]
) -> list[Logger]:
    """The loggers of these names; metrics.csv comes first.

    Args:
        names: Loggers of the experiment.
        folder: Run folder.
        name: Name of the run, for loggers that collect many.
        axis: Quantity that the x axis of the metrics counts.
        config: Encoded experiment, logged as hyperparameters.

    Raises:
        ValueError: if the package that a logger needs is not installed.
    """
    loggers: list[Logger] = [CsvLogger(folder, axis=axis)]
    if "tensorboard" in names:
        loggers.append(TensorBoardLogger(folder))
    if "wandb" in names:
        loggers.append(WandbLogger(folder, name=name))
    for logger in loggers:
        logger.hyperparameters(config)
    return loggers


def log_evaluation(loggers: Sequence[Logger], position: int, result: Mapping[str, Any]) -> None:
    """Log the means of an evaluation's adaptation curve, as `evaluation/return_after_2` and the like.

    Where matplotlib is installed the curves are figures too, `evaluation/return` and the like.
    """
    rows = result["adaptation"]
    metrics = {
        f"evaluation/{name.removesuffix('_mean')}_after_{row['step']}": float(value)
        for row in rows
        for name, value in row.items()
        if name.endswith("_mean")
    }
    for logger in loggers:
        logger.evaluation(position, metrics)
    measured = [name.removesuffix("_mean") for name in rows[0] if name.endswith("_mean")]
    if not can_draw():
        return
    for name in measured:
        content = io.BytesIO()
        save(content, "png", partial(_draw_curve, name=name, result=result))
        png = content.getvalue()
        width, height = struct.unpack(">II", png[16:24])  # of a PNG's first chunk
        for logger in loggers:
            logger.figure(position, f"evaluation/{name}", png, (height, width))


def _draw_curve(axis: Any, name: str, result: Mapping[str, Any]) -> None:
    """An adaptation curve with its 95% interval over tasks."""
    rows = result["adaptation"]
    steps = [row["step"] for row in rows]
    means = np.array([row[f"{name}_mean"] for row in rows])
    axis.plot(steps, means, color=COLOURS[0], linewidth=1.2, marker="o", markersize=4, label="meta-trained")
    intervals = [row.get(f"{name}_ci95") for row in rows]
    low, high = (
        [mean if interval is None else interval[side] for mean, interval in zip(means, intervals, strict=True)]
        for side in (0, 1)
    )
    axis.fill_between(steps, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
    axis.set_xlabel("episodes before" if "trials" in result else "adaptation steps")
    axis.set_ylabel(f"{name}, 95% over {result['num_tasks']} test tasks")
    axis.xaxis.get_major_locator().set_params(integer=True)
