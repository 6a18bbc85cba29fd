"""Losses and scores of tasks: cross-entropy and accuracy for classes, squared error for numbers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

TaskObjective = Callable[[Tensor, Tensor], Tensor]
"""Maps outputs [task, row, out] and targets to a loss per task, [task]."""


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
    num_ways = int(targets.max()) + 1
    if outputs.dim() != 3 or outputs.shape[:2] != targets.shape or outputs.shape[2] < num_ways:
        raise ValueError(
            f"the backbone must put out {num_ways} numbers for every row of a {num_ways}-way task, shape "
            f"{(*targets.shape, num_ways)} [task, row, way], got {tuple(outputs.shape)}; change its last layer"
        )


def task_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, or mean squared error, of every task's rows, [task].

    Raises:
        ValueError: if the outputs do not fit the targets.
    """
    check_outputs(outputs, targets)
    if not is_classification(targets):
        return (outputs - targets).square().mean((1, 2))
    losses = nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view(targets.shape).mean(1)


@torch.no_grad()
def task_scores(outputs: Tensor, targets: Tensor) -> Tensor:
    """Accuracy in [0, 1], or mean squared error, of every task's rows, [task]; NaN where an output is."""
    check_outputs(outputs, targets)
    if is_classification(targets):
        right = (outputs.argmax(-1) == targets).float()
        return right.masked_fill(outputs.isnan().any(-1), torch.nan).mean(1)
    return (outputs - targets).square().mean((1, 2))


def score_name(targets: Tensor) -> str:
    """The name of what `task_scores` measures, "accuracy" or "mse"."""
    return "accuracy" if is_classification(targets) else "mse"
