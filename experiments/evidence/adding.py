"""Slim copies of finished runs, which a repository can hold: configuration, metrics and evaluations.

An evaluation on many tasks is copied without its row for every task; what it says of all together stays.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.experiments.comparison.grouping import difference, run_folders, shared_settings
from metarl.experiments.comparison.records import METRICS, read_metrics
from metarl.experiments.evaluations import read_evaluation
from metarl.experiments.runs import CONFIG, make_folder, read_config
from metarl.runs.files import write_json

_MOST_TASKS = 200
"""Number of tasks up to which an evaluation's row for every task is kept: those of 2,000 bandits take 7 MB."""


def add(folders: Sequence[Path], results: Path, name: str | None = None) -> list[Path]:
    """Copy the slim part of runs to RESULTS/NAME/seedN; all of them, or none where one cannot be.

    Args:
        folders: Run folders, or folders of runs that differ by their seeds.
        results: Folder of results.
        name: Name of the runs; by default that of their experiment.

    Returns:
        The new folders.

    Raises:
        ValueError: if a run is not finished, is there already, or has other settings than runs of its name.
    """
    planned: dict[Path, Path] = {}
    configs: dict[str, Mapping[str, Any]] = {}
    for run in [run for folder in folders for run in run_folders(folder)]:
        config = read_config(run)
        own = name or config["name"]
        if Path(own).name != own or own.startswith("."):
            raise ValueError(f"a name of runs must be the name of a folder, got {own!r}; give another --name")
        target = results / own / f"seed{config['experiment'].get('seed', 0)}"
        if target.exists() or target in planned:
            raise ValueError(f"{target} is there already and is left as it is; give another --name for {run}")
        evaluations = sorted(run.glob("evaluation*.json"))
        if not evaluations or not (run / METRICS).is_file():
            raise ValueError(f"{run} is not finished; finish it with `metarl resume {run}`")
        for path in evaluations:
            read_evaluation(path)
        read_metrics(run / METRICS, "env_steps" if config["kind"] == "rl" else "tasks")
        others = [read_config(path.parent) for path in (results / own).glob(f"*/{CONFIG}")]
        for other in [*others, configs.get(own, config)]:
            if differs := _difference(other, config):
                raise ValueError(
                    f"{results / own} has runs with other settings than {run} ({differs}); give another --name"
                )
        configs[own] = config
        planned[target] = run
    for target, run in planned.items():
        make_folder(target, target.name, lambda folder, run=run: _copy(run, folder))  # type: ignore[misc]
    return list(planned)


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """The first setting that differs between runs; the same test tasks may have been asked for in two ways."""
    settings = shared_settings(first), shared_settings(second)
    evaluations = [config["experiment"].get("evaluation", {}) for config in (first, second)]
    seeds = [config["experiment"].get("seed", 0) for config in (first, second)]
    named = [evaluation.get("task_seed") for evaluation in evaluations]
    own = [seed if task_seed is None else task_seed for seed, task_seed in zip(seeds, named, strict=True)]
    if own[0] == own[1]:
        for of_run in settings:
            if isinstance(evaluation := of_run.get("evaluation"), Mapping):
                of_run["evaluation"] = {key: value for key, value in evaluation.items() if key != "task_seed"}
    return difference(*settings)


def _copy(run: Path, folder: Path) -> None:
    for name in (CONFIG, METRICS):
        shutil.copyfile(run / name, folder / name)
    for path in sorted(run.glob("evaluation*.json")):
        result = dict(read_evaluation(path))
        if isinstance(tasks := result.get("tasks"), list) and len(tasks) > _MOST_TASKS:
            result["tasks"] = []
        write_json(folder / path.name, result)
