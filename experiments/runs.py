"""A run is a folder: configuration, versions, test tasks, metrics, events, checkpoints, evaluation."""

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from metarl.experiments.configuration import Device, Experiment, decode, encode, experiment_benchmark
from metarl.loop import progress_of
from metarl.runs import seeding
from metarl.runs.checkpoint import BEST, PREVIOUS, latest_checkpoint, load_checkpoint
from metarl.runs.checkpoint import FILE as CHECKPOINT
from metarl.runs.files import atomic_file, write_json
from metarl.tasks import Benchmark, Task, load_tasks, save_tasks

Config = TypeVar("Config")

CONFIG = "config.json"
TEST_TASKS = "test_tasks.json"
EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Run:
    """An opened run folder.

    Attributes:
        folder: where it is.
        name: of the experiment.
        experiment: resolved configuration.
        benchmark: made from it.
        test_tasks: drawn when the run was created.
    """

    folder: Path
    name: str
    experiment: Experiment
    benchmark: Benchmark
    test_tasks: list[Task]


class AnyRun(Protocol):
    """A run of any kind."""

    @property
    def folder(self) -> Path: ...  # noqa: D102


def create_run(name: str, experiment: Experiment, folder: Path | None) -> Run:
    """Make a run folder; without a given one, the next free `runs/NAME-seedN`.

    Raises:
        ValueError: if the given folder exists.
    """
    benchmark = experiment_benchmark(experiment)
    rng = seeding.streams(experiment.seed)["test_tasks"]
    tasks = benchmark.test.sample(experiment.evaluation.num_tasks, rng)
    folder = make_folder(folder, f"{name}-seed{experiment.seed}")
    save_tasks(folder / TEST_TASKS, tasks)
    write_json(folder / CONFIG, {"name": name, "experiment": encode(experiment), "versions": versions()})
    return Run(folder, name, experiment, benchmark, tasks)


def make_folder(folder: Path | None, name: str) -> Path:
    """Make the given folder, or without one the next free `runs/NAME`.

    Raises:
        ValueError: if the given folder exists.
    """
    if folder is None:
        folder = _free(Path("runs") / name)
    elif folder.exists():
        raise ValueError(
            f"{folder} exists and is left as it is; expected a new folder: give another --out, "
            f"or continue it with `metarl resume {folder}`"
        )
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"cannot make the run folder {folder}: {error.strerror}") from error
    return folder


def open_run(folder: Path) -> Run:
    """Open a run folder that `create_run` made.

    Raises:
        ValueError: saying what is missing or malformed.
    """
    name, experiment = read_config(folder, decode)
    benchmark = experiment_benchmark(experiment)
    if not (folder / TEST_TASKS).is_file():
        raise ValueError(f"{folder} lacks {TEST_TASKS}, the tasks it is evaluated on; put it back or train anew")
    return Run(folder, name, experiment, benchmark, load_tasks(folder / TEST_TASKS, benchmark.family))


def read_config(folder: Path, decode_experiment: Callable[[object], Config]) -> tuple[str, Config]:
    """The name and the configuration of a run folder's experiment.

    Raises:
        ValueError: saying what is missing or malformed.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(
            f"{folder} is not a run folder: expected {path}, which `metarl train` writes before it trains"
            + ("; if it was killed before that, remove the folder and train anew" if folder.is_dir() else "")
        )
    try:
        data = json.loads(path.read_text())
        return data["name"], decode_experiment(data["experiment"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a run's configuration: {type(error).__name__} {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def on_device(run: Run, device: Device | None) -> Run:
    """The same run with its networks on another device; its folder keeps the configured one."""
    return run if device is None else replace(run, experiment=replace(run.experiment, device=device))


def checkpointed_iteration(run: AnyRun) -> int:
    """The iteration that a run's checkpoint is of, 0 if there is none."""
    path = latest_checkpoint(run.folder)
    return 0 if path is None else progress_of(load_checkpoint(path), path).iteration


def go_back(run: AnyRun) -> None:
    """Make the checkpoint before the last one the present one, and keep the last under another name."""
    load_checkpoint(run.folder / PREVIOUS)
    if (run.folder / CHECKPOINT).exists():
        (run.folder / CHECKPOINT).replace(_free(run.folder / "checkpoint.replaced.pt"))
    with atomic_file(run.folder / CHECKPOINT) as file:
        file.write((run.folder / PREVIOUS).read_bytes())


def extend_run(run: Run, iterations: int) -> Run:
    """The same run with another number of iterations in all, in its folder too."""
    training = replace(run.experiment.training, iterations=iterations)
    extended = replace(run, experiment=replace(run.experiment, training=training))
    rewrite_experiment(run, encode(extended.experiment))
    return extended


def rewrite_experiment(run: AnyRun, encoded: object) -> None:
    """Put another configuration into a run folder, beside the versions that it began with."""
    path = run.folder / CONFIG
    write_json(path, json.loads(path.read_text()) | {"experiment": encoded})


def checkpoint_path(run: AnyRun, name: str) -> Path:
    """The path of one of a run's checkpoints, by file name.

    Raises:
        ValueError: if the name is not that of a checkpoint.
    """
    if name not in (CHECKPOINT, PREVIOUS, BEST):
        raise ValueError(f"--checkpoint must be {CHECKPOINT}, {PREVIOUS} or {BEST}, got {name!r}")
    return run.folder / name


def versions() -> dict[str, Any]:
    """What results depend on: packages, interpreter, processor, and the commit of a checkout."""
    packages = ("metarl", "torch", "numpy", "gymnasium", "mujoco")
    found: dict[str, Any] = {name: version(name) for name in packages}
    found["python"] = sys.version.split()[0]
    found["platform"] = f"{platform.system()} {platform.machine()}"
    found["torch_threads"] = torch.get_num_threads()
    found["git_commit"] = _git_commit()
    return found


def _git_commit() -> str | None:
    """The commit of the checkout that this file belongs to; None if it is installed from elsewhere."""
    here = Path(__file__).resolve()

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here.parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return None


def _free(first: Path) -> Path:
    """The path, or the path with the least number that makes it new."""
    path, number = first, 2
    while path.exists():
        path, number = first.with_name(f"{first.stem}-{number}{first.suffix}"), number + 1
    return path
