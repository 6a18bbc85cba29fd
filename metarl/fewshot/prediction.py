"""Predicting with a trained learner: a folder or a table shows each class, another holds the new examples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.fewshot.data.classes import ClassData
from metarl.fewshot.data.decoding import SUFFIXES, image_names, read_image_file
from metarl.fewshot.data.table_rows import Rows, classes_of, read_rows
from metarl.fewshot.data.tables import TableData, check_features
from metarl.fewshot.episodes import Examples, as_inputs
from metarl.fewshot.evaluation import check_views
from metarl.fewshot.learner import Learner, check_numbers
from metarl.fewshot.metric import MetricLearner, is_transductive
from metarl.fewshot.sources import DataConfig

Decode = Callable[[bytes, str], Tensor]
"""Makes an image, bytes [channel, size, size], of a file's content and its name."""


class Prediction(NamedTuple):
    """The classes of one image, or of one row of a table.

    Attributes:
        file: Path of the image below the folder of queries; of a table, "row 0" and so on.
        label: Most probable class.
        probabilities: Probability of every class, by name; of sum 1.
        true_label: Class that the queries say themselves, by a folder or a column; None if they do not.
    """

    file: str
    label: str
    probabilities: dict[str, float]
    true_label: str | None = None


class Queries(NamedTuple):
    """Examples whose classes are to be predicted.

    Attributes:
        names: Name of every example.
        inputs: Examples [row, *input].
        labels: Class that an example says itself, or None.
    """

    names: Sequence[str]
    inputs: Tensor
    labels: Sequence[str | None]


def read_labelled_rows(file: Path, data: DataConfig) -> ClassData:
    """The classes of a table with a label for every row, whose inputs are as training has them.

    Raises:
        ValueError: If the file is missing or malformed, or has fewer than two classes.
    """
    classes = classes_of(*_read_rows(file, data, labelled=True))
    if len(classes.names) < 2:
        raise ValueError(f"{file} must have rows of two classes or more, got one, {classes.names[0]!r}")
    return classes


def read_new_rows(file: Path, data: DataConfig) -> Queries:
    """The rows of a table, with or without labels, whose inputs are as training has them.

    Raises:
        ValueError: If the file is missing or malformed.
    """
    rows, inputs = _read_rows(file, data, labelled=False)
    names = [f"row {number}" for number in range(len(inputs))]
    return Queries(names, inputs, [None] * len(names) if rows.labels is None else rows.labels)


def _read_rows(file: Path, data: DataConfig, *, labelled: bool) -> tuple[Rows, Tensor]:
    if isinstance(data, TableData):
        return data.read_new(file, labelled=labelled)
    rows = read_rows(file, labelled=labelled)
    return rows, check_features(rows.tensor(data.tasks.input_dtype), data.tasks.input_shape, file)


def read_support(folder: Path, decode: Decode) -> ClassData:
    """Read the images of a folder that holds one folder for every class.

    Raises:
        ValueError: If there are fewer than two classes, a class has no image, or an image cannot be read.
    """
    files = _files_below(folder)
    loose = [name for name in files if "/" not in name]
    if loose:
        raise ValueError(
            f"{folder} holds the image {loose[0]!r}, which is of no class; put it into a class's folder"
        )
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    members = {name: [file for file in files if file.startswith(f"{name}/")] for name in folders}
    if len(members) < 2:
        there = f"one, {folders[0]!r}" if folders else "none"
        raise ValueError(f"{folder} must hold a folder of images for each of two classes or more, got {there}")
    empty = [name for name, images in members.items() if not images]
    if empty:
        raise ValueError(
            f"class {empty[0]!r} has no images in {folder / empty[0]}; expected {', '.join(SUFFIXES)}"
        )
    return ClassData.join({name: _images(folder, images, decode) for name, images in members.items()})


def read_queries(folder: Path, decode: Decode) -> tuple[list[str], Tensor]:
    """The paths of all images below a folder, in order, and the images, bytes [image, channel, size, size].

    Raises:
        ValueError: If there are none, or one cannot be read.
    """
    files = _files_below(folder)
    if not files:
        raise ValueError(f"{folder} has no images; expected {', '.join(SUFFIXES)}")
    return files, _images(folder, files, decode)


def _files_below(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; expected one of images")
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return image_names(str(folder), files)


def _images(folder: Path, files: list[str], decode: Decode) -> Tensor:
    return torch.stack([decode(read_image_file(folder / file), str(folder / file)) for file in files])


def class_outputs(
    learner: Learner, support: Examples, queries: Tensor, *, views: int, num_steps: int, at_once: int = 500
) -> Tensor:
    """A learner's outputs for new examples of one task, [row, way].

    Args:
        learner: Trained learner; it is left as it is.
        support: Labelled examples of one task, the inputs [1, row, *input].
        queries: Examples to predict, [row, *input].
        views: Number of views of every image whose mean features are compared.
        num_steps: Number of adaptation steps, of learners that have them.
        at_once: Number of examples that are held in memory together, unless predictions depend on each other.

    Raises:
        FloatingPointError: If an output is not a number.
        ValueError: If the learner cannot compare so many views, or has not an output for every class.
    """
    check_views(learner, tuple(queries.shape[1:]), views)
    if isinstance(learner, MetricLearner) and learner.embeds_rows_alone:
        features = learner.features(support.inputs[0], views=views, at_once=at_once)
        embedded = Examples(features.unsqueeze(0), support.targets)
        outputs = learner.adapt_to_features(embedded, 0)[0](
            learner.features(queries, views=views, at_once=at_once).unsqueeze(0)
        )
        return _checked(learner, outputs, support)[0]
    # Before losses are taken; of two queries, since batch norm has no statistics of one.
    first = learner.adapt(support, 0)[0](as_inputs(queries[:2]).unsqueeze(0))
    _checked(learner, first, support)
    predict = learner.adapt(support, num_steps)[-1]
    pieces = [queries] if is_transductive(learner) else torch.split(queries, at_once)
    outputs = torch.cat([predict(as_inputs(piece).unsqueeze(0))[0] for piece in pieces])
    return _checked(learner, outputs.unsqueeze(0), support)[0]


def _checked(learner: Learner, outputs: Tensor, support: Examples) -> Tensor:
    """The outputs, if they are numbers and there is one for every class."""
    num_classes = int(support.targets.max()) + 1
    if outputs.shape[-1] != num_classes:
        raise ValueError(
            f"expected as many classes as the learner has outputs, {outputs.shape[-1]}, got {num_classes}; give "
            "as many, train on such tasks, or take a learner that compares features"
        )
    check_numbers(learner, ~outputs.isnan().flatten(1).any(1), "an output")
    return outputs


def predict_files(
    learner: Learner,
    support: ClassData,
    files: Sequence[str],
    queries: Tensor,
    *,
    true_labels: Sequence[str | None] | None = None,
    views: int,
    num_steps: int,
) -> list[Prediction]:
    """The classes of examples, with the softmax of the learner's outputs for probabilities.

    Args:
        learner: Trained learner; it is left as it is.
        support: Classes and their labelled examples.
        files: Names of the queries.
        queries: Examples to predict, [row, *input], of images [image, channel, size, size].
        true_labels: Classes that queries say themselves, or None; None for none of them.
        views: Number of views of every image whose mean features are compared.
        num_steps: Number of adaptation steps, of learners that have them.
    """
    classes = torch.arange(len(support.names)).repeat_interleave(support.counts).to(support.examples.device)
    examples = Examples.of_one_task(support.examples, classes)
    outputs = class_outputs(learner, examples, queries, views=views, num_steps=num_steps)
    rows = outputs.double().softmax(-1).tolist()
    best = outputs.argmax(-1).tolist()
    labels = [None] * len(files) if true_labels is None else true_labels
    return [
        Prediction(file, support.names[place], dict(zip(support.names, row, strict=True)), label)
        for file, place, row, label in zip(files, best, rows, labels, strict=True)
    ]
