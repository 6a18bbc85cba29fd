"""The run folder of a few-shot experiment: configuration, versions, metrics, events, checkpoints, evaluation."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from metarl.experiments.configuration import Device
from metarl.experiments.fewshot.configuration import FewshotExperiment, data_name, decode, encode
from metarl.experiments.runs import CONFIG, make_folder, read_config, rewrite_experiment, versions
from metarl.runs.files import write_json


@dataclass(frozen=True)
class FewshotRun:
    """An opened run folder.

    Attributes:
        folder: where it is.
        name: of the experiment.
        experiment: resolved configuration.
    """

    folder: Path
    name: str
    experiment: FewshotExperiment

    @property
    def identity(self) -> str:
        """Whose checkpoints are in the folder."""
        return f"{type(self.experiment.learner).__name__.removesuffix('Config')} on {data_name(self.experiment)}"


def create_run(name: str, experiment: FewshotExperiment, folder: Path | None) -> FewshotRun:
    """Make a run folder; without a given one, the next free `runs/NAME-seedN`.

    Raises:
        ValueError: if the given folder exists.
    """
    made = make_folder(folder, f"{name}-seed{experiment.seed}")
    write_json(made / CONFIG, {"name": name, "experiment": encode(experiment), "versions": versions()})
    return FewshotRun(made, name, experiment)


def open_run(folder: Path) -> FewshotRun:
    """Open a run folder that `create_run` made.

    Raises:
        ValueError: saying what is missing or malformed.
    """
    return FewshotRun(folder, *read_config(folder, decode))


def is_fewshot(folder: Path) -> bool:
    """Whether a folder is that of a few-shot run."""
    try:
        return "learner" in json.loads((folder / CONFIG).read_text())["experiment"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def on_device(run: FewshotRun, device: Device | None) -> FewshotRun:
    """The same run on another device; its folder keeps the configured one."""
    return run if device is None else replace(run, experiment=replace(run.experiment, device=device))


def extend_run(run: FewshotRun, iterations: int) -> FewshotRun:
    """The same run with another number of iterations in all, in its folder too."""
    training = replace(run.experiment.training, iterations=iterations)
    extended = replace(run, experiment=replace(run.experiment, training=training))
    rewrite_experiment(run, encode(extended.experiment))
    return extended
