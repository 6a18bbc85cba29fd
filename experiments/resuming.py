"""Continuing a run that was stopped, an agent's or a few-shot learner's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro

from metarl.experiments.arguments import UsageError
from metarl.experiments.configuration import Device
from metarl.experiments.runs import AnyRun, checkpointed_iteration, go_back
from metarl.runs.checkpoint import FILE as CHECKPOINT
from metarl.runs.checkpoint import PREVIOUS

SomeRun = TypeVar("SomeRun", bound=AnyRun)


@dataclass(frozen=True)
class ResumeArguments:
    """Continue a run that was stopped.

    Attributes:
        folder: the run's.
        iterations: train to this many in all instead of the configured number.
        checkpoint: continue from checkpoint.previous.pt instead; the last one is kept under another name.
        device: train here instead of where the configuration says.
    """

    folder: tyro.conf.Positional[Path]
    iterations: int | None = None
    checkpoint: str = CHECKPOINT
    device: Device | None = None


def to_resume(run: SomeRun, arguments: ResumeArguments, extend: Callable[[SomeRun, int], SomeRun]) -> SomeRun:
    """The run at the checkpoint and with the iterations that were asked for, in its folder too.

    Args:
        run: opened.
        arguments: of the command.
        extend: gives a run another number of iterations.

    Raises:
        UsageError: if fewer iterations are asked for than are done.
    """
    if arguments.checkpoint not in (CHECKPOINT, PREVIOUS):
        raise UsageError(f"--checkpoint must be {CHECKPOINT} or {PREVIOUS}, got {arguments.checkpoint!r}")
    if arguments.checkpoint == PREVIOUS:
        go_back(run)
    if arguments.iterations is None:
        return run
    done = checkpointed_iteration(run)
    if arguments.iterations < done:
        raise UsageError(f"--iterations must be at least {done}, which are done, got {arguments.iterations}")
    return extend(run, arguments.iterations)
