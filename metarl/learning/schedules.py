"""Schedules of hyperparameters that are annealed in the course of a run."""

import torch


def linear(start: float, final: float | None, updates: int, iterations: int) -> float:
    """The annealed value after some updates, on a straight line from the first iteration to the last.

    Args:
        start: Value at the first iteration.
        final: Value at the last iteration and after it; None keeps the first value.
        updates: Number of updates that the run has made.
        iterations: Number of iterations of the whole run.
    """
    return start if final is None else start + (final - start) * _done(updates, iterations)


def geometric(start: float, final: float, updates: int, iterations: int) -> float:
    """The annealed value after some updates, changed by the same factor at each; both ends are positive."""
    return float(start * (final / start) ** _done(updates, iterations))


def set_step_size(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Have the optimiser take steps of this size from now on, for all of its parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _done(updates: int, iterations: int) -> float:
    """Fraction of the annealing that is done: 0 at the first iteration, 1 at the last and after it."""
    return min(1.0, updates / max(1, iterations - 1))
