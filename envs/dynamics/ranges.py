"""Named ranges of dynamics parameters that vary between tasks, and changes of them within an episode."""

import math
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np

from metarl.envs.dynamics.fields import FIELDS, Field, Mode
from metarl.runs.configs import LARGEST_NUMBER, MOST_STEPS
from metarl.runs.reading import shorten

Scale = Literal["uniform", "log"]
CHANGE_STEP = "change_step"
AFTER = "after."
"""Begins the name of a parameter that holds from the change on."""


@dataclass(frozen=True)
class Range:
    """One randomised quantity, and the values that it takes in training: a named parameter of the tasks.

    Attributes:
        field: Name of the randomised field; `metarl.envs.dynamics.FIELDS` has all names.
        targets: Names of bodies, geoms, joints, actuators or observed quantities; () for all that make sense.
        low: Least value in training.
        high: Greatest value in training.
        scale: Scale in which values are uniform, linear or logarithmic. Fields of whole numbers are drawn from
            low, low + 1, ..., high.
        mode: Use of the value: it multiplies the nominal one, replaces it or is added to it; None for what is
            usual for the field (a factor where there is a nominal value).
        each: Whether every target has its own number, instead of one for all targets.
        ring: Width of the ring outside the training range, on either side, as a fraction of the range's width (in
            the range's scale). Extrapolation is measured there.
        name: Name of the task parameter; made of field and targets by default.
    """

    field: str
    targets: tuple[str, ...]
    low: float
    high: float
    scale: Scale = "uniform"
    mode: Mode | None = None
    each: bool = False
    ring: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        if self.field not in FIELDS:
            raise ValueError(f"unknown field {self.field!r}; known: {', '.join(FIELDS)}")
        if isinstance(self.targets, str):
            raise ValueError(f"{self._label}: targets must be a tuple of names, got {self.targets!r}")
        object.__setattr__(self, "targets", tuple(self.targets))
        if repeated := [target for target in self.targets if self.targets.count(target) > 1]:
            raise ValueError(f"{self._label}: targets must differ from each other, got {repeated[0]!r} twice")
        object.__setattr__(self, "mode", self.mode or self._field.modes[0])
        object.__setattr__(self, "name", self.name or ".".join(filter(None, (self.field, "+".join(self.targets)))))
        if self.mode not in self._field.modes:
            allowed = " or ".join(self._field.modes)
            raise ValueError(f"{self._label}: mode must be {allowed}, got {self.mode!r}")
        if self.scale not in ("uniform", "log"):
            raise ValueError(f"{self._label}: scale must be uniform or log, got {self.scale!r}")
        for name in ("low", "high", "ring"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_NUMBER:
                raise ValueError(f"{self._label}: {name} must be a finite number, got {shorten(value)}")
            object.__setattr__(self, name, float(value))
        self._check_values()

    def _check_values(self) -> None:
        if self.low > self.high:
            raise ValueError(f"{self._label}: low must not be above high, got [{self.low:g}, {self.high:g}]")
        if self.ring < 0.0:
            raise ValueError(f"{self._label}: ring must be 0 or more, got {self.ring:g}")
        if self.scale == "log" and self.low <= 0.0:
            raise ValueError(f"{self._label}: a log scale needs low above 0, got {self.low:g}")
        if self.integer and (self.scale == "log" or self.low % 1 or self.high % 1):
            bounds = f"[{self.low:g}, {self.high:g}] {self.scale}"
            raise ValueError(f"{self._label}: bounds must be whole numbers on a uniform scale, got {bounds}")
        if self.integer and self.outer_high > MOST_STEPS:
            highest = f"high plus the ring must be at most {MOST_STEPS:,}"
            raise ValueError(f"{self._label}: {highest} steps, got {self.outer_high:g}")
        if self.mode == "offset":  # depends on the nominal values: the family checks it
            return
        lowest, strict = self._field.lowest, self._field.strict
        for name, value in (("low", self.low), ("low minus the ring", self.outer_low)):
            if value < lowest or (strict and value == lowest):
                least = f"above {lowest:g}" if strict else f"{lowest:g} or more"
                raise ValueError(f"{self._label}: {name} must be {least}, got {value:g}")

    @property
    def _field(self) -> Field:
        return FIELDS[self.field]

    @property
    def _label(self) -> str:
        return f"range {self.name or self.field!r}"

    @property
    def integer(self) -> bool:
        """Whether only whole numbers are drawn."""
        return self._field.integer

    @property
    def value_mode(self) -> Mode:
        """The mode of the values: the field's usual one if none is set."""
        return cast(Mode, self.mode)

    @property
    def outer_low(self) -> float:
        """Least value that a task may have: the ring's lower end, within physics."""
        lowest, strict = self._field.lowest, self._field.strict
        outer = self._beyond(-1.0)
        return outer if strict or self.mode == "offset" else min(max(outer, lowest), self.low)

    @property
    def outer_high(self) -> float:
        """Greatest value that a task may have."""
        return self._beyond(1.0)

    def _beyond(self, side: float) -> float:
        edge = self.high if side > 0 else self.low
        if self.ring == 0.0:
            return edge
        if self.scale == "log":
            return edge * math.exp(side * self.ring * math.log(self.high / self.low))
        width = self.ring * (self.high - self.low)
        return edge + side * (math.ceil(width) if self.integer else width)

    def inside(self, values: np.ndarray) -> np.ndarray:
        """Whether values lie in the training range, bool, of the same shape."""
        within: np.ndarray = (values >= self.low) & (values <= self.high)
        return within

    def cells(self, values: np.ndarray, count: int) -> np.ndarray:
        """The index of the cell of every value, of `count` equal cells of the range, int64 of the same shape.

        Whole numbers are cells of their own, counted round; a range of one value has one cell.
        """
        if self.low == self.high:
            return np.zeros(values.shape, dtype=np.int64)
        if self.integer:
            return (values - self.low).astype(np.int64) % count
        low, high, at = self.low, self.high, values
        if self.scale == "log":
            low, high, at = math.log(low), math.log(high), np.log(values)
        indices: np.ndarray = np.clip((count * (at - low) / (high - low)).astype(np.int64), 0, count - 1)
        return indices

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Draw values from the training range, float64."""
        return self._between(self.low, self.high, shape, rng)

    def draw_outside(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Values of the ring, each side as likely as it is wide; of the training range where there is no ring."""
        below, above = self._width(self.outer_low, self.low), self._width(self.high, self.outer_high)
        if below + above == 0.0:
            return self.draw(shape, rng)
        step = 1.0 if self.integer else 0.0
        lower = self._between(self.outer_low, self.low - step * (below > 0), shape, rng)
        upper = self._between(self.high + step * (above > 0), self.outer_high, shape, rng)
        # The edges belong to the training range.
        lower = np.minimum(lower, np.nextafter(self.low, -np.inf))
        upper = np.maximum(upper, np.nextafter(self.high, np.inf))
        outside: np.ndarray = np.where(rng.random(shape) * (below + above) < below, lower, upper)
        return outside

    def _width(self, low: float, high: float) -> float:
        return math.log(high / low) if self.scale == "log" else high - low

    def _between(self, low: float, high: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        if self.integer:
            return rng.integers(int(low), int(high) + 1, shape).astype(np.float64)
        if self.scale == "log":
            return np.clip(np.exp(rng.uniform(math.log(low), math.log(high), shape)), low, high)
        return np.clip(rng.uniform(low, high, shape), low, high)


@dataclass(frozen=True)
class Change:
    """A change of parameters within an episode, once: a payload is dropped, a motor weakens.

    Attributes:
        ranges: Ranges of the values from the change on; all other values stay the same. They are relative to the
            nominal model, not to the values before. Their parameters are named "after." and the range's name. A
            target that moves has the name and axes of one in the family's ranges.
        first_step: Earliest step that is simulated with the new values, counted from 0.
        last_step: Latest step at which the simulation with the new values starts, counted from 0.
    """

    ranges: tuple[Range, ...]
    first_step: int
    last_step: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranges", tuple(self.ranges))
        if not self.ranges:
            raise ValueError("a change must have at least one range")
        Range(CHANGE_STEP, (), self.first_step, self.last_step)


@dataclass(frozen=True)
class Randomization:
    """All that varies between the tasks of a family.

    Attributes:
        ranges: Ranges of the task parameters, one each.
        change: Change within an episode; None for no change.
    """

    ranges: tuple[Range, ...]
    change: Change | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranges", tuple(self.ranges))
        if not self.ranges and self.change is None:
            raise ValueError("a randomization must have at least one range")
        names = [r.name for r in self.parameters]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two ranges are named {repeated[0]!r}; give one of them another name")
        for r in (*self.ranges, *(self.change.ranges if self.change else ())):
            if r.field == CHANGE_STEP:
                raise ValueError("change_step is no field of a range: give Change its first_step and last_step")
        self._check_targets()

    def _check_targets(self) -> None:
        ranges = [r for r in self.parameters if r.field == "target"]
        for r in ranges:
            if wrong := [axis for axis in r.targets if axis not in ("x", "y", "z")]:
                raise ValueError(
                    f"range {r.name!r}: the targets of field 'target' are axes, x, y or z, got {wrong[0]!r}"
                )
        axes = {r.name: r.targets for r in ranges}
        for name, after in self.moved_targets.items():
            if axes.get(name) != axes[after]:
                there = f"has the axes {list(axes[name])}" if name in axes else "is not there"
                raise ValueError(
                    "change: a target that moves must be in ranges too, with the same name and axes; "
                    f"{name!r} {there}"
                )

    @property
    def after(self) -> tuple[Range, ...]:
        """The ranges that hold from the change on, under the names of their parameters."""
        return tuple(replace(r, name=AFTER + r.name) for r in (self.change.ranges if self.change else ()))

    @property
    def parameters(self) -> tuple[Range, ...]:
        """A range for every parameter of the tasks, that of the change's step included."""
        if self.change is None:
            return self.ranges
        step = Range(CHANGE_STEP, (), self.change.first_step, self.change.last_step)
        return (*self.ranges, step, *self.after)

    @property
    def target_sizes(self) -> dict[str, int]:
        """Number of numbers of every target, by name: one per axis among its targets; 0 for a plain number."""
        return {r.name: len(r.targets) for r in self.ranges if r.field == "target"}

    @property
    def moved_targets(self) -> dict[str, str]:
        """Parameters that replace targets from the change on, by the names of the targets."""
        return {r.name.removeprefix(AFTER): r.name for r in self.after if r.field == "target"}
