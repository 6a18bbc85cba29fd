"""Exporting the learner of a few-shot run, to learn tasks itself or for one task."""

from pathlib import Path

import torch

from metarl.deploy.models import Exported
from metarl.experiments.fewshot.configuration import data_name
from metarl.experiments.fewshot.run import FewshotRun
from metarl.fewshot.data.arrays import read_examples
from metarl.fewshot.data.class_tasks import ImageClasses
from metarl.fewshot.episodes import Examples
from metarl.fewshot.exporting import export_learner
from metarl.fewshot.objectives import is_classification
from metarl.fewshot.prediction import read_support
from metarl.runs.checkpoint import CHECKPOINT


def export_run(
    run: FewshotRun,
    path: Path,
    *,
    support: Path | None = None,
    num_steps: int | None = None,
    checkpoint: str = CHECKPOINT,
) -> Exported:
    """Write the trained learner of a run as an ONNX model, see `metarl.fewshot.exporting`.

    Args:
        run: Run to export.
        path: New file that ends in .onnx.
        support: Folder of images by class, or npz file of inputs and targets, of the one task that the model is to
            be of; None for a model that learns tasks itself.
        num_steps: Number of gradient steps; None for the run's own.
        checkpoint: File name of one of the run's checkpoints.

    Raises:
        ValueError: If the learner cannot be exported, or the support set cannot be read; one line.
        WriteError: If a file cannot be written.
    """
    run = run.on_device("cpu")
    learner, progress = run.restored(checkpoint)
    examples, classes = (None, None) if support is None else _support(run, support)
    return export_learner(
        learner,
        run.data.tasks,
        path,
        support=examples,
        classes=classes,
        num_steps=run.experiment.evaluation.num_steps if num_steps is None else num_steps,
        card={"experiment": run.name, "data": data_name(run.experiment), "train_tasks": progress.tasks},
    )


def _support(run: FewshotRun, path: Path) -> tuple[Examples, tuple[str, ...] | None]:
    """The examples of a task, and the names of its classes if they have any."""
    data = run.data
    if path.is_dir():
        if not isinstance(data, ImageClasses):
            raise ValueError(
                f"{path} is a folder, and {data_name(run.experiment)} are no images; give an npz file"
            )
        known = read_support(path, data.decode)
        places = torch.arange(len(known.names)).repeat_interleave(known.counts)
        return Examples.of_one_task(known.examples, places), known.names
    examples = read_examples(path)
    if examples.inputs.shape[2:] != data.tasks.input_shape:
        raise ValueError(
            f"expected inputs of shape {('row', *data.tasks.input_shape)} in {path}, got "
            f"{('row', *examples.inputs.shape[2:])}"
        )
    if is_classification(examples.targets) != (data.tasks.kind == "classification"):
        raise ValueError(f"expected targets of {data.tasks.kind} in {path}, got {examples.targets.dtype}")
    return examples, None
