"""Tasks as vectors: a family's parameters, each scaled from its bounds, for networks that read them."""

from collections.abc import Sequence

import numpy as np

from metarl.tasks import Parameter, Task, TaskFamily


class TaskNumbers:
    """The parameters of a family's tasks as one vector per task, each number scaled from its bounds to [-1, 1].

    Args:
        family: Family whose tasks are read.

    Attributes:
        size: Number of numbers of a task.

    Raises:
        ValueError: if a parameter has no finite bounds.
    """

    def __init__(self, family: TaskFamily) -> None:
        self._family = family
        bounds = [_bounds(family.name, parameter) for parameter in family.parameters]
        self._low = np.concatenate([low for low, _ in bounds] or [np.zeros(0)])
        self._high = np.concatenate([high for _, high in bounds] or [np.zeros(0)])
        self.size = len(self._low)

    def vectors(self, tasks: Sequence[Task]) -> np.ndarray:
        """Parameters of tasks in the family's order; float64 in [-1, 1], [task, number]."""
        stacked = self._family.stack(tasks)
        columns = [stacked[p.name].reshape(len(tasks), max(1, p.size)) for p in self._family.parameters]
        values = np.concatenate([np.zeros((len(tasks), 0)), *columns], axis=1)
        middle, half = (self._high + self._low) / 2, (self._high - self._low) / 2
        vectors: np.ndarray = (values - middle) / np.where(half > 0, half, 1.0)
        return vectors


def _bounds(family: str, parameter: Parameter) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest value of each of the parameter's numbers."""
    low, high = parameter.low, parameter.high
    if parameter.choices:
        low, high = min(parameter.choices), max(parameter.choices)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            f"to be observed, parameter {parameter.name!r} of {family!r} needs finite bounds, "
            f"got [{low:g}, {high:g}]"
        )
    size = max(1, parameter.size)
    return np.full(size, low), np.full(size, high)
