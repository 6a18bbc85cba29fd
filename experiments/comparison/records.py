"""Run folders as comparisons read them: configuration, evaluation by task, and metrics by iteration."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.experiments.comparison.grouping import grouped
from metarl.experiments.runs import EVALUATION, read_config
from metarl.runs.metrics import Axis
from metarl.runs.reading import read_json, shorten

METRICS = "metrics.csv"
_FEWEST = 4  # tests in training that make a curve


@dataclass(frozen=True)
class RunRecord:
    """One finished run, read from its folder without anything of it being executed.

    Attributes:
        folder: Run folder.
        name: Name of the experiment.
        benchmark: Name of the benchmark, or the text that the configuration has for a user's own.
        seed: Seed of the run.
        tasks: Evaluated tasks as JSON types.
        returns: Mean return by adaptation step on each task, [step, task].
        successes: Success rate by adaptation step on each task, [step, task]; None where none is reported.
        sequential: Whether a step is one more episode of a trial, instead of a gradient step.
        metrics: Columns of the metrics by name, NaN where an iteration has no value, each [iteration].
    """

    folder: Path
    name: str
    benchmark: str
    seed: int
    tasks: tuple[Any, ...]
    returns: np.ndarray
    successes: np.ndarray | None
    sequential: bool
    metrics: dict[str, np.ndarray]

    @property
    def env_steps(self) -> np.ndarray:
        """Environment steps after each iteration."""
        return self.metrics["env_steps"]

    @property
    def wall_s(self) -> np.ndarray:
        """Seconds of collecting, updating and testing until the end of each iteration."""
        names = [f"time/{part}_s" for part in ("collect", "update", "evaluate")]
        parts = [np.nan_to_num(self.metrics[name]) for name in names if name in self.metrics]
        total: np.ndarray = np.sum(parts, axis=0).cumsum() if parts else np.zeros(len(self.env_steps))
        return total

    def learning_curve(self) -> tuple[str, np.ndarray, np.ndarray]:
        """Return on test tasks, or on training tasks where few tests were made.

        Returns:
            Name of the metric, the iterations that have it, and its values there.
        """
        curve = learning_curve(self.metrics)
        if curve is None:
            raise ValueError(f"{self.folder / METRICS} has neither test/return_after_K nor train/return_post")
        if not len(curve[1]):
            raise ValueError(f"{self.folder / METRICS} has no number in its column {curve[0]}")
        return curve


@dataclass(frozen=True)
class Group:
    """Runs of one experiment that differ by their seeds.

    Attributes:
        label: Name in tables and figures.
        runs: Runs by seed, on the same test tasks.
    """

    label: str
    runs: tuple[RunRecord, ...]

    @property
    def returns(self) -> np.ndarray:
        """Returns, [seed, step, task]."""
        return np.stack([run.returns for run in self.runs])

    @property
    def successes(self) -> np.ndarray | None:
        """Success rates, [seed, step, task]; None where a run reports none."""
        rates = [run.successes for run in self.runs if run.successes is not None]
        return np.stack(rates) if len(rates) == len(self.runs) else None


def read_groups(folders: Sequence[Path], evaluation: str = EVALUATION) -> list[Group]:
    """The groups of run folders, as `grouped` makes them, read and checked to be comparable.

    Args:
        folders: Folders of runs, or of groups of runs.
        evaluation: Name of the evaluation's file in each run folder.

    Raises:
        ValueError: if a folder holds no run or runs of different settings, or runs have other benchmarks or were
            evaluated on other tasks.
    """
    groups = [
        Group(label, tuple(sorted((read_run(run, evaluation) for run in runs), key=lambda run: run.seed)))
        for label, runs in grouped(folders).items()
    ]
    _check_alike([run for group in groups for run in group.runs])
    for group in groups:
        seeds = [run.seed for run in group.runs]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{group.label} has two runs of seed {max(seeds, key=seeds.count)}; give one of each")
        if len({len(run.returns) for run in group.runs}) > 1:
            raise ValueError(f"the runs of {group.label} differ in the number of adaptation steps")
    return groups


def read_run(folder: Path, evaluation: str = EVALUATION) -> RunRecord:
    """Read one run folder.

    Raises:
        ValueError: saying what is missing, malformed or of another kind.
    """
    config = read_config(folder)
    if config["kind"] != "rl":
        raise ValueError(
            f"{folder} is a few-shot run; expected runs of agents; show learners side by side with `metarl report "
            "DIR DIR`, or evaluate them on the same tasks, `metarl evaluate DIR --tasks tasks.json`"
        )
    path = folder / evaluation
    if not path.is_file():
        raise ValueError(f"{folder} has no {evaluation}; finish it with `metarl resume {folder}`")
    data: Any = read_json(path, "evaluation")
    try:
        tasks = tuple({"family": str(task["family"]), "params": _params(task["params"])} for task in data["tasks"])
        returns = np.array([task["return_mean"] for task in data["tasks"]], dtype=np.float64).T
        successes = None
        if returns.ndim != 2:
            raise ValueError(f"{len(tasks)} tasks")
        if all("success_mean" in task for task in data["tasks"]):
            successes = np.array([task["success_mean"] for task in data["tasks"]], dtype=np.float64).T
        sequential = "trials" in data
        seed = int(data["seed"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} has no returns by task ({type(error).__name__} {error}); "
            f"make it anew: metarl evaluate {folder} --json {folder}/NEW.json, then compare --evaluation NEW.json"
        ) from error
    benchmark = str(config["experiment"].get("benchmark"))
    return RunRecord(
        folder,
        config["name"],
        benchmark,
        seed,
        tasks,
        returns,
        successes,
        sequential,
        read_metrics(folder / METRICS),
    )


def _params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a task by name, each a number or a list of numbers."""
    numbers = [each for value in params.values() for each in (value if isinstance(value, list) else [value])]
    if not all(isinstance(each, int | float) for each in numbers):
        raise TypeError(f"expected numbers as the parameters of a task, got {shorten(params)}")
    return dict(params)


def read_metrics(path: Path, axis: Axis = "env_steps") -> dict[str, np.ndarray]:
    """The columns of metrics.csv by name, NaN where an iteration has no value, each [iteration].

    Args:
        path: File of metrics.
        axis: Quantity that its x axis counts.

    Raises:
        ValueError: if the file cannot be read, or has no such axis.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        names = [*rows[0]] if rows else []
        columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
    except (OSError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if axis not in columns:
        raise ValueError(f"{path} has no column {axis} or no rows; the run has not begun")
    return columns


def learning_curve(metrics: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray, np.ndarray] | None:
    """Return on test tasks by iteration, or on training tasks where few tests were made; see `RunRecord`."""
    name = "train/return_post"
    tested = [name for name in metrics if name.startswith("test/return_after_")]
    if tested:
        last = max(tested, key=_last_number)
        if np.isfinite(metrics[last]).sum() >= _FEWEST or name not in metrics:
            name = last
    if name not in metrics:
        return None
    there = np.flatnonzero(np.isfinite(metrics[name]))
    return name, there, metrics[name][there]


def _check_alike(runs: Sequence[RunRecord]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.benchmark != first.benchmark:
            raise ValueError(
                f"expected runs of one benchmark; {first.folder} has {first.benchmark!r}, "
                f"{run.folder} {run.benchmark!r}"
            )
        if run.tasks != first.tasks:
            differ = sum(a != b for a, b in zip(run.tasks, first.tasks, strict=False))
            differ += abs(len(run.tasks) - len(first.tasks))
            raise ValueError(
                f"{first.folder} and {run.folder} were evaluated on different tasks ({differ} differ): "
                f"evaluate each with --tasks {first.folder}/test_tasks.json --json DIR/common.json and "
                "compare with --evaluation common.json"
            )


def _last_number(name: str) -> int:
    return int(name.rsplit("_", 1)[1])
