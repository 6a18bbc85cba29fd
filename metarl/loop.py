"""The loop around any outer update: metrics, checkpoints, evaluation now and then, and a stop in good order."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from metarl.runs import parallel
from metarl.runs.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint, save_best, save_checkpoint
from metarl.runs.cores import is_first
from metarl.runs.files import WriteError
from metarl.runs.loggers import Logger
from metarl.runs.metrics import Axis, last_iteration
from metarl.runs.seeding import dump_states, load_states

_LOG = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """A loss was not finite; the last checkpoint is from before it."""


@dataclass
class Progress:
    """Position of a run on its way.

    Attributes:
        iteration: Number of outer updates that are done.
        env_steps: Environment steps simulated for training, adaptation included.
        elapsed_s: Wall time spent training over all resumptions, in seconds.
        tasks: Number of few-shot tasks trained on.
        best: Highest score on test tasks until now, which checkpoint.best.pt reached; None before the first.
    """

    iteration: int = 0
    env_steps: int = 0
    elapsed_s: float = 0.0
    tasks: int = 0
    best: float | None = None


Report = Callable[[Progress, Mapping[str, float]], None]


class Stateful(Protocol):
    """An agent or learner whose state a checkpoint holds."""

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


class Schedule(Protocol):
    """Length of a run and periods of what it does now and then; see `metarl.training.TrainingConfig`."""

    @property
    def iterations(self) -> int:
        """Number of outer updates of the whole run."""

    @property
    def checkpoint_every(self) -> int:
        """Number of iterations between two checkpoints."""

    @property
    def evaluate_every(self) -> int:
        """Number of iterations between two evaluations; 0 for none."""


class Tested(NamedTuple):
    """Result of an evaluation while training.

    Attributes:
        metrics: Numbers to log, by name.
        score: Number that the best checkpoint is chosen by; higher is better.
    """

    metrics: dict[str, float]
    score: float


class Work(Protocol):
    """The work that the loop repeats."""

    def iterate(self, progress: Progress) -> dict[str, float]:
        """One outer update; counts what it used and returns metrics."""

    def test(self) -> Tested:
        """Metrics on test tasks, and the score that they amount to."""

    def state(self, progress: Progress) -> dict[str, Any]:
        """The content of a checkpoint."""

    def save_data(self) -> None:
        """Write what is kept in files beside the checkpoint; called before each of them."""


def begin(
    folder: Path, schedule: Schedule, loggers: Sequence[Logger], restore: Callable[[Path], Progress], axis: Axis
) -> Progress:
    """The place where a run goes on: at the folder's checkpoint, or at the start if it has none.

    Args:
        folder: Run folder.
        schedule: Length of the run.
        loggers: Objects that drop what they logged after the checkpoint.
        restore: Function that puts everything where a checkpoint left it.
        axis: Quantity that the x axis of the metrics counts.

    Raises:
        ValueError: if the checkpoint cannot be used, or is gone while metrics.csv says that there was one.
    """
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        progress, done = Progress(), last_iteration(folder, axis=axis)
        if done > schedule.checkpoint_every:
            raise CheckpointError(
                f"{folder} has no checkpoint, but its metrics.csv is of {done} iterations; "
                "put checkpoint.pt back, or move metrics.csv away to start from scratch"
            )
    else:
        progress = restore(checkpoint)
    for logger in loggers:
        logger.begin(progress.iteration, _position(progress, axis))
    return progress


def repeat(
    work: Work,
    progress: Progress,
    schedule: Schedule,
    *,
    folder: Path,
    loggers: Sequence[Logger],
    axis: Axis,
    report: Report,
    stop: Callable[[], bool],
) -> None:
    """Iterate until the scheduled number, or until `stop` says so.

    Of processes that train together the first logs, reports and writes, and any may ask for a stop.

    Args:
        work: Work that is repeated.
        progress: Place to go on from; kept up to date.
        schedule: Length of the run.
        folder: Run folder; checkpoints go there.
        loggers: Receivers of the metrics of every iteration.
        axis: Quantity that the x axis of the metrics counts.
        report: Function that is called after every iteration.
        stop: Function that is asked after every iteration; a checkpoint is written before leaving.

    Raises:
        TrainingDiverged: if a loss is not finite; says the iteration and the task.
        WriteError: if a file cannot be written; says which, and which checkpoint is intact.
    """
    saved_at, writes = progress.iteration, is_first()
    while progress.iteration < schedule.iterations:
        started, score = time.perf_counter(), None
        try:
            progress.iteration += 1
            metrics = work.iterate(progress)
            if schedule.evaluate_every and progress.iteration % schedule.evaluate_every == 0:
                tested, score = work.test()
                metrics |= tested
        except FloatingPointError as error:
            raise TrainingDiverged(f"iteration {progress.iteration}: {error}; {_intact(saved_at)}") from error
        progress.elapsed_s += time.perf_counter() - started
        is_best = score is not None and math.isfinite(score) and (progress.best is None or score > progress.best)
        progress.best = score if is_best else progress.best
        try:
            if writes:
                for logger in loggers:
                    logger.log(progress.iteration, _position(progress, axis), metrics)
                report(progress, metrics)
            if is_best and writes:
                save_best(folder, work.state(progress))
            stopping = parallel.any_of(stop())
            if stopping or progress.iteration in (schedule.iterations, saved_at + schedule.checkpoint_every):
                if writes:
                    work.save_data()
                    save_checkpoint(folder, work.state(progress))
                saved_at = progress.iteration
        except WriteError as error:
            raise WriteError(f"{error}; {_intact(saved_at)}") from error
        if stopping:
            break


def _intact(saved_at: int) -> str:
    return f"the checkpoint of iteration {saved_at} is intact" if saved_at else "there is no checkpoint yet"


def _position(progress: Progress, axis: Axis) -> int:
    return progress.tasks if axis == "tasks" else progress.env_steps


def state_of(
    trained: Stateful, generators: dict[str, np.random.Generator], progress: Progress, identity: str
) -> dict[str, Any]:
    """The content of a checkpoint that says whose it is, and on how many threads torch computed it."""
    return {
        "of": identity,
        "agent": trained.state_dict(),
        "generators": dump_states(generators),
        "progress": asdict(progress),
        "torch_threads": torch.get_num_threads(),
    }


def load_state(
    trained: Stateful, generators: Mapping[str, np.random.Generator], path: Path, identity: str
) -> Progress:
    """Put what is trained and its random streams where a checkpoint left them.

    Raises:
        CheckpointError: if the file is not a checkpoint.
        ValueError: if it is one of another agent, network, benchmark or seed, or its content is malformed.
    """
    state = load_checkpoint(path)
    owner = state.get("of")
    if owner != identity:
        raise ValueError(f"{path} is a checkpoint of {owner}, expected one of {identity}; use the run's own")
    try:
        progress = _progress(state.get("progress"))
        load_states(dict(generators), state["generators"])
        trained.load_state_dict(state["agent"])
    except Exception as error:  # what a hostile file makes a state's readers raise is anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        what = "is damaged, or a checkpoint of another agent or network than the run's"
        raise ValueError(f"{path} {what}: {reason}") from error
    _use_threads(state.get("torch_threads"), path)
    return progress


def progress_of(state: Mapping[str, Any], path: Path) -> Progress:
    """The progress in a checkpoint's content.

    Raises:
        CheckpointError: if it is missing or malformed.
    """
    try:
        return _progress(state.get("progress"))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _progress(state: object) -> Progress:
    """The progress that a checkpoint holds, checked."""
    if not isinstance(state, dict) or not {"iteration", "env_steps"} <= set(state):
        raise ValueError(f"expected a progress with iteration and env_steps, got {state!r}")
    progress = Progress(**state)
    for name in ("iteration", "env_steps", "tasks"):
        count = getattr(progress, name)
        if type(count) is not int or not 0 <= count < 2**63:
            raise ValueError(f"expected {name} to be a whole number of zero or more, got {count!r}")
    for name in ("elapsed_s", "best"):
        number = getattr(progress, name)
        if not (type(number) in (int, float) and math.isfinite(number)) and (name, number) != ("best", None):
            raise ValueError(f"expected {name} to be a finite number, got {number!r}")
    if progress.elapsed_s < 0:
        raise ValueError(f"expected elapsed_s to be zero or more, got {progress.elapsed_s}")
    return progress


def _use_threads(num_threads: object, path: Path) -> None:
    """Have torch compute on as many threads as before: some of its sums depend on their number in the last bit."""
    present = torch.get_num_threads()
    if type(num_threads) is int and 1 <= num_threads <= 1024 and num_threads != present:
        _LOG.warning(
            "torch computes on %d threads, as %s was made with, instead of %d", num_threads, path, present
        )
        torch.set_num_threads(num_threads)
