"""Exporting a few-shot learner: an ONNX model, a card in JSON, and a file that runs it without torch.

FILE.onnx             an embedding network, with the model that compares its features in the metadata; or, of a
                      learner that takes gradient steps or with a support set, a classifier of that task
FILE.json             the card
metarl_classifier.py  a copy of metarl/deploy/classifier.py
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metarl.deploy.models import (
    Exported,
    add_metadata,
    check_target,
    convert,
    copied,
    session,
    versions,
    write_all,
)
from metarl.fewshot.adapted import AdaptedNetwork, Embedding, adapted_network, target_values
from metarl.fewshot.episodes import Examples
from metarl.fewshot.inner_loop import GradientLearner
from metarl.fewshot.learner import Learner, ModuleLearner
from metarl.fewshot.learners.fine_tuning import FineTuning
from metarl.fewshot.learners.reptile import Reptile
from metarl.fewshot.metric import MetricLearner, check_classes, is_transductive
from metarl.fewshot.objectives import is_classification
from metarl.fewshot.sources import TaskKind, TaskSpec

RUNNER = "metarl_classifier.py"
_COPIES = {RUNNER: "classifier.py"}
_METADATA, _SCORES, _VERSION = "metarl_learner", "metarl_scores", 1
_TOLERANCE = 1e-5  # between torch's outputs and the model's, of numbers of unit size
_SIZES = (5, 2, 9)
"""Numbers of queries that a model is compared with torch on; the first is the one that it was traced with."""
_ANY = torch.export.Dim.DYNAMIC


class _Comparison(nn.Module):
    """The scores of query features, from support features and their targets."""

    def __init__(self, learner: MetricLearner) -> None:
        super().__init__()
        self._learner, self.head = learner, learner.head

    def forward(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        with self._learner.network.evaluating(self._learner.head):
            solution = self._learner.solve(support.unsqueeze(0), targets.unsqueeze(0))
            return self._learner.judge(solution, query.unsqueeze(0)).squeeze(0)


def check_learner(learner: Learner, *, has_support: bool) -> None:
    """Raise a ValueError in one line if a learner cannot be exported with, or without, a support set."""
    name = type(learner).__name__
    takes_steps = isinstance(learner, GradientLearner | Reptile | FineTuning)
    if not takes_steps and not isinstance(learner, MetricLearner):
        raise ValueError(
            f"{name} cannot be exported; expected a learner that compares features or takes gradient steps"
        )
    assert isinstance(learner, ModuleLearner)
    if learner.judges_queries_together:
        raise ValueError(f"{name} cannot be exported: it solves a problem of all queries together")
    if takes_steps and not has_support:
        raise ValueError(f"{name} adapts by gradient steps, which no model takes; give the task with --support")
    if not isinstance(learner, MetricLearner):
        return
    if not learner.embeds_rows_alone:
        raise ValueError(
            f"{name} cannot be exported: its batch norm is {learner.normalisation}, so that features depend on "
            "other examples; train it with running or frozen"
        )
    if not has_support and not learner.solves_by_fixed_steps:
        raise ValueError(f"{name} solves a task in steps that no model takes; give the task with --support")


@torch.no_grad()
def export_learner(
    learner: Learner,
    tasks: TaskSpec,
    path: Path | str,
    *,
    support: Examples | None = None,
    classes: Sequence[str] | None = None,
    num_steps: int | None = None,
    card: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a learner as an ONNX model with its card and the file that runs it.

    Nothing is written before the model has been run and gave the numbers that torch gives.

    Args:
        learner: Trained learner on a CPU; it is left as it is.
        tasks: Kind and sizes of the tasks.
        path: New file that ends in .onnx.
        support: Examples of the one task that the model is to be of; None for a model that learns tasks itself.
        classes: Names of the classes of the support set.
        num_steps: Number of gradient steps; None for as many as the learner was trained for.
        card: Further entries of the card, as JSON types.

    Raises:
        ValueError: If a package is missing, a file exists, or the learner or an operator cannot be exported; one
            line.
        WriteError: If a file cannot be written.
    """
    path = Path(path)
    check_target(path, _COPIES)
    check_learner(learner, has_support=support is not None)
    steps = learner.num_steps if num_steps is None else num_steps
    inputs = torch.zeros(_SIZES[0], *tasks.input_shape, dtype=tasks.input_dtype)
    comparison: dict[str, str] = {}
    if support is None:
        assert isinstance(learner, MetricLearner)
        network: nn.Module = Embedding(learner)
        content, difference = _comparison(learner, tasks, network(inputs))
        comparison = {_SCORES: base64.b64encode(content).decode()}
    else:
        inputs, difference = inputs.to(support.inputs.dtype), 0.0
        network = _of_one_task(learner, support, steps)
    model = convert(network.eval(), {"inputs": inputs}, ["outputs"], ({0: _ANY},))
    names = {"classes": None if classes is None else list(classes)}
    description = _card(learner, tasks.kind, inputs, support, steps) | names | dict(card or {})
    text = json.dumps(description, indent=1, allow_nan=False)
    content = add_metadata(model, {_METADATA: text, **comparison})
    expected: Callable[..., Tensor] = network
    if support is not None:
        predict = learner.adapt(support, steps)[-1]
        expected = lambda queries: predict(queries.unsqueeze(0)).squeeze(0)  # noqa: E731
    examples = [(_random(inputs, size),) for size in _SIZES]
    difference = max(difference, _largest_difference(expected, content, ["inputs"], "outputs", examples))
    files = {path.with_suffix(".json"): text.encode() + b"\n", **copied(path, _COPIES), path: content}
    write_all(files)
    return Exported(path, path.with_suffix(".json"), path.with_name(RUNNER), difference)


def _of_one_task(learner: Learner, support: Examples, num_steps: int) -> nn.Module:
    """The network that judges the queries of one task.

    Raises:
        ValueError: If the support set is not one that the learner learns.
    """
    classes = is_classification(support.targets)
    if classes:
        check_classes(support.targets)
    network = adapted_network(learner, support, num_steps)
    if not isinstance(network, AdaptedNetwork):
        return network
    num_outputs = network(support.inputs[0]).shape[-1]
    num_wanted = int(support.targets.max()) + 1 if classes else support.targets.shape[-1]
    if num_outputs != num_wanted:
        raise ValueError(
            f"expected a support set of {num_outputs} classes or numbers, as the learner has outputs, got "
            f"{num_wanted}"
        )
    return network


def _comparison(learner: MetricLearner, tasks: TaskSpec, features: Tensor) -> tuple[bytes, float]:
    """The model that compares features, and its largest difference from torch."""
    from metarl.fewshot import onnx_solver  # noqa: PLC0415  # needs onnxscript

    classes = tasks.kind == "classification"
    outputs = 3 if classes else tasks.num_outputs

    def example(num_rows: int, num_outputs: int, num_queries: int) -> tuple[Tensor, ...]:
        values = torch.arange(num_rows) % num_outputs
        targets = (
            target_values(values) if classes else torch.linspace(-1, 1, num_rows * outputs).view(num_rows, -1)
        )
        return _random(features, num_rows), targets, _random(features, num_queries)

    module, names = _Comparison(learner).eval(), ["support", "targets", "query"]
    first = example(7, outputs, 5)
    shapes = ({0: _ANY}, {0: _ANY, 1: _ANY} if classes else {0: _ANY}, {0: _ANY})
    translations = {torch.ops.aten._linalg_solve_ex.default: onnx_solver.solve}
    inputs = dict(zip(names, first, strict=True))
    model = convert(module, inputs, ["scores"], shapes, translations=translations)
    content: bytes = model.SerializeToString()
    others = [first, example(12, 4, 2), example(2, 2, 9)]
    return content, _largest_difference(module, content, names, "scores", others)


def _card(
    learner: Learner, kind: TaskKind, inputs: Tensor, support: Examples | None, num_steps: int
) -> dict[str, Any]:
    """The card: what the runner needs, and what people do."""
    return {
        "version": _VERSION,
        "learner": type(learner).__name__,
        "kind": kind,
        "learns": support is None,
        "input": {"dtype": str(inputs.dtype).removeprefix("torch."), "shape": list(inputs.shape[1:])},
        "num_support": None if support is None else support.inputs.shape[1],
        "num_steps": None if isinstance(learner, MetricLearner) else num_steps,
        "normalisation": learner.normalisation,
        "transductive": is_transductive(learner),
        "made_with": versions(),
    }


def _random(like: Tensor, num_rows: int) -> Tensor:
    """Rows of random numbers in [0, 1), or of zeros and ones, the same ones every time."""
    rng, shape = np.random.default_rng(num_rows), (num_rows, *like.shape[1:])
    if like.is_floating_point():
        return torch.from_numpy(np.asarray(rng.random(shape, np.float32)))
    return torch.from_numpy(np.asarray(rng.integers(0, 2, shape))).to(like.dtype)


def _largest_difference(
    right: Callable[..., Tensor],
    content: bytes,
    names: Sequence[str],
    output: str,
    examples: Sequence[tuple[Tensor, ...]],
) -> float:
    """The largest difference between a model's outputs and torch's, of numbers of unit size.

    Raises:
        ValueError: If the model cannot be run, or differs.
    """
    running, largest = session(content), 0.0
    for values in examples:
        expected = right(*values)
        feed = {name: value.numpy() for name, value in zip(names, values, strict=True)}
        (came,) = running.run([output], feed)
        scale = max(1.0, float(expected.abs().max()))
        difference = float(np.abs(expected.numpy().astype(float) - came).max()) / scale
        if not difference <= _TOLERANCE:
            raise ValueError(f"the exported model gives other {output} than torch, by {difference:.2g}")
        largest = max(largest, difference)
    return largest
