"""The losses that tasks are learned by, and the scores that are reported: objects that an experiment chooses.

Targets are class indices [task, row] or numbers [task, row, out] unless an objective says otherwise. Rows whose
class is `IGNORED` are padding: they count neither in losses nor in scores.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from metarl.runs.configs import check_fraction, check_positive
from metarl.runs.reading import shorten

TaskObjective = Callable[[Tensor, Tensor], Tensor]
"""Maps outputs [task, row, out] and targets to a loss per task, [task]."""

IGNORED = -100
"""Class of rows, or of places in them, that are padding; PyTorch's own."""


class Objective(ABC):
    """A loss and a score of tasks, to derive from; a frozen dataclass, for an experiment.

    Attributes:
        needs_positive_outputs: Whether the loss is least where the output of a right class is above zero.
    """

    needs_positive_outputs: ClassVar[bool] = False

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of every task, [task], for outputs [task, row, ...].

        Raises:
            ValueError: If the outputs do not fit the targets.
        """

    @abstractmethod
    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The score of every task, [task]; NaN where an output is."""

    @abstractmethod
    def score_name(self, targets: Tensor) -> str:
        """The name of the score for such targets, such as "accuracy"; lower-case letters and underscores."""

    def is_error(self, score_name: str) -> bool:
        """Whether less is better in a score of that name."""
        return score_name == "mse"

    def num_outputs(self, num_targets: int) -> int:
        """The number of outputs per row that a network needs, from the number of classes or numbers."""
        return num_targets

    def check_tasks(self, *, is_classes: bool, num_outputs: int) -> None:  # noqa: B027  # most take all tasks
        """Raise a ValueError unless tasks of classes, or of numbers, and so many of them, can be learned by it."""


@dataclass(frozen=True)
class ByTargets(Objective):
    """Cross-entropy and accuracy where targets are classes, squared error where they are numbers."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy, or mean squared error, of every task's rows, [task]."""
        return task_losses(outputs, targets)

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Accuracy in [0, 1], or mean squared error, [task]."""
        return task_scores(outputs, targets)

    def score_name(self, targets: Tensor) -> str:
        """The word "accuracy" or "mse"."""
        return score_name(targets)


@dataclass(frozen=True)
class GivenLoss(ByTargets):
    """A loss of one's own, with accuracy for classes and squared error for numbers as the score.

    Attributes:
        loss: Function of outputs and targets to the loss of every task, [task].
    """

    loss: TaskObjective

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of every task, [task].

        Raises:
            ValueError: If the function does not return that.
        """
        losses = self.loss(outputs, targets)
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        if shape != (len(outputs),):
            raise ValueError(
                f"a loss must return a number per task, shape {(len(outputs),)} of outputs "
                f"{tuple(outputs.shape)}, got {shape}; take the mean over all but the first axis"
            )
        return losses


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Cross-entropy and accuracy of classes, of soft labels, or of the places of a sequence or an image.

    Targets are class indices [task, row, *place] for outputs [task, row, *place, class], or probabilities of the
    outputs' shape. Places of class -100 are left out.

    Attributes:
        label_smoothing: Share of every target that goes to all classes alike, in [0, 1].
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_fraction(self, "label_smoothing")

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of every task's rows and places, [task]."""
        _check_classes_of(outputs, targets)
        flat = outputs.flatten(0, -2)
        aims = targets.flatten(0, -2) if targets.is_floating_point() else targets.flatten()
        losses = nn.functional.cross_entropy(flat, aims, reduction="none", label_smoothing=self.label_smoothing)
        return _mean_of_real(losses.view(outputs.shape[:-1]), targets)

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Accuracy in [0, 1] of the most probable class, [task]."""
        _check_classes_of(outputs, targets)
        classes = targets.argmax(-1) if targets.is_floating_point() else targets
        return _accuracy(outputs, classes)

    def score_name(self, targets: Tensor) -> str:
        """The name of the score, which is "accuracy"."""
        return "accuracy"

    def check_tasks(self, *, is_classes: bool, num_outputs: int) -> None:
        """Raise a ValueError for tasks of a single number, which is no choice."""
        if not is_classes and num_outputs < 2:
            raise ValueError(
                f"cross-entropy needs classes, or two probabilities or more, got tasks of {num_outputs} number; "
                "take squared-error or binary-cross-entropy"
            )


@dataclass(frozen=True)
class BinaryCrossEntropy(Objective):
    """Cross-entropy and accuracy of several yes-or-no targets, numbers in [0, 1] of the outputs' shape.

    Of classes there is an answer for each class, yes for the right one alone, and the greatest output is chosen.
    """

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of every task's answers, [task]."""
        answers = _as_numbers(outputs, targets)
        losses = nn.functional.binary_cross_entropy_with_logits(outputs, answers, reduction="none")
        return _mean_of_answers(losses, targets)

    @torch.no_grad()
    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Share of right answers, or of right classes, in [0, 1], [task]."""
        if is_classification(targets):
            _check_classes_of(outputs, targets)
            return _accuracy(outputs, targets)
        _check_same(outputs, targets)
        right = ((outputs > 0) == (targets > 0.5)).float()
        return right.masked_fill(outputs.isnan(), torch.nan).flatten(1).mean(1)

    def score_name(self, targets: Tensor) -> str:
        """The name of the score, which is "accuracy"."""
        return "accuracy"


@dataclass(frozen=True)
class SquaredError(Objective):
    """Mean squared error of numbers of the outputs' shape, of any number of axes.

    Of classes the numbers are 1 for the right one and 0 for the others, and the greatest output is chosen.
    """

    needs_positive_outputs = True

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of every task, [task]."""
        return _mean_of_answers((outputs - _as_numbers(outputs, targets)).square(), targets)

    @torch.no_grad()
    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error, or accuracy of classes in [0, 1], of every task, [task]."""
        return _accuracy(outputs, targets) if is_classification(targets) else self.losses(outputs, targets)

    def score_name(self, targets: Tensor) -> str:
        """The word "accuracy" or "mse"."""
        return score_name(targets)


@dataclass(frozen=True)
class GaussianLikelihood(Objective):
    """Gaussian negative log-likelihood of numbers, for networks that put out means and then spreads.

    Outputs are twice the targets, [task, row, 2 * out]; the spread is the softplus of its output. The score is the
    squared error of the means.

    Attributes:
        min_std: Least standard deviation, in the targets' units.
    """

    min_std: float = 1e-3

    def __post_init__(self) -> None:
        check_positive(self, "min_std")

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log-likelihood of every task's numbers, without its constant, [task]."""
        mean, raw = self._halves(outputs, targets)
        std = nn.functional.softplus(raw) + self.min_std
        return (((targets - mean) / std).square() / 2 + std.log()).flatten(1).mean(1)

    @torch.no_grad()
    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of the means, [task]."""
        return (self._halves(outputs, targets)[0] - targets).square().flatten(1).mean(1)

    def score_name(self, targets: Tensor) -> str:
        """The name of the score, which is "mse"."""
        return "mse"

    def num_outputs(self, num_targets: int) -> int:
        """A mean and a spread for every number."""
        return 2 * num_targets

    def check_tasks(self, *, is_classes: bool, num_outputs: int) -> None:
        """Raise a ValueError for tasks of classes."""
        if is_classes:
            raise ValueError("a Gaussian likelihood needs tasks of numbers, got classes; take cross-entropy")

    @staticmethod
    def _halves(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        expected = (*targets.shape[:-1], 2 * targets.shape[-1])
        if not targets.is_floating_point() or outputs.shape != expected:
            raise ValueError(
                f"the backbone must put out means and spreads of floats, shape {expected} for targets "
                f"{tuple(targets.shape)}, got {tuple(outputs.shape)}; change its last layer"
            )
        mean, raw = outputs.chunk(2, -1)
        return mean, raw


def as_objective(objective: Objective | TaskObjective) -> Objective:
    """The objective, or that of a loss alone.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(objective, Objective):
        return objective
    # PyTorch's losses take classes on the second axis and return one number for all tasks.
    if isinstance(objective, type | nn.modules.loss._Loss) or not callable(objective):
        raise TypeError(
            "an objective is an object such as CrossEntropy(), or a function from outputs and targets to a loss "
            f"per task, got {shorten(objective)}; metarl.fewshot.objectives has some"
        )
    return ByTargets() if objective is task_losses else GivenLoss(objective)


def is_classification(targets: Tensor) -> bool:
    """Whether targets are classes, that is, integers."""
    return not targets.is_floating_point()


def check_outputs(outputs: Tensor, targets: Tensor) -> None:
    """Raise a ValueError unless outputs [task, row, out] fit the targets."""
    if not is_classification(targets):
        if outputs.shape != targets.shape or outputs.dim() != 3:
            raise ValueError(
                f"the backbone must put out what the targets are, shape {tuple(targets.shape)} "
                f"[task, row, out], got {tuple(outputs.shape)}; change its last layer"
            )
        return
    most = check_indices(targets)
    if targets.dim() != 2:
        raise ValueError(f"targets must be a class index per row, [task, row], got shape {tuple(targets.shape)}")
    if outputs.dim() != 3 or outputs.shape[:2] != targets.shape or outputs.shape[2] <= most:
        raise ValueError(
            f"the backbone must put out {most + 1} numbers for every row, shape {(*targets.shape, most + 1)} for "
            f"classes 0 to {most}, got {tuple(outputs.shape)}; change its last layer, or number classes from 0"
        )


def check_indices(targets: Tensor) -> int:
    """The greatest class index of targets; raises a ValueError if one is negative and not padding."""
    least, most = (int(value) for value in targets.aminmax())
    if least < 0 and bool(((targets < 0) & (targets != IGNORED)).any()):
        raise ValueError(f"class indices must be 0 or more, or {IGNORED} for padding, got {least}")
    return most


def task_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, or mean squared error, of every task's rows, [task].

    Raises:
        ValueError: if the outputs do not fit the targets.
    """
    check_outputs(outputs, targets)
    if not is_classification(targets):
        return (outputs - targets).square().mean((1, 2))
    losses = nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
    return _mean_of_real(losses.view(targets.shape), targets)


@torch.no_grad()
def task_scores(outputs: Tensor, targets: Tensor) -> Tensor:
    """Accuracy in [0, 1], or mean squared error, of every task's rows, [task]; NaN where an output is."""
    check_outputs(outputs, targets)
    if is_classification(targets):
        return _accuracy(outputs, targets)
    return (outputs - targets).square().mean((1, 2))


def score_name(targets: Tensor) -> str:
    """The name of what `task_scores` measures, "accuracy" or "mse"."""
    return "accuracy" if is_classification(targets) else "mse"


def score_range(name: str) -> tuple[float, float]:
    """The least and the largest value that a score of a name can have; of unknown names, any."""
    return {"accuracy": (0.0, 1.0), "mse": (0.0, math.inf)}.get(name, (-math.inf, math.inf))


@torch.no_grad()
def _accuracy(outputs: Tensor, classes: Tensor) -> Tensor:
    """The share of right classes [task, row, *place], [task]."""
    right = (outputs.argmax(-1) == classes).float()
    return _mean_of_real(right.masked_fill(outputs.isnan().any(-1), torch.nan), classes)


def _mean_of_real(values: Tensor, targets: Tensor) -> Tensor:
    """The mean of a task's values [task, row, *place] where classes are not padding, [task]."""
    if targets.is_floating_point():
        return values.flatten(1).mean(1)
    real = (targets != IGNORED).flatten(1)
    return values.flatten(1).masked_fill(~real, 0.0).sum(1) / real.sum(1)


def _as_numbers(outputs: Tensor, targets: Tensor) -> Tensor:
    """Targets of the outputs' shape: themselves, or of classes 1 for the right one and 0 for the others."""
    if not is_classification(targets):
        _check_same(outputs, targets)
        return targets
    _check_classes_of(outputs, targets)
    return nn.functional.one_hot(targets.clamp_min(0), outputs.shape[-1]).to(outputs.dtype)


def _mean_of_answers(values: Tensor, targets: Tensor) -> Tensor:
    """The mean of a task's values of the outputs' shape, but for those of padding, [task]."""
    return _mean_of_real(values.mean(-1) if is_classification(targets) else values, targets)


def _check_classes_of(outputs: Tensor, targets: Tensor) -> None:
    soft = targets.is_floating_point()
    shape = outputs.shape if soft else outputs.shape[:-1]
    most = -1 if soft else check_indices(targets)
    if targets.shape != shape or outputs.shape[-1] < max(2, most + 1):
        raise ValueError(
            f"the backbone must put out a number per class for targets {tuple(targets.shape)}"
            f"{'' if soft else f' of classes up to {most}'}, got {tuple(outputs.shape)}; change its last layer"
        )


def _check_same(outputs: Tensor, targets: Tensor) -> None:
    if outputs.shape != targets.shape or not targets.is_floating_point():
        raise ValueError(
            f"the backbone must put out what the targets are, numbers of shape {tuple(targets.shape)}, got "
            f"{tuple(outputs.shape)} for targets of {targets.dtype}; change its last layer"
        )
