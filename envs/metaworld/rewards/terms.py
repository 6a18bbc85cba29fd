"""Terms that rewards of several of Meta-World's environments share, for all rows at once.

Every function computes what the package computes for one row, in the package's order. A square is x * x here; the
package squares numbers by C's pow, which rounds to the other side once in a thousand times: results agree to about
1e-15 of their size.
"""

from typing import Literal, NamedTuple

import numpy as np

from metarl.envs.metaworld.rows import Rows, norm

Margin = np.ndarray | float
_LONG_TAIL = float(np.sqrt(1 / 0.1 - 1))
_GAUSSIAN = float(np.sqrt(-2 * np.log(0.1)))


class Outcome(NamedTuple):
    """Rewards of a step, float64 [row], and whether it was a success, bool [row]."""

    rewards: np.ndarray
    successes: np.ndarray


def tolerance(
    x: np.ndarray,
    upper: float,
    margin: Margin,
    *,
    lower: float = 0.0,
    sigmoid: Literal["long_tail", "gaussian"] = "long_tail",
) -> np.ndarray:
    """1 within the bounds, falling to 0.1 at the distance `margin` outside, [row].

    Raises:
        ValueError: If a margin is negative, as in the package.
    """
    least = margin if isinstance(margin, float) else margin.min()
    if least < 0:
        raise ValueError(f"`margin` must be non-negative. Current value: {least}")
    distances = x - upper if lower == 0.0 and x.min() >= 0 else np.maximum(lower - x, x - upper)
    margins = margin if least > 0 else np.where(margin > 0, margin, 1.0)
    if sigmoid == "long_tail":
        scaled = distances / margins * _LONG_TAIL
        outside = 1 / (scaled * scaled + 1)
    else:
        scaled = distances / margins * _GAUSSIAN
        outside = np.exp(-0.5 * (scaled * scaled))
    if not least > 0:
        outside = np.where(margin > 0, outside, 0.0)
    result: np.ndarray = np.where(distances <= 0, 1.0, outside)
    return result


def hamacher(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamacher's product of numbers in [0, 1]: both must be high, [row].

    Raises:
        ValueError: If a number is not in [0, 1], as in the package.
    """
    if not (min(a.min(), b.min()) >= 0 and max(a.max(), b.max()) <= 1):
        raise ValueError(f"factors must be between 0 and 1, got {a} and {b}")
    products = a * b
    denominators = a + b - products
    if not denominators.min() > 0:  # where both are zero
        denominators = np.where(denominators > 0, denominators, 1.0)
    result: np.ndarray = products / denominators
    return result


def effort(rows: Rows, most: float = 1.0) -> np.ndarray:
    """Effort with which the gripper closes, as a share of `most`, [row]."""
    share: np.ndarray = np.minimum(np.maximum(0, rows.actions[:, 3]), most) / most
    return share


def caging(
    rows: Rows,
    position: np.ndarray,
    *,
    radius: float,
    pad: float,
    xz: float,
    reach: float = 0.01,
    most_effort: float = 1.0,
    density: Literal["low", "medium", "high"] = "low",
    initial: str = "obj_init_pos",
) -> np.ndarray:
    """Reward for having an object between the fingers and closing them, in [0, 1], [row].

    Args:
        rows: Rows of the step.
        position: Positions of the object, metres [row, 3].
        radius: Radius of the object, metres.
        pad: Distance of a finger's pad to the object that counts as near, metres.
        xz: Distance across the fingers that counts as near, metres.
        reach: Distance between fingers and object that counts as reached, for medium density, metres.
        most_effort: Effort of the gripper that counts as closed.
        density: Part of the reward that approaching the object earns.
        initial: Name under which the reset noted the object's first position.
    """
    start, tcp_start = rows.noted(initial), rows.noted("init_tcp")
    sides = []
    for name in ("leftpad", "rightpad"):
        y = rows.body(name)[:, 1]
        margin = np.abs(np.abs(y - start[:, 1]) - pad)
        sides.append(tolerance(np.abs(y - position[:, 1]), pad, margin, lower=radius))
    caged_y = hamacher(*sides)
    margin = norm(start[:, ::2] - tcp_start[:, ::2]) - xz
    caged_xz = tolerance(norm(rows.tcp[:, ::2] - position[:, ::2]), xz, margin)
    caged = hamacher(caged_y, caged_xz)
    gripped = np.where(caged > 0.97, effort(rows, most_effort), 0.0)
    both = hamacher(caged, gripped)
    result: np.ndarray = both
    if density == "high":
        result = (both + caged) / 2
    if density == "medium":
        margin = np.abs(norm(start - tcp_start) - reach)
        reached = tolerance(norm(position - rows.tcp), reach, margin)
        result = (both + reached) / 2
    return result


def pinching(rows: Rows, position: np.ndarray, *, radius: float, grip: float, xz: float) -> np.ndarray:
    """Reward for having an object between the pads, and for having the pads near it, in [0, 1], [row].

    The package's margins are distances to the pads at the start of the episode, but the arrays that it keeps show
    where the pads are now.

    Args:
        rows: Rows of the step.
        position: Positions of the object, metres [row, 3].
        radius: Radius of the object, metres.
        grip: Distance from the object's surface to a pad that counts as gripped, metres.
        xz: Distance across the fingers that counts as near, metres.
    """
    pad = 0.05
    left, right = rows.body("leftpad")[:, 1], rows.body("rightpad")[:, 1]
    y = position[:, 1]
    margins = [np.abs(np.abs(y - side) - pad) for side in (right, left)]
    gaps = [y - right, left - y]
    caged_y = hamacher(*[tolerance(g, pad, m, lower=radius) for g, m in zip(gaps, margins, strict=True)])
    gripped_y = hamacher(
        *[tolerance(g, radius + grip, m, lower=radius) for g, m in zip(gaps, margins, strict=True)]
    )
    caged = hamacher(caged_y, _across(rows, position, xz))
    gripped = np.where(caged > 0.95, gripped_y, 0.0)
    result: np.ndarray = (caged + gripped) / 2
    return result


def picking(rows: Rows, position: np.ndarray) -> np.ndarray:
    """The reward of that kind that pick-place has, in [0, 1], [row]."""
    pad, radius = 0.05, 0.015
    left, right = rows.body("leftpad")[:, 1], rows.body("rightpad")[:, 1]
    y = position[:, 1]
    caged_right = tolerance(y - right, pad, np.abs(np.abs(y - right) - pad), lower=radius)
    caged_left = tolerance(left - y, pad, np.abs(np.abs(y - left) - pad), lower=radius)
    caged = hamacher(hamacher(caged_left, caged_right), _across(rows, position, 0.005))
    gripped = np.where(caged > 0.97, effort(rows), 0.0)
    result: np.ndarray = (hamacher(caged, gripped) + caged) / 2
    return result


def _across(rows: Rows, position: np.ndarray, xz: float) -> np.ndarray:
    """How near the fingers are to an object across their own direction, in [0, 1], [row]."""
    margin = norm(_flat(rows.noted("obj_init_pos")) - _flat(rows.noted("init_tcp"))) - xz
    return tolerance(norm(_flat(rows.tcp) - _flat(position)), xz, margin)


def _flat(positions: np.ndarray) -> np.ndarray:
    flat = positions.copy()
    flat[:, 1] = 0.0
    return flat


def upright(rows: Rows, ideal: tuple[float, float, float, float], most: float) -> np.ndarray:
    """1 where the first object has an ideal rotation, falling to 0 at a distance of `most`, [row]."""
    error = norm(rows.observations[:, 7:11] - np.array(ideal))
    result: np.ndarray = np.maximum(1.0 - error / most, 0.0)
    return result


def above(height: np.ndarray, floor: np.ndarray, margin: Margin) -> np.ndarray:
    """1 where a height is not below its floor, less below it, [row]."""
    over = height >= floor
    below = np.where(over, 0.0, np.maximum(floor - height, 0.0))
    result: np.ndarray = np.where(over, 1.0, tolerance(below, 0.01, np.where(over, 1.0, margin)))
    return result


def floor_around(radius: np.ndarray, threshold: float, slope: float, height: float) -> np.ndarray:
    """Least height at a distance from a place to come down at: zero within the threshold, [row]."""
    outside = radius > threshold
    logs = np.log(np.where(outside, radius - threshold, 1.0))
    result: np.ndarray = np.where(outside, slope * logs + height, 0.0)
    return result


def near(
    distance: np.ndarray, most: Margin, scale: float = 1000.0, c2: float = 0.01, c3: float = 0.001
) -> np.ndarray:
    """Reward of version 1 for a small distance to a goal, [row]."""
    squares = -(distance * distance)
    result: np.ndarray = 1000 * (most - distance) + scale * (np.exp(squares / c2) + np.exp(squares / c3))
    return result


def reach_then(rows: Rows, reward: np.ndarray, *, finger: Literal["both", "left"] = "both") -> np.ndarray:
    """Reward of version 1: approach the object, and from 5 cm on earn another reward, [row]."""
    distance = norm(rows.object - (rows.tcp if finger == "both" else rows.left_tip))
    result: np.ndarray = -distance + np.where(distance < 0.05, reward, 0.0)
    return result
