"""The loop around any outer update: metrics, checkpoints, evaluation now and then, and a stop in good order."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from metarl.runs.checkpoint import load_checkpoint, save_checkpoint
from metarl.runs.metrics import MetricsWriter
from metarl.runs.seeding import dump_states, load_states


class TrainingDiverged(RuntimeError):
    """A loss was not finite; the last checkpoint is from before it."""


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        iteration: outer updates done.
        env_steps: simulated for training, adaptation included.
        elapsed_s: wall time spent training, over all resumptions.
        tasks: few-shot tasks trained on.
    """

    iteration: int = 0
    env_steps: int = 0
    elapsed_s: float = 0.0
    tasks: int = 0


Report = Callable[[Progress, Mapping[str, float]], None]


class Stateful(Protocol):
    """What is trained."""

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


class Schedule(Protocol):
    """How long, and what happens when; see `metarl.training.TrainingConfig`."""

    @property
    def iterations(self) -> int: ...  # noqa: D102

    @property
    def checkpoint_every(self) -> int: ...  # noqa: D102

    @property
    def evaluate_every(self) -> int: ...  # noqa: D102


class Work(Protocol):
    """What the loop repeats."""

    def iterate(self, progress: Progress) -> dict[str, float]:
        """One outer update; counts what it used and returns metrics."""

    def test(self) -> dict[str, float]:
        """Metrics on test tasks."""

    def save(self, progress: Progress) -> None:
        """Write a checkpoint."""


def repeat(
    work: Work,
    progress: Progress,
    schedule: Schedule,
    *,
    writer: MetricsWriter,
    report: Report,
    stop: Callable[[], bool],
) -> None:
    """Iterate until the scheduled number, or until told to stop.

    Args:
        work: what is repeated.
        progress: where to go on; kept up to date.
        schedule: how long.
        writer: of the metrics; closed at the end.
        report: told after every iteration.
        stop: asked after every iteration; a checkpoint is written before leaving.

    Raises:
        TrainingDiverged: if a loss is not finite; says the iteration and the task.
    """
    saved_at = progress.iteration
    try:
        while progress.iteration < schedule.iterations:
            started = time.perf_counter()
            try:
                progress.iteration += 1
                metrics = work.iterate(progress)
                if schedule.evaluate_every and progress.iteration % schedule.evaluate_every == 0:
                    metrics |= work.test()
            except FloatingPointError as error:
                kept = f"the checkpoint of iteration {saved_at} is intact" if saved_at else "no checkpoint yet"
                raise TrainingDiverged(f"iteration {progress.iteration}: {error}; {kept}") from error
            progress.elapsed_s += time.perf_counter() - started
            position = progress.tasks if writer.axis == "tasks" else progress.env_steps
            writer.write(progress.iteration, position, metrics)
            report(progress, metrics)
            stopping = stop()
            if stopping or progress.iteration in (schedule.iterations, saved_at + schedule.checkpoint_every):
                work.save(progress)
                saved_at = progress.iteration
            if stopping:
                break
    finally:
        writer.close()


def save_state(
    trained: Stateful,
    generators: dict[str, np.random.Generator],
    progress: Progress,
    folder: Path,
    identity: str,
) -> None:
    """Write a checkpoint that says whose it is."""
    save_checkpoint(
        folder,
        {
            "of": identity,
            "agent": trained.state_dict(),
            "generators": dump_states(generators),
            "progress": asdict(progress),
        },
    )


def load_state(
    trained: Stateful, generators: Mapping[str, np.random.Generator], path: Path, identity: str
) -> Progress:
    """Put what is trained and its random streams where a checkpoint left them.

    Raises:
        CheckpointError: if the file is not a checkpoint.
        ValueError: if it is one of another agent, network or benchmark.
    """
    state = load_checkpoint(path)
    found = state.get("of")
    if found != identity:
        raise ValueError(f"{path} is a checkpoint of {found}, expected one of {identity}; use the run's own")
    try:
        trained.load_state_dict(state["agent"])
        load_states(dict(generators), state["generators"])
        return Progress(**state["progress"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise ValueError(f"{path} is a checkpoint of another agent or network than the run's: {reason}") from error
