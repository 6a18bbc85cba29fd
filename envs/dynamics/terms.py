"""Rewards as weighted sums of named terms, and ranges of health: what a family file can say without code.

Terms are computed for all rows at once from the positions of bodies and sites after a step and from their mean
velocities over it, which are those of `Motion.positions` and `Motion.velocities`.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import mujoco
import numpy as np

from metarl.envs.mujoco.locomotion import Motion

Kind = Literal["position", "velocity", "distance", "height", "upright", "control", "contact", "alive"]
Goal = str | float | tuple[str | float, ...] | None
"""Where something should be: a body or site, a task parameter, or numbers and task parameters, one per axis."""
UPRIGHT = ":upright"
"""Ends the name of the sensor of a body's own vertical axis."""
_AXES = {"x": 0, "y": 1, "z": 2}


@dataclass(frozen=True)
class Term:
    """One term of a reward: a number of every row, and its weight.

    Attributes:
        term: Kind of the term. position, velocity and height are a coordinate of `of`, or its absolute difference
            from `to`; distance is the Euclidean one between `of` and `to`; upright is the cosine of the tilt of a
            body's own z axis; control is the sum of squared actions; contact is the sum of the squared
            torques (N m) and forces (N) by contacts on the body `of`, or on all bodies, in the last physics step,
            each component first clipped to [-clip, clip], as in Gymnasium's Ant; alive is 1.
        of: Name of a body or site.
        to: Body, site, task parameter, or numbers and task parameters, one per axis.
        axes: Axes that count, such as "x" or "xy"; by default x for position and velocity, xyz for distance.
        clip: Bound of the components of contact, N and N m, above 0.
        weight: Factor of the term in the reward.
        name: Name of the term in the infos, after "reward_"; by default the kind and `of`.
    """

    term: Kind
    of: str = ""
    to: Goal = None
    axes: str = ""
    clip: float = 1.0
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if self.term not in get_args(Kind):
            raise ValueError(f"unknown term {self.term!r}{nearest(str(self.term), get_args(Kind))}")
        if isinstance(self.to, list):
            object.__setattr__(self, "to", tuple(self.to))
        usual = {"position": "x", "velocity": "x", "height": "z", "distance": "xyz"}.get(self.term, "")
        if self.axes and self.term not in ("position", "velocity", "distance"):
            raise ValueError(f"term {self.term!r} has no axes, got {self.axes!r}")
        object.__setattr__(self, "axes", self.axes or usual)
        if set(self.axes) - set(_AXES) or len(set(self.axes)) < len(self.axes):
            raise ValueError(f"term {self.term!r}: axes must be some of x, y and z, got {self.axes!r}")
        if self.term in ("position", "velocity") and len(self.axes) != 1:
            raise ValueError(f"term {self.term!r} needs one axis, got {self.axes!r}; give one term per axis")
        if self.term != "contact" and (self.term in ("control", "alive")) != (not self.of):
            what = "takes no" if self.of else "needs the name of a body or site as"
            raise ValueError(f"term {self.term!r} {what} of")
        if self.to is None and self.term == "distance":
            raise ValueError(
                "term 'distance' needs to: a body, a site, a task parameter, or a list of them by axis"
            )
        if self.to is not None and self.term in ("upright", "control", "contact", "alive"):
            raise ValueError(f"term {self.term!r} takes no to, got {self.to!r}")
        if isinstance(self.to, tuple) and len(self.to) != len(self.axes):
            raise ValueError(f"term {self.term!r}: to must have a number for each of {self.axes}, got {self.to!r}")
        if self.clip != 1.0 and self.term != "contact":
            raise ValueError(f"term {self.term!r} takes no clip, got {self.clip:g}")
        if not self.clip > 0.0:
            raise ValueError(f"term {self.term!r}: clip must be above 0, got {self.clip:g}")
        if not math.isfinite(self.weight):
            raise ValueError(f"term {self.term!r}: weight must be finite, got {self.weight}")
        object.__setattr__(self, "name", self.name or "_".join(filter(None, (self.term, self.of))))

    @property
    def measured(self) -> str:
        """Name of the sensor that the term reads; empty for none."""
        if self.term == "contact":
            return ""
        return self.of + UPRIGHT if self.term == "upright" else self.of

    def values(self, motion: Motion, actions: np.ndarray) -> np.ndarray:
        """The term without its weight, [row]."""
        if self.term == "control":
            return np.square(actions).sum(1)  # type: ignore[no-any-return]
        if self.term == "contact":
            felt = [motion.contacts[self.of]] if self.of else list(motion.contacts.values())
            return np.square(np.clip(felt, -self.clip, self.clip)).sum((0, 2))  # type: ignore[no-any-return]
        if self.term == "alive":
            return np.ones(len(actions))
        if self.term == "upright":
            return motion.positions[self.measured][:, 2]
        columns = [_AXES[axis] for axis in self.axes]
        source = motion.velocities if self.term == "velocity" else motion.positions
        own = source[self.of][:, columns]
        if self.to is None:
            return own[:, 0]
        offset = own - _goal(self.to, columns, source, motion.params)
        return np.sqrt(np.square(offset).sum(1))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class TermReward:
    """A reward that is a weighted sum of terms.

    Attributes:
        terms: Terms of the sum; their names differ.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        if not self.terms:
            raise ValueError("a reward needs at least one term")
        names = [term.name for term in self.terms]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two terms are named {repeated[0]!r}; give one of them another name")

    def __call__(self, motion: Motion, actions: np.ndarray) -> dict[str, np.ndarray]:
        """The weighted terms of every row, by name, each [row]."""
        return {f"reward_{term.name}": term.weight * term.values(motion, actions) for term in self.terms}


@dataclass(frozen=True)
class Health:
    """A range that a height or an uprightness must stay in; the episode ends where it is left.

    Attributes:
        term: Quantity, as in `Term`: height or upright.
        of: Name of a body or site.
        low: Least healthy value, metres or a cosine.
        high: Greatest healthy value.
    """

    term: Literal["height", "upright"]
    of: str
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if self.term not in ("height", "upright"):
            raise ValueError(f"a healthy range is of height or upright, got {self.term!r}")
        if not self.low < self.high:
            raise ValueError(f"healthy: low must be below high, got [{self.low:g}, {self.high:g}]")

    @property
    def measured(self) -> str:
        """Name of the sensor that the range reads."""
        return Term(self.term, self.of).measured

    def kept(self, motion: Motion) -> np.ndarray:
        """Whether rows are within the range, bool [row]."""
        values = motion.positions[self.measured][:, 2]
        within: np.ndarray = (values >= self.low) & (values <= self.high)
        return within


def measured_names(terms: Sequence[Term], health: Sequence[Health], params: Sequence[str]) -> tuple[str, ...]:
    """Names of the sensors that terms and ranges of health read, apart from the task parameters."""
    names = [term.measured for term in terms if term.measured] + [each.measured for each in health]
    names += [term.to for term in terms if isinstance(term.to, str) and term.to not in params]
    return tuple(dict.fromkeys(names))


def check_goals(terms: Sequence[Term], sizes: Mapping[str, int]) -> None:
    """Raise a ValueError unless the task parameters that terms name fit their axes.

    Args:
        terms: Terms of a reward.
        sizes: Size of every task parameter, 0 for a plain number.
    """
    for term in terms:
        for name in term.to if isinstance(term.to, tuple) else ():
            if isinstance(name, str) and sizes.get(name, -1) != 0:
                meant = nearest(name, [key for key, size in sizes.items() if size == 0])
                raise ValueError(f"term {term.name!r}: no task parameter {name!r} of one number in ranges{meant}")
        if isinstance(term.to, str) and term.to in sizes and max(1, sizes[term.to]) != len(term.axes):
            numbers = max(1, sizes[term.to])
            raise ValueError(f"term {term.name!r}: {term.to!r} has {numbers} numbers, its axes are {term.axes!r}")


def check_contacts(terms: Sequence[Term], bodies: Sequence[str]) -> None:
    """Raise a ValueError unless the bodies whose contacts terms read are in the model."""
    for term in terms:
        if term.term == "contact" and term.of and term.of not in bodies:
            raise ValueError(f"term {term.name!r}: the model has no body {term.of!r}{nearest(term.of, bodies)}")


def add_sensors(
    spec: mujoco.MjSpec, names: Sequence[str], model: mujoco.MjModel, params: Sequence[str] = ()
) -> None:
    """Add a sensor to a model for every name: of a position, or of a body's own vertical axis.

    Args:
        spec: Model to add to.
        names: Names of bodies and sites, or of bodies and `UPRIGHT`.
        model: The same model compiled, with its names.
        params: Names of task parameters that a misspelt name may have meant.

    Raises:
        ValueError: if the model has no such body or site; the message suggests the nearest name.
    """
    bodies = [model.body(i).name for i in range(1, model.nbody)]
    sites = [model.site(i).name for i in range(model.nsite)]
    for name in names:
        element = name.removesuffix(UPRIGHT)
        if element not in (*bodies, *sites):
            raise ValueError(
                f"the model has no body or site {element!r}{nearest(element, (*bodies, *sites, *params))}"
            )
        of_site = element not in bodies
        spec.add_sensor(
            name=SENSOR + name,
            type=mujoco.mjtSensor.mjSENS_FRAMEZAXIS if name != element else mujoco.mjtSensor.mjSENS_FRAMEPOS,
            objtype=mujoco.mjtObj.mjOBJ_SITE if of_site else mujoco.mjtObj.mjOBJ_XBODY,
            objname=element,
        )


SENSOR = "metarl:"
"""Begins the names of the sensors that are added to a model."""


def nearest(name: str, known: Sequence[str]) -> str:
    """A suggestion to end a message with: the nearest of the known names, or all of them."""
    close = difflib.get_close_matches(name, [k for k in known if k], 1)
    return (
        f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(k for k in known if k) or 'none'}"
    )


def _goal(
    to: str | float | tuple[str | float, ...],
    columns: list[int],
    source: Mapping[str, np.ndarray],
    params: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Where something should be, [row, axis] or [1, axis]."""
    if isinstance(to, str):
        if to in params:
            return params[to].reshape(len(params[to]), -1)
        return source[to][:, columns]
    numbers = to if isinstance(to, tuple) else (to,)
    parts = [params[part] if isinstance(part, str) else np.array([part]) for part in numbers]
    return np.stack(np.broadcast_arrays(*parts), axis=1)
