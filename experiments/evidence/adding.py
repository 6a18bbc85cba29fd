"""Slim copies of finished runs, which a repository can hold: configuration, metrics and evaluations.

An evaluation on many tasks is copied without its row for every task; what it says of all together stays.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from metarl.experiments import configuration
from metarl.experiments.comparison.records import METRICS, run_folders
from metarl.experiments.fewshot import configuration as fewshot
from metarl.experiments.runs import CONFIG, make_folder, read_config
from metarl.runs.files import write_json
from metarl.runs.reading import read_json

_MOST_TASKS = 200
"""Number of tasks up to which an evaluation's row for every task is kept: those of 2,000 bandits take 7 MB."""
_MAY_DIFFER = ("seed", "device", "num_workers", "num_threads", "loggers")
_MAY_DIFFER_IN_TRAINING = ("evaluate_every", "checkpoint_every")  # how often it is looked at, not what is learned


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
    settings: dict[str, Mapping[str, Any]] = {}
    for run in [run for folder in folders for run in run_folders(folder)]:
        config = read_config(run)
        own = name or config["name"]
        if Path(own).name != own or own.startswith("."):
            raise ValueError(f"a name of runs must be the name of a folder, got {own!r}; give another --name")
        target = results / own / f"seed{config['experiment'].get('seed', 0)}"
        if target.exists() or target in planned:
            raise ValueError(f"{target} is there already and is left as it is; give another --name for {run}")
        if not list(run.glob("evaluation*.json")) or not (run / METRICS).is_file():
            raise ValueError(f"{run} is not finished; finish it with `metarl resume {run}`")
        others = [_settings(read_config(path.parent)) for path in (results / own).glob(f"*/{CONFIG}")]
        if any(other != _settings(config) for other in [*others, *filter(None, [settings.get(own)])]):
            raise ValueError(f"{results / own} has runs with other settings than {run}; give another --name")
        settings[own] = _settings(config)
        planned[target] = run
    for target, run in planned.items():
        make_folder(target, target.name, lambda folder, run=run: _copy(run, folder))  # type: ignore[misc]
    return list(planned)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that runs of one name share, with those that are newer than a run."""
    kind = configuration if config["kind"] == "rl" else fewshot
    settings = config["experiment"]
    with suppress(ValueError):  # classes and objects of a user's own
        settings = kind.encode(kind.decode(settings))
    training = {key: value for key, value in settings["training"].items() if key not in _MAY_DIFFER_IN_TRAINING}
    return {key: value for key, value in settings.items() if key not in _MAY_DIFFER} | {"training": training}


def _copy(run: Path, folder: Path) -> None:
    for name in (CONFIG, METRICS):
        shutil.copyfile(run / name, folder / name)
    for path in sorted(run.glob("evaluation*.json")):
        result = read_json(path, "evaluation")
        if len(result.get("tasks", [])) > _MOST_TASKS:
            result["tasks"] = []
        write_json(folder / path.name, result)
