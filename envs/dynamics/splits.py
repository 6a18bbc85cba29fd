"""Distributions over dynamics tasks that share no task: training, interpolation and extrapolation."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from metarl.envs.dynamics.family import DynamicsFamily
from metarl.runs.configs import Configuration
from metarl.tasks import Task, TaskDistribution, Value

Region = Literal["range", "train", "interpolation", "extrapolation"]
_CELLS = 5
_HELD_OUT = 2
_BATCHES = 200


def region_of(family: DynamicsFamily, task: Task) -> Region:
    """The region of a task: train, interpolation (held-out cells of the ranges) or extrapolation (outside).

    Every parameter's training range is cut into five cells, in its own scale. A task is held out if the numbers
    of its cells sum to 2 modulo 5: a fifth of all combinations. With two or more numbers each of them takes all
    its values in training, and what is new is their combination.
    """
    values = {name: np.asarray([value]) for name, value in task.params}
    inside, held_out = _located(family, values, 1)
    return ("interpolation" if held_out[0] else "train") if inside[0] else "extrapolation"


@dataclass(frozen=True)
class DynamicsTasks(Configuration, TaskDistribution):
    """Tasks of a family, every parameter drawn from its range independently.

    Attributes:
        family: Family whose ranges the parameters are drawn from.
        region: Part of the ranges: "range" is the whole training range; train and interpolation are its cells for
            training and the held-out ones; in extrapolation every parameter with a ring lies in its ring.
    """

    family: DynamicsFamily
    region: Region = "range"

    def __post_init__(self) -> None:
        ranges = self.family.randomization.parameters
        if self.region == "extrapolation" and all(r.outer_low == r.low and r.outer_high == r.high for r in ranges):
            raise ValueError(f"{self.family.name}: extrapolation needs a range with a ring, and none has one")

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw independent tasks of the region.

        Raises:
            ValueError: If the ranges are too narrow to hold tasks out.
        """
        if num_tasks < 1:
            raise ValueError(f"expected at least one task to draw, got {num_tasks}")
        tasks: list[Task] = []
        for _ in range(_BATCHES):
            tasks += self._draw(num_tasks, rng)
            if len(tasks) >= num_tasks:
                return tasks[:num_tasks]
        raise ValueError(f"{self.family.name}: the ranges have too few values for a region {self.region!r}")

    def _draw(self, count: int, rng: np.random.Generator) -> list[Task]:
        """Up to `count` tasks: those of as many draws that lie in the region."""
        sizes = {p.name: p.size for p in self.family.parameters}
        values = {}
        for r in self.family.randomization.parameters:
            shape = (count, max(1, sizes[r.name]))
            values[r.name] = r.draw_outside(shape, rng) if self.region == "extrapolation" else r.draw(shape, rng)
        selected = np.ones(count, dtype=np.bool_)
        if self.region in ("train", "interpolation"):
            selected = _located(self.family, values, count)[1] == (self.region == "interpolation")
        lists = {name: array.tolist() for name, array in values.items()}
        return [
            Task(self.family.name, tuple((name, _value(column[i], sizes[name])) for name, column in lists.items()))
            for i in np.flatnonzero(selected).tolist()
        ]


@dataclass(frozen=True)
class DynamicsSplit:
    """Three distributions over tasks of one family that share no task.

    Attributes:
        train: Tasks to train on.
        interpolation: Tasks with new combinations of values inside the training ranges.
        extrapolation: Tasks with values outside the training ranges.
    """

    train: TaskDistribution
    interpolation: TaskDistribution
    extrapolation: TaskDistribution


def split(family: DynamicsFamily) -> DynamicsSplit:
    """The split of a family whose ranges have rings.

    Raises:
        ValueError: If no range has a ring.
    """
    return DynamicsSplit(
        DynamicsTasks(family, "train"),
        DynamicsTasks(family, "interpolation"),
        DynamicsTasks(family, "extrapolation"),
    )


def _located(family: DynamicsFamily, values: dict[str, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether parameters [task, ...] lie in the training ranges, and in held-out cells; two bool [task]."""
    inside, total = np.ones(count, dtype=np.bool_), np.zeros(count, dtype=np.int64)
    for r in family.randomization.parameters:
        flat = values[r.name].reshape(count, -1)
        inside &= r.inside(flat).all(1)
        total += r.cells(flat, _CELLS).sum(1)
    return inside, total % _CELLS == _HELD_OUT


def _value(numbers: list[float], size: int) -> Value:
    return tuple(numbers) if size else numbers[0]
