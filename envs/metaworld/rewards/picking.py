"""Rewards of objects that are picked up and put somewhere."""

import numpy as np

from metarl.envs.metaworld.rewards.terms import (
    Outcome,
    above,
    caging,
    floor_around,
    hamacher,
    near,
    picking,
    tolerance,
)
from metarl.envs.metaworld.rows import Rows, norm

_RADIUS = 0.05


def pick_place(rows: Rows) -> Outcome:
    """Pick-place of version 2."""
    left = norm(rows.object - rows.target)
    in_place = tolerance(left, _RADIUS, norm(rows.noted("obj_init_pos") - rows.target))
    rewards = hamacher(picking(rows, rows.object), in_place)
    rewards = np.where(_lifted(rows, 0.02, 0.01), rewards + (1.0 + 5.0 * in_place), rewards)
    return Outcome(np.where(left < _RADIUS, 10.0, rewards), left <= 0.07)


def _lifted(rows: Rows, reach: float, height: float) -> np.ndarray:
    """Whether the object is between the fingers and above its first position, bool [row]."""
    close = (norm(rows.object - rows.tcp) < reach) & (rows.opened > 0)
    lifted: np.ndarray = close & (rows.object[:, 2] - height > rows.noted("obj_init_pos")[:, 2])
    return lifted


def pick_place_wall(rows: Rows) -> Outcome:
    """Pick-place-wall of version 2: first over the wall, then to the goal."""
    obj, start = rows.object, rows.noted("obj_init_pos")
    midpoint = rows.target.copy()
    midpoint[:, 1], midpoint[:, 2] = 0.77, 0.25
    scale = np.array([1.0, 1.0, 3.0])
    first = tolerance(norm((obj - midpoint) * scale), _RADIUS, norm((start - midpoint) * scale))
    left = norm(obj - rows.target)
    second = tolerance(left, _RADIUS, norm(start - rows.target))
    grasped = caging(rows, obj, radius=0.015, pad=0.05, xz=0.005)
    both = hamacher(grasped, first)
    lifted = _lifted(rows, 0.02, 0.015)
    rewards = np.where(lifted, both + 1.0 + 4.0 * first, both)
    rewards = np.where(lifted & (obj[:, 1] > 0.75), both + 1.0 + 4.0 + 3.0 * second, rewards)
    return Outcome(np.where(left < _RADIUS, 10.0, rewards), left <= 0.07)


def shelf_place(rows: Rows) -> Outcome:
    """Shelf-place of version 2; under the shelf, being near the goal counts less."""
    obj, target = rows.object, rows.target
    left = norm(obj - target)
    in_place = tolerance(left, _RADIUS, norm(rows.noted("obj_init_pos") - target))
    rewards = hamacher(caging(rows, obj, radius=0.02, pad=0.05, xz=0.01), in_place)
    low = (obj[:, 2] > 0.0) & (obj[:, 2] < 0.24)
    low &= (target[:, 0] - 0.15 < obj[:, 0]) & (obj[:, 0] < target[:, 0] + 0.15)
    front = target[:, 1] - 3 * _RADIUS
    under = low & (front < obj[:, 1]) & (obj[:, 1] < target[:, 1])
    z = np.where(under, (0.24 - obj[:, 2]) / 0.24, 0.0)
    y = np.where(under, (obj[:, 1] - front) / (3 * _RADIUS), 0.0)
    in_place = np.where(under, np.clip(in_place - hamacher(y, z), 0.0, 1.0), in_place)
    in_place = np.where(low & (obj[:, 1] > target[:, 1]), 0.0, in_place)
    rewards = np.where(_lifted(rows, 0.025, 0.01), rewards + (1.0 + 5.0 * in_place), rewards)
    return Outcome(np.where(left < _RADIUS, 10.0, rewards), left <= 0.07)


def basketball(rows: Rows) -> Outcome:
    """Basketball of version 2."""
    obj, start, scale = rows.object, rows.noted("obj_init_pos"), np.array([1.0, 1.0, 2.0])
    target = rows.target.copy()
    target[:, 2] = 0.3
    left = norm((obj - target) * scale)
    in_place = tolerance(left, 0.08, norm((start - target) * scale))
    lifted = _lifted(rows, 0.035, 0.01)
    grasped = caging(rows, obj, radius=0.025, pad=0.06, xz=0.005, density="high")
    rewards = hamacher(np.where(lifted, 1.0, grasped), in_place)
    rewards = np.where(lifted, rewards + (1.0 + 5.0 * in_place), rewards)
    return Outcome(np.where(left < 0.08, 10.0, rewards), left <= 0.08)


def bin_picking(rows: Rows) -> Outcome:
    """Bin-picking of version 2; distances are shares of the one after the episode's first step."""
    obj, hand, start = rows.object, rows.hand, rows.noted("obj_init_pos")
    left = norm(obj - rows.target)
    in_place = tolerance(left, 0.05, rows.first("target_to_obj", left))
    radii = [norm(hand[:, :2] - place[:, :2]) for place in (start, rows.target)]
    floor = np.minimum(*[floor_around(radius, 0.03, 0.02, 0.2) for radius in radii])
    over = above(hand[:, 2], floor, 0.05)
    grasped = caging(rows, obj, radius=0.015, pad=0.05, xz=0.01, most_effort=0.7, density="high")
    rewards = hamacher(grasped, in_place)
    held = (norm(obj - hand) < 0.04) & (obj[:, 2] - 0.02 > start[:, 2]) & ~(rows.opened < 0.43)
    rewards = np.where(held, rewards + (1.0 + 5.0 * hamacher(over, in_place)), rewards)
    return Outcome(np.where(left < 0.05, 10.0, rewards), left <= 0.05)


def hand_insert(rows: Rows) -> Outcome:
    """Hand-insert of version 2."""
    obj = rows.object
    left = norm(obj - rows.target)
    in_place = tolerance(left, 0.05, norm(rows.noted("obj_init_pos") - rows.target))
    grasped = caging(rows, obj, radius=0.015, pad=0.05, xz=0.005, density="high")
    rewards = hamacher(grasped, in_place)
    held = (norm(obj - rows.tcp) < 0.02) & (rows.opened > 0)
    rewards = np.where(held, rewards + (1.0 + 7.0 * in_place), rewards)
    return Outcome(np.where(left < 0.05, 10.0, rewards), left <= 0.05)


def hand_insert_old(rows: Rows) -> Outcome:
    """Hand-insert of version 1; its success depends on the task alone."""
    reach = norm(rows.tcp[:, :2] - rows.target[:, :2])
    height = np.abs(rows.tcp[:, 2] - rows.target[:, 2])
    inside = np.where(reach < 0.05, near(height, rows.noted("maxReachDist")), 0.0)
    left = norm(rows.noted("obj_init_pos") - rows.target)
    return Outcome(-reach + np.maximum(inside, 0), left <= 0.05)


def pick_out_of_hole(rows: Rows) -> Outcome:
    """Pick-out-of-hole of version 2."""
    obj, start = rows.object, rows.noted("obj_init_pos")
    left = norm(obj - rows.target)
    floor = floor_around(norm(rows.tcp[:, :2] - start[:, :2]), 0.03, 0.015, 0.15)
    over = above(rows.tcp[:, 2], floor, 0.02)
    grasped = caging(rows, obj, radius=0.015, pad=0.02, xz=0.03, most_effort=0.1, density="high")
    in_place = tolerance(left, 0.02, norm(start - rows.target))
    rewards = hamacher(grasped, in_place)
    held = (norm(obj - rows.tcp) < 0.04) & (obj[:, 2] - 0.02 > start[:, 2]) & ~(rows.opened < 0.33)
    rewards = np.where(held, rewards + (1.0 + 5.0 * hamacher(in_place, over)), rewards)
    return Outcome(np.where(left < 0.05, 10.0, rewards), left <= 0.07)


def approach_old(rows: Rows, position: np.ndarray, *, z: float, near_at: float = 0.05) -> np.ndarray:
    """Reward of version 1 for coming near an object from above, and closing the gripper there, [row]."""
    distance, plane = norm(position - rows.tcp), norm(position[:, :2] - rows.tcp[:, :2])
    height = np.abs(rows.tcp[:, 2] - rows.noted("init_tcp")[:, 2])
    reward = np.where(plane < near_at, -distance, -plane - z * height)
    closed = -distance + np.maximum(rows.actions[:, 3], 0) / 50
    result: np.ndarray = np.where(distance < (0.05 if near_at > 0.05 else near_at), closed, reward)
    return result


def _pick_old(
    rows: Rows, left: np.ndarray, *, z: float = 2, above_table: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Reward of version 1 for approaching and lifting the object, and whether it is held up, [row]."""
    obj, height, most = rows.object, rows.noted("objHeight"), rows.noted("heightTarget")
    distance = norm(obj - rows.tcp)
    up = obj[:, 2] >= most - 0.01
    dropped = (obj[:, 2] < height + 0.005) & (left > 0.02) & (distance > 0.02)
    less = (most - height + 0.02, np.minimum(most, obj[:, 2]) - height + 0.02)
    highest, current = less if above_table else (most, np.minimum(most, obj[:, 2]))
    lifting = np.where((distance < 0.1) & (obj[:, 2] > height + 0.005), 100 * current, 0)
    picked = np.where(up & ~dropped, 100 * highest, lifting)
    return approach_old(rows, obj, z=z) + picked, up & (distance < 0.1) & ~dropped


def _place_old(rows: Rows, left: np.ndarray, success: float, *, above_table: bool = False) -> Outcome:
    rewards, held = _pick_old(rows, left, above_table=above_table)
    placed = np.maximum(near(left, rows.noted("maxPlacingDist")), 0)
    return Outcome(rewards + np.where(held, placed, 0), left <= success)


def place_old(rows: Rows) -> Outcome:
    """Pick-place, pick-place-wall and shelf-place of version 1."""
    return _place_old(rows, norm(rows.object - rows.target), 0.07)


def basketball_old(rows: Rows) -> Outcome:
    """Basketball of version 1."""
    return _place_old(rows, norm(rows.object - rows.target), 0.08)


def box_close_old(rows: Rows) -> Outcome:
    """Box-close of version 1."""
    left = norm(rows.object - rows.target)
    return Outcome(_place_old(rows, left, 0.08).rewards, left < 0.08)


def pick_out_of_hole_old(rows: Rows) -> Outcome:
    """Pick-out-of-hole of version 1."""
    return _place_old(rows, norm(rows.object - rows.target), 0.07, above_table=True)


def peg_insert_old(rows: Rows) -> Outcome:
    """Peg-insert-side of version 1."""
    left, head = norm(rows.object - rows.target), norm(rows.site("pegHead") - rows.target)
    rewards, held = _pick_old(rows, left, z=1)
    placed = np.maximum(near(np.where(head <= 0.05, left, head), rows.noted("maxPlacingDist")), 0)
    return Outcome(rewards + np.where(held, placed, 0), left <= 0.07)


def bin_picking_old(rows: Rows) -> Outcome:
    """Bin-picking of version 1: over the bin, opening the gripper is rewarded instead of the approach."""
    obj, height, most = rows.object, rows.noted("objHeight"), rows.noted("heightTarget")
    distance, left = norm(obj - rows.tcp), norm(obj[:, :2] - rows.target[:, :2])
    over = (np.abs(obj[:, :2] - rows.target[:, :2]) < 0.05).all(1)
    placed = over & (obj[:, 2] < height + 0.05)
    up = obj[:, 2] >= most - 0.01
    dropped = (obj[:, 2] < height + 0.005) & (left > 0.02) & (distance > 0.02)
    lifting = np.where((distance < 0.1) & (obj[:, 2] > height + 0.005), 100 * np.minimum(most, obj[:, 2]), 0)
    picked = np.where(placed | (up & ~dropped), 100 * most, lifting)
    place = np.maximum(near(left, rows.noted("maxPlacingDist")), 0)
    letting_go = -200 * rows.actions[:, 3] + place
    held = np.where(up & (distance < 0.1) & ~dropped, np.where(over, letting_go, place), 0)
    rewards = approach_old(rows, obj, z=1, near_at=0.06) + picked + held
    return Outcome(np.where(placed, letting_go, rewards), left <= 0.05)
