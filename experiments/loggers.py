"""The loggers that an experiment names, made for its run folder, and the final evaluation as they take it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    """Log the means of an evaluation's adaptation curve, as `evaluation/return_after_2` and the like."""
    metrics = {
        f"evaluation/{name.removesuffix('_mean')}_after_{row['step']}": float(value)
        for row in result["adaptation"]
        for name, value in row.items()
        if name.endswith("_mean")
    }
    for logger in loggers:
        logger.evaluation(position, metrics)
