"""The end of a training: what is said of it, and its evaluation; an agent's or a few-shot learner's."""

import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metarl.experiments.console import duration, say
from metarl.experiments.loggers import log_evaluation
from metarl.experiments.runs import EVALUATION
from metarl.loop import Progress
from metarl.runs.files import write_json
from metarl.runs.loggers import Logger


def stopped(folder: Path, iteration: int) -> int:
    """Say how an interrupted run goes on; the exit status."""
    say(f"stopped at iteration {iteration}; continue with: metarl resume {folder}")
    return 130


def finished(
    folder: Path,
    progress: Progress,
    *,
    experience: str,
    evaluate: Callable[[], dict[str, Any]],
    otherwise: str,
    loggers: Sequence[Logger],
) -> int:
    """Evaluate what was trained, and keep the result in its folder; the exit status.

    Args:
        folder: Run folder.
        progress: Where the run is.
        experience: Number and kind of what it was trained on, in words.
        evaluate: Function that measures the trained learner, and shows the result.
        otherwise: Other way to evaluate it, in words.
        loggers: Receivers of the result.
    """
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    say(f"trained on {experience} in {duration(progress.elapsed_s)}; peak memory {memory_gb:.2f} GB")
    result = evaluate() | {"train_peak_memory_gb": round(memory_gb, 3)}
    write_json(folder / EVALUATION, result)
    log_evaluation(loggers, progress.tasks or progress.env_steps, result)
    say(f"written to {folder / EVALUATION}; again, or {otherwise}: metarl evaluate {folder}")
    return 0
