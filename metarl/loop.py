"""The loop around any outer update: metrics, checkpoints, evaluation now and then, and a stop in good order."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from metarl.runs import parallel
from metarl.runs.checkpoint import CheckpointError, latest_checkpoint, save_best, save_checkpoint
from metarl.runs.cores import is_first
from metarl.runs.files import WriteError
from metarl.runs.loggers import Logger
from metarl.runs.metrics import Axis, last_iteration
from metarl.runs.pending import Pending


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

    def test(self) -> Pending[Tested]:
        """Metrics on test tasks, and the score that they amount to, of what is trained as it is now."""

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

    Of processes that train together the first logs, reports and writes, and any may ask for a stop. The next
    iteration may begin while an evaluation is under way; the evaluated one is then logged, reported and saved, as
    it was, after it.

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
    records = _Records(work, progress, schedule, folder, loggers, axis, report)
    stopping = False
    while progress.iteration < schedule.iterations and not stopping:
        started, tested = time.perf_counter(), None
        progress.iteration += 1
        try:
            metrics = work.iterate(progress)
            records.settle()
            if schedule.evaluate_every and progress.iteration % schedule.evaluate_every == 0:
                tested = work.test()
        except FloatingPointError as error:
            records.settle()
            raise records.diverged(progress.iteration, error) from error
        except Exception:
            records.settle()  # the iteration before was a good one
            raise
        progress.elapsed_s += time.perf_counter() - started
        if tested is None or tested.is_done:
            records.log(progress, metrics, tested, lambda: work.state(progress))
            stopping = parallel.any_of(stop())
            if stopping or records.is_due():
                records.save_data()
                records.save(progress.iteration, lambda: work.state(progress))
        else:
            stopping = parallel.any_of(stop())
            records.hold(metrics, tested, is_saved=stopping or records.is_due())
    records.settle()


class _Held(NamedTuple):
    """An iteration whose evaluation is under way, with what is to be recorded of it.

    Attributes:
        progress: Position after the iteration.
        metrics: Metrics of the iteration.
        tested: Evaluation that is under way.
        state: Content of its checkpoint.
        is_saved: Whether it has a checkpoint.
    """

    progress: Progress
    metrics: dict[str, float]
    tested: Pending[Tested]
    state: dict[str, Any]
    is_saved: bool


@dataclass
class _Records:
    """Logs iterations and saves their checkpoints in order; one whose evaluation is under way is held until then.

    Attributes:
        work: Work that is repeated.
        progress: Position of the run, which the loop moves.
        schedule: Length of the run.
        folder: Run folder; checkpoints go there.
        loggers: Receivers of the metrics.
        axis: Quantity that the x axis of the metrics counts.
        report: Function that is called after every iteration.
        held: The iteration that is held, if any.
    """

    work: Work
    progress: Progress
    schedule: Schedule
    folder: Path
    loggers: Sequence[Logger]
    axis: Axis
    report: Report
    held: _Held | None = None

    def __post_init__(self) -> None:
        self._saved_at, self._writes = self.progress.iteration, is_first()

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        times = (self.schedule.iterations, self._saved_at + self.schedule.checkpoint_every)
        return self.progress.iteration in times

    def log(
        self,
        progress: Progress,
        metrics: dict[str, float],
        tested: Pending[Tested] | None,
        state: Callable[[], dict[str, Any]],
    ) -> None:
        """Log and report an iteration, with its evaluation if it has one, and save it if it is the best."""
        is_best = False
        if tested is not None:
            try:
                results, score = tested.result()
            except FloatingPointError as error:
                raise self.diverged(progress.iteration, error) from error
            metrics = metrics | results
            is_best = math.isfinite(score) and (progress.best is None or score > progress.best)
            self.progress.best = progress.best = score if is_best else progress.best
        if not self._writes:
            return
        with self._writing():
            for logger in self.loggers:
                logger.log(progress.iteration, _position(progress, self.axis), metrics)
            self.report(progress, metrics)
            if is_best:
                save_best(self.folder, state())

    def save_data(self) -> None:
        """Write what is kept in files beside the next checkpoint."""
        if self._writes:
            with self._writing():
                self.work.save_data()

    def save(self, iteration: int, state: Callable[[], dict[str, Any]]) -> None:
        """Write the checkpoint of an iteration."""
        if self._writes:
            with self._writing():
                save_checkpoint(self.folder, state())
        self._saved_at = iteration

    def hold(self, metrics: dict[str, float], tested: Pending[Tested], *, is_saved: bool) -> None:
        """Hold the present iteration until its evaluation is done; training may go on."""
        if is_saved:
            self.save_data()
        state = copy.deepcopy(self.work.state(self.progress))
        self.held = _Held(replace(self.progress), metrics, tested, state, is_saved)

    def settle(self) -> None:
        """Wait for the evaluation that is under way, if any, and record its iteration."""
        held, self.held = self.held, None
        if held is None:
            return

        def state() -> dict[str, Any]:
            return held.state | {"progress": asdict(held.progress)}

        self.log(held.progress, held.metrics, held.tested, state)
        if held.is_saved:
            self.save(held.progress.iteration, state)

    def diverged(self, iteration: int, error: FloatingPointError) -> TrainingDiverged:
        """The error of a run whose loss or evaluation is not finite."""
        return TrainingDiverged(f"iteration {iteration}: {error}; {_intact(self._saved_at)}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Say in the error of a file which checkpoint is intact."""
        try:
            yield
        except WriteError as error:
            raise WriteError(f"{error}; {_intact(self._saved_at)}") from error


def _intact(saved_at: int) -> str:
    return f"the checkpoint of iteration {saved_at} is intact" if saved_at else "there is no checkpoint yet"


def _position(progress: Progress, axis: Axis) -> int:
    return progress.tasks if axis == "tasks" else progress.env_steps
