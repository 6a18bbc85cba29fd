"""Rewards of reaching, and of objects that are pushed, swept or slid over the table."""

import numpy as np

from metarl.envs.metaworld.rewards.terms import Outcome, caging, hamacher, near, pinching, reach_then, tolerance
from metarl.envs.metaworld.rows import Rows, norm

_RADIUS = 0.05


def reach(rows: Rows) -> Outcome:
    """Reach of version 2, with a wall or without."""
    distance = norm(rows.tcp - rows.target)
    in_place = tolerance(distance, _RADIUS, norm(rows.noted("hand_init_pos") - rows.target))
    return Outcome(10 * in_place, distance <= 0.05)


def reach_old(rows: Rows) -> Outcome:
    """Reach of version 1, with a wall or without."""
    distance = norm(rows.tcp - rows.target)
    most = rows.noted("maxReachDist")
    squares = -(distance * distance)
    rewards = 1000 * (most - distance) + 1000 * (np.exp(squares / 0.01) + np.exp(squares / 0.001))
    return Outcome(np.maximum(rewards, 0), distance <= 0.05)


def push(rows: Rows) -> Outcome:
    """Push of version 2."""
    left = norm(rows.object - rows.target)
    in_place = tolerance(left, _RADIUS, norm(rows.noted("obj_init_pos") - rows.target))
    grasped = caging(rows, rows.object, radius=0.015, pad=0.05, xz=0.005, density="high")
    rewards = 2 * grasped
    held = (norm(rows.object - rows.tcp) < 0.02) & (rows.opened > 0)
    rewards = np.where(held, rewards + (1.0 + rewards + 5.0 * in_place), rewards)
    return Outcome(np.where(left < _RADIUS, 10.0, rewards), left <= 0.05)


def push_back(rows: Rows) -> Outcome:
    """Push-back of version 2."""
    left = norm(rows.object - rows.target)
    start = norm(rows.noted("obj_init_pos") - rows.target)
    in_place = tolerance(left, _RADIUS, start)
    grasped = pinching(rows, rows.object, radius=0.007, grip=0.003, xz=0.01)
    rewards = hamacher(grasped, in_place)
    held = (norm(rows.object - rows.tcp) < 0.01) & (rows.opened > 0) & (rows.opened < 0.55)
    moved = held & (start - left > 0.01)
    rewards = np.where(moved, rewards + (1.0 + 5.0 * in_place), rewards)
    return Outcome(np.where(left < _RADIUS, 10.0, rewards), left <= 0.07)


def push_wall(rows: Rows) -> Outcome:
    """Push-wall of version 2: first to the side of the wall, then to the goal."""
    obj, start = rows.object, rows.noted("obj_init_pos")
    midpoint = obj.copy()
    midpoint[:, 0], midpoint[:, 1] = -0.05, 0.77
    scale = np.array([3.0, 1.0, 1.0])
    first = tolerance(norm((obj - midpoint) * scale), _RADIUS, norm((start - midpoint) * scale))
    left = norm(obj - rows.target)
    second = tolerance(left, _RADIUS, norm(start - rows.target))
    grasped = caging(rows, obj, radius=0.015, pad=0.05, xz=0.005, density="high")
    rewards = 2 * grasped
    held = (norm(obj - rows.tcp) < 0.02) & (rows.opened > 0)
    rewards = np.where(held, rewards + 1.0 + 4.0 * first, rewards)
    rewards = np.where(held & (obj[:, 1] > 0.75), 2 * grasped + 1.0 + 4.0 + 3.0 * second, rewards)
    return Outcome(np.where(left < _RADIUS, 10.0, rewards), left <= 0.07)


def push_old(rows: Rows) -> Outcome:
    """Push of version 1."""
    return _push_old(rows, 0.05)


def push_far_old(rows: Rows) -> Outcome:
    """Push-back, push-wall and soccer of version 1, which are a success from 7 cm on."""
    return _push_old(rows, 0.07)


def _push_old(rows: Rows, success: float) -> Outcome:
    left = norm(rows.object[:, :2] - rows.target[:, :2])
    reward = np.maximum(near(left, rows.noted("maxPushDist")), 0)
    return Outcome(reach_then(rows, reward), left <= success)


def soccer(rows: Rows) -> Outcome:
    """Soccer of version 2; beside the goal, passing its line costs."""
    ball = rows.object
    scale = np.array([3.0, 1.0, 1.0])
    left = norm((ball - rows.target) * scale)
    in_place = tolerance(left, 0.07, norm((ball - rows.noted("obj_init_pos")) * scale))
    line = rows.target[:, 1] - 0.1
    missed = (ball[:, 1] > line) & (np.abs(ball[:, 0] - rows.target[:, 0]) > 0.1)
    less = np.clip(in_place - 2 * ((ball[:, 1] - line) / (1 - line)), 0.0, 1.0)
    in_place = np.where(missed, less, in_place)
    grasped = pinching(rows, ball, radius=0.013, grip=0.01, xz=0.005)
    rewards = np.where(left < 0.07, 10.0, 3 * grasped + 6.5 * in_place)
    return Outcome(rewards, norm(ball - rows.target) <= 0.07)


def sweep(rows: Rows) -> Outcome:
    """Sweep of version 2."""
    return _sweep(rows, rows.target, pinching(rows, rows.object, radius=0.02, grip=0.01, xz=0.005))


def sweep_into(rows: Rows) -> Outcome:
    """Sweep-into of version 2; the goal has the object's height."""
    target = rows.target.copy()
    target[:, 2] = rows.object[:, 2]
    return _sweep(rows, target, pinching(rows, rows.object, radius=0.02, grip=0.005, xz=0.01))


def _sweep(rows: Rows, target: np.ndarray, grasped: np.ndarray) -> Outcome:
    left = norm(rows.object - target)
    in_place = tolerance(left, _RADIUS, norm(rows.noted("obj_init_pos") - target))
    rewards = 2 * grasped + 6 * hamacher(grasped, in_place)
    return Outcome(np.where(left < _RADIUS, 10.0, rewards), left <= 0.05)


def sweep_old(rows: Rows) -> Outcome:
    """Sweep of version 1; an object that has fallen is at the goal."""
    return _sweep_old(rows, np.full(len(rows.object), fill_value=True))


def sweep_into_old(rows: Rows) -> Outcome:
    """Sweep-into of version 1; an object that has fallen into the hole is at the goal."""
    return _sweep_old(rows, (rows.object[:, 1] > 0.4) & (rows.object[:, 1] < 1.0))


def _sweep_old(rows: Rows, inside: np.ndarray) -> Outcome:
    obj = rows.object
    fallen = inside & (obj[:, 2] < rows.noted("obj_init_pos")[:, 2] - 0.05)
    distance = norm(obj - rows.tcp)
    left = np.where(fallen, 0.0, norm(obj[:, :2] - rows.target[:, :2]))
    pushed = np.maximum(near(left, rows.noted("maxPushDist")), 0)
    rewards = np.where(fallen, 0.0, -distance) + np.where(distance < 0.05, pushed, 0)
    return Outcome(rewards, left <= 0.05)


def coffee(rows: Rows) -> Outcome:
    """Coffee-pull and coffee-push of version 2."""
    mug, scale = rows.object, np.array([2.0, 2.0, 1.0])
    left = norm((mug - rows.target) * scale)
    in_place = tolerance(left, 0.05, norm((rows.noted("obj_init_pos") - rows.target) * scale))
    grasped = caging(rows, mug, radius=0.02, pad=0.05, xz=0.05, reach=0.04, most_effort=0.7, density="medium")
    rewards = hamacher(grasped, in_place)
    held = (norm(mug - rows.tcp) < 0.04) & (rows.opened > 0)
    rewards = np.where(held, rewards + (1.0 + 5.0 * in_place), rewards)
    return Outcome(np.where(left < 0.05, 10.0, rewards), norm(mug - rows.target) <= 0.07)


def coffee_pull_old(rows: Rows) -> Outcome:
    """Coffee-pull of version 1; the package's distance in the plane is one from the origin."""
    mug = rows.object
    left = norm(mug[:, :2] - rows.target[:, :2])
    distance = norm(rows.tcp - mug)
    from_origin = mug.copy()
    from_origin[:, 2] = rows.noted("init_tcp")[:, 2]
    plane = norm(from_origin)
    closed = np.where(distance < 0.05, np.maximum(rows.actions[:, 3], 0) / 50, 0.0)
    reached = np.where(plane < 0.05, -distance + 0.1 + closed, -plane)
    pulled = np.where(distance < 0.05, np.maximum(near(left, rows.noted("maxPullDist")), 0), 0)
    return Outcome(reached + pulled, norm(mug - rows.target) <= 0.07)


def plate_slide(rows: Rows) -> Outcome:
    """Plate-slide of version 2."""
    left, in_place, _, grasped = _plate(rows, 0.0)
    rewards = np.where(left < _RADIUS, 10.0, 8 * hamacher(grasped, in_place))
    return Outcome(rewards, left <= 0.07)


def plate_slide_side(rows: Rows) -> Outcome:
    """Plate-slide-side, plate-slide-back and plate-slide-back-side of version 2."""
    left, in_place, distance, grasped = _plate(rows, _RADIUS)
    low = (rows.tcp[:, 2] <= 0.03) & (distance < 0.07)
    rewards = np.where(low, 2 + 7 * in_place, 1.5 * grasped)
    return Outcome(np.where(left < _RADIUS, 10.0, rewards), left <= 0.07)


def _plate(rows: Rows, less: float) -> tuple[np.ndarray, ...]:
    """Distance to the goal, how near it is, distance of the fingers, how near they are."""
    start = rows.noted("obj_init_pos")
    left, distance = norm(rows.object - rows.target), norm(rows.tcp - rows.object)
    in_place = tolerance(left, _RADIUS, norm(start - rows.target) - less)
    grasped = tolerance(distance, _RADIUS, norm(rows.noted("init_tcp") - start) - less)
    return left, in_place, distance, grasped


def plate_slide_old(rows: Rows) -> Outcome:
    """The four plate-slides of version 1."""
    left = norm(rows.object[:, :2] - rows.target[:, :2])
    reward = np.maximum(near(left, rows.noted("maxDist")), 0)
    return Outcome(reach_then(rows, reward), left <= 0.07)


def coffee_push_old(rows: Rows) -> Outcome:
    """Coffee-push of version 1."""
    rewards = _push_old(rows, 0.0).rewards
    return Outcome(rewards, norm(rows.object - rows.target) <= 0.07)
