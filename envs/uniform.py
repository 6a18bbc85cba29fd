"""Tasks whose parameters are drawn uniformly and independently: the simplest distribution over any family."""

import math
from collections.abc import Mapping

import numpy as np

from metarl.tasks import Parameter, Task, TaskDistribution, TaskFamily, Value

Bounds = tuple[float, float]


class UniformTasks(TaskDistribution):
    """Tasks of a family, every parameter drawn uniformly from its range, or from its choices.

    Args:
        family: Task family.
        ranges: Pairs (low, high) by parameter name; a parameter that is not named is drawn from all its values.

    Raises:
        ValueError: if a name is no parameter, or a range is not finite or not within the parameter's bounds.
    """

    def __init__(self, family: TaskFamily, ranges: Mapping[str, Bounds] | None = None) -> None:
        self.family = family
        names = [parameter.name for parameter in family.parameters]
        if unknown := [name for name in ranges or {} if name not in names]:
            raise ValueError(
                f"{family.name!r} has no parameter {unknown[0]!r}; it has {', '.join(names) or 'none'}"
            )
        self._ranges = [_range(family.name, p, (ranges or {}).get(p.name)) for p in family.parameters]

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw independent tasks uniformly."""
        if num_tasks < 1:
            raise ValueError(f"expected at least one task to draw, got {num_tasks}")
        pairs = list(zip(self.family.parameters, self._ranges, strict=True))
        return [
            Task(self.family.name, tuple((p.name, _draw(p, r, rng)) for p, r in pairs)) for _ in range(num_tasks)
        ]


def _range(family: str, parameter: Parameter, bounds: Bounds | None) -> Bounds | tuple[float, ...]:
    """The range, or the choices, that a parameter is drawn from."""
    if parameter.choices:
        low, high = bounds or (-math.inf, math.inf)
        choices = tuple(choice for choice in parameter.choices if low <= choice <= high)
        if not choices:
            raise ValueError(f"{family}: no choice of {parameter.name!r} lies in [{low:g}, {high:g}]")
        return choices
    try:
        low, high = (float(bound) for bound in (bounds if bounds is not None else (parameter.low, parameter.high)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{family}: the range of {parameter.name!r} must be (low, high), got {bounds!r}"
        ) from error
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            f"{family}: to be drawn, parameter {parameter.name!r} needs finite bounds, got [{low:g}, {high:g}]; "
            "give it low and high, or a range"
        )
    if not parameter.low <= low <= high <= parameter.high:
        raise ValueError(
            f"{family}: the range of {parameter.name!r} must lie within [{parameter.low:g}, {parameter.high:g}] "
            f"and not be empty, got [{low:g}, {high:g}]"
        )
    return low, high


def _draw(parameter: Parameter, values: tuple[float, ...], rng: np.random.Generator) -> Value:
    size = max(1, parameter.size)
    if parameter.choices:
        drawn = rng.choice(np.array(values), size).tolist()
    else:
        drawn = rng.uniform(values[0], values[1], size).tolist()
    return tuple(drawn) if parameter.size else float(drawn[0])
