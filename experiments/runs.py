"""A run is a folder: configuration, versions, metrics, checkpoints, evaluation; for RL and few-shot alike."""

import contextlib
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from torch import Tensor

from metarl.experiments.configuration import Device
from metarl.experiments.options import EvaluationOptions
from metarl.experiments.versions import versions
from metarl.loop import Progress, Report
from metarl.runs import parallel
from metarl.runs.checkpoint import (
    BEST,
    CHECKPOINT,
    INITIAL,
    PREVIOUS,
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    save_initial,
)
from metarl.runs.cores import is_first
from metarl.runs.files import atomic_file, unfinished_folder, write_json
from metarl.runs.loggers import Logger
from metarl.runs.metrics import Axis
from metarl.runs.reading import read_json, shorten
from metarl.runs.warm_start import with_weights
from metarl.states import progress_of

Kind = Literal["rl", "few-shot"]

AnyRun = TypeVar("AnyRun", bound="Run")

CONFIG = "config.json"
EVALUATION = "evaluation.json"

_SAYS = {
    **{part: {"source"} for part in ("experiment", "benchmark", "reward", "backbone")},
    "weights": {"run", "iteration"},
}
"""What config.json says of each origin of an experiment."""


@dataclass(frozen=True)
class Run(ABC):
    """A run folder and what is in it; `metarl.open_run` opens one, `metarl.train` makes one.

    Attributes:
        folder: Folder of the run.
        name: Name of the experiment.
        experiment: Configuration, an `Experiment` or a `FewshotExperiment`.
        sources: Origins of the experiment, or of parts of it, that are a user's own, and of the weights that it
            starts from, as config.json says them.
        initial: Weights that training starts from instead of random ones, before there is a folder; then they lie
            there.
    """

    kind: ClassVar[Kind]
    axis: ClassVar[Axis]
    """Quantity that the x axis of the metrics counts."""
    options: ClassVar[tuple[str, ...]]
    """Names of the evaluation options that runs of this kind have."""

    folder: Path
    name: str
    experiment: Any
    sources: Mapping[str, Any] = field(default_factory=dict)
    initial: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        """The run in a few short lines: name, seed, size and state, and its folder."""
        state = "evaluated" if (self.folder / EVALUATION).is_file() else "not evaluated yet"
        size = f"{self.experiment.training.iterations:,} iterations"
        head = f"{self.name}, seed {self.experiment.seed}: {size}, {state}"
        return f"{textwrap.fill(head, 80, subsequent_indent='  ')}\n  {self.folder}"

    @classmethod
    @abstractmethod
    def prepare(cls, folder: Path, name: str, experiment: Any, sources: Mapping[str, Any]) -> Self:
        """The run of an experiment before there is a folder.

        Raises:
            ValueError: if the experiment cannot be run.
        """

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, name: str, experiment: Any, sources: Mapping[str, Any]) -> Self:
        """The run of a folder that `write` wrote into."""

    @abstractmethod
    def encode(self) -> Any:
        """The experiment as JSON types."""

    def write(self, folder: Path) -> None:
        """Write what a new folder holds beside its configuration."""
        if self.initial:
            save_initial(folder, self.initial)

    @abstractmethod
    def untrained(self) -> Any:
        """The agent or learner before any training, with random weights."""

    @abstractmethod
    def spaces(self) -> Mapping[str, Any]:
        """Spaces that the networks are made for, by name; empty if the shapes of the weights say it all."""

    def origin(self) -> list[str]:
        """A line on the weights that training starts from, if they are another run's."""
        weights = self.sources.get("weights")
        return (
            []
            if weights is None
            else [f"starts from the weights of {weights['run']}, iteration {weights['iteration']}"]
        )

    def started(self) -> Any:
        """The agent or learner that training starts with: untrained, or with the weights of another run."""
        trained = self.untrained()
        has_checkpoint = any((self.folder / name).exists() for name in (CHECKPOINT, PREVIOUS))
        if self.experiment.init_from is not None and not has_checkpoint:
            path = self.folder / INITIAL
            weights = load_checkpoint(path).get("weights")
            if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
                raise CheckpointError(f"{path} holds no weights to start from; train anew with --init-from")
            try:
                trained.load_state_dict(with_weights(trained.state_dict(), weights))
            except (RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[-1].strip()
                raise CheckpointError(f"the weights of {path} do not fit the run's networks: {reason}") from error
        return trained

    @abstractmethod
    def introduction(self) -> list[str]:
        """Lines on what is going to be trained. Makes all that training needs, so that nothing can fail later.

        Raises:
            ValueError: if something cannot be made.
        """

    @abstractmethod
    def train(
        self,
        *,
        loggers: Sequence[Logger],
        report: Report | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Progress:
        """Train to the configured number of iterations, from the checkpoint if there is one.

        Args:
            loggers: Receivers of the metrics; left open.
            report: Called after every iteration with the progress and the metrics; gets what the console gets.
            stop: Asked after every iteration; true ends the training with a checkpoint.
        """

    @abstractmethod
    def restored(self, checkpoint: str = CHECKPOINT) -> tuple[Any, Progress]:
        """The agent or learner as a checkpoint left it, and how far it was trained."""

    @abstractmethod
    def measure(self, options: EvaluationOptions) -> dict[str, Any]:
        """Evaluate a checkpoint and its baselines; the result as JSON types."""

    def result_head(self, options: EvaluationOptions, progress: Progress) -> dict[str, Any]:
        """The entries that begin every result of `measure`."""
        return {
            "experiment": self.name,
            "seed": self.experiment.seed,
            "evaluation_seed": options.seed,
            "train_wall_s": round(progress.elapsed_s, 1),
        }

    @abstractmethod
    def show(self, result: Mapping[str, Any]) -> None:
        """Print a result of `measure` as tables."""

    @abstractmethod
    def describe(self, progress: Progress, metrics: Mapping[str, float]) -> list[str]:
        """The parts of the live line that are this kind's own."""

    @abstractmethod
    def experience(self, progress: Progress) -> str:
        """The amount of experience behind a progress, in words."""

    def agent(self, *, checkpoint: str = CHECKPOINT, device: Device | None = "cpu") -> Any:
        """The trained agent or learner.

        Args:
            checkpoint: File name of one of the run's checkpoints.
            device: Device of its networks; None for the configured one.
        """
        return self.on_device(device).restored(checkpoint)[0]

    def evaluate(  # as in EvaluationOptions
        self,
        *,
        tasks: Path | None = None,
        num_tasks: int | None = None,
        split: Literal["test", "train"] = "test",
        num_steps: int | None = None,
        num_episodes: int | None = None,
        horizon: int | None = None,
        deterministic: bool | None = None,
        num_ways: int | None = None,
        num_shots: int | None = None,
        num_queries: int | None = None,
        views: int | None = None,
        data_folder: str | None = None,
        data_source: int | None = None,
        seed: int = 0,
        checkpoint: str = CHECKPOINT,
        device: Device | None = None,
    ) -> dict[str, Any]:
        """Evaluate the trained agent or learner beside the untrained one.

        The arguments are explained in `EvaluationOptions`.

        Returns:
            The result as JSON types, which `metarl evaluate --json` writes.
        """
        options = EvaluationOptions(
            tasks=tasks,
            num_tasks=num_tasks,
            split=split,
            num_steps=num_steps,
            num_episodes=num_episodes,
            horizon=horizon,
            deterministic=deterministic,
            num_ways=num_ways,
            num_shots=num_shots,
            num_queries=num_queries,
            views=views,
            data_folder=data_folder,
            data_source=data_source,
            seed=seed,
            checkpoint=checkpoint,
        )
        return self.on_device(device).evaluated(options)

    def evaluated(self, options: EvaluationOptions) -> dict[str, Any]:
        """The result of `measure`, after the options are checked.

        Raises:
            ValueError: if an option is of the other kind of runs.
        """
        options.check(self.options, f"{self.folder} is {'an RL' if self.kind == 'rl' else 'a few-shot'} run")
        checkpoint_path(self, options.checkpoint)
        return self.measure(options)

    def on_device(self, device: Device | None) -> Self:
        """The same run with its networks on another device; its folder keeps the configured one."""
        return self if device is None else replace(self, experiment=replace(self.experiment, device=device))

    def extended(self, iterations: int) -> Self:
        """The same run with another number of iterations in all, in its folder too.

        Raises:
            ValueError: if fewer iterations are asked for than are done.
        """
        done = checkpointed_iteration(self)
        if iterations < done:
            raise ValueError(f"--iterations must be at least {done}, which are done, got {iterations}")
        training = replace(self.experiment.training, iterations=iterations)
        longer = replace(self, experiment=replace(self.experiment, training=training))
        if is_first():
            path = self.folder / CONFIG
            write_json(path, read_config(self.folder) | {"experiment": longer.encode()})
        return longer


def make_run(run: Run, out: Path | None) -> Run:
    """Make the folder of a prepared run; it appears under its name when all that belongs in it is written.

    Of processes that train together the first makes it, and all open it.

    Args:
        run: Prepared, without a folder.
        out: The folder; None for the next free `runs/NAME-seedN`.

    Raises:
        ValueError: if the given folder exists or cannot be made.
    """
    config = {
        "name": run.name,
        "kind": run.kind,
        "experiment": run.encode(),
        **({"sources": dict(run.sources)} if run.sources else {}),
        "versions": versions(),
    }

    def write(folder: Path) -> None:
        run.write(folder)
        write_json(folder / CONFIG, config)

    folder = parallel.from_first(lambda: make_folder(out, f"{run.name}-seed{run.experiment.seed}", write))
    return type(run).open(folder, run.name, run.experiment, run.sources)


def make_folder(out: Path | None, name: str, write: Callable[[Path], None] = lambda folder: None) -> Path:
    """Make the given folder, or without one the next free `runs/NAME`, whole or not at all.

    Args:
        out: The folder; None for the next free one.
        name: Name of the next free folder.
        write: Function that writes what belongs in it.

    Raises:
        ValueError: if the given folder exists or cannot be made.
    """
    if out is not None and (out.exists() or out.is_symlink()):
        raise ValueError(
            f"{out} exists and is left as it is; expected a new folder: give another --out, "
            f"or continue it with `metarl resume {out}`"
        )
    folder = _free(Path("runs") / name) if out is None else out
    with contextlib.ExitStack() as making:
        try:
            unfinished = making.enter_context(unfinished_folder(folder))
        except OSError as error:
            raise ValueError(f"cannot make the run folder {folder}: {error.strerror}") from error
        write(unfinished)
        while True:
            try:
                return unfinished.rename(folder)
            except OSError:  # another process has just taken the name
                if out is not None or not folder.exists():
                    raise
                folder = _free(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a run folder's config.json; its experiment is not decoded.

    Raises:
        ValueError: saying what is missing or malformed.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(
            f"{folder} is not a run folder: expected {path}, which `metarl train` writes first of all"
        )
    data = read_json(path, "configuration")
    experiment, name, sources = (
        (data.get("experiment"), data.get("name"), data.get("sources", {}))
        if isinstance(data, dict)
        else (None, None, {})
    )
    if not isinstance(experiment, dict) or not isinstance(name, str):
        raise ValueError(f"{path} is not a run's configuration: expected an experiment and a name")
    origins = sources.items() if isinstance(sources, dict) else [("", None)]
    if not all(isinstance(origin, dict) and _SAYS.get(of, set()) <= set(origin) for of, origin in origins):
        raise ValueError(f"{path}: sources must say where the experiment came from, got {shorten(sources)}")
    kind = data.setdefault("kind", "few-shot" if "learner" in experiment else "rl")  # older runs do not say it
    if kind not in ("rl", "few-shot"):
        raise ValueError(f"{path}: kind must be rl or few-shot, got {shorten(kind)}")
    result: dict[str, Any] = data
    return result


def checkpointed_iteration(run: Run) -> int:
    """The iteration that a run's checkpoint is of, 0 if there is none."""
    path = latest_checkpoint(run.folder)
    return 0 if path is None else progress_of(load_checkpoint(path), path).iteration


def go_back(run: Run) -> None:
    """Make the checkpoint before the last one the present one, and keep the last under another name."""
    load_checkpoint(run.folder / PREVIOUS)
    if (run.folder / CHECKPOINT).exists():
        (run.folder / CHECKPOINT).replace(_free(run.folder / "checkpoint.replaced.pt"))
    with atomic_file(run.folder / CHECKPOINT) as file:
        file.write((run.folder / PREVIOUS).read_bytes())


def checkpoint_path(run: Run, name: str) -> Path:
    """The path of one of a run's checkpoints, by file name.

    Raises:
        ValueError: if the name is not that of a checkpoint.
    """
    if name not in (CHECKPOINT, PREVIOUS, BEST):
        raise ValueError(f"--checkpoint must be {CHECKPOINT}, {PREVIOUS} or {BEST}, got {name!r}")
    return run.folder / name


def _free(first: Path) -> Path:
    """The path, or the path with the least number that makes it new."""
    path, number = first, 2
    while path.exists():
        path, number = first.with_name(f"{first.stem}-{number}{first.suffix}"), number + 1
    return path
