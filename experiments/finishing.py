"""The end of a training: what is said of it, and its evaluation; an agent's or a few-shot learner's."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarl.experiments.console import duration, say
from metarl.experiments.runs import EVALUATION, write_json


def stopped(folder: Path, iteration: int) -> int:
    """Say how an interrupted run goes on; the exit status."""
    say(f"stopped at iteration {iteration}; continue with: metarl resume {folder}")
    return 130


def finished(
    folder: Path, experience: str, elapsed_s: float, evaluate: Callable[[], dict[str, Any]], otherwise: str
) -> int:
    """Evaluate what was trained, and keep the result in its folder; the exit status.

    Args:
        folder: of the run.
        experience: what it was trained on, in words.
        elapsed_s: seconds of training.
        evaluate: measures the trained learner, and shows what it found.
        otherwise: how else it can be evaluated, in words.
    """
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    say(f"trained on {experience} in {duration(elapsed_s)}; peak memory {memory_gb:.2f} GB")
    write_json(folder / EVALUATION, evaluate() | {"train_peak_memory_gb": round(memory_gb, 3)})
    say(f"written to {folder / EVALUATION}; again, or {otherwise}: metarl evaluate {folder}")
    return 0
