"""Rewards of pegs, wrenches, hammers and sticks."""

import numpy as np

from metarl.envs.metaworld.rewards.picking import approach_old
from metarl.envs.metaworld.rewards.terms import Outcome, caging, hamacher, near, tolerance, upright
from metarl.envs.metaworld.rows import Rows, norm

_WRENCH = (0.707, 0.0, 0.0, 0.707)


def _handle(rows: Rows, threshold: float) -> np.ndarray:
    """Places to grip a tool's handle at, metres [row, 3]: anywhere along it within the threshold."""
    handle = rows.object.copy()
    along = np.abs(handle[:, 0] - rows.hand[:, 0]) < threshold
    handle[:, 0] = np.where(along, rows.hand[:, 0], handle[:, 0])
    return handle


def assembly(rows: Rows) -> Outcome:
    """Assembly of version 2."""
    grip = caging(rows, _handle(rows, 0.01), radius=0.015, pad=0.02, xz=0.01, density="medium")
    center = rows.site("RoundNut")
    error = rows.target - center
    radius = norm(error[:, :2])
    success = (radius < 0.02) & (error[:, 2] > 0.0)
    threshold = np.where(success, 0.02, 0.01)
    outside = radius > threshold
    height = np.where(outside, 0.02 * np.log(np.where(outside, radius - threshold, 1.0)) + 0.2, 0.0)
    error[:, 2] = height - center[:, 2]
    near_goal = tolerance(norm(error * np.array([1.0, 1.0, 3.0])), 0.02, 0.4)
    lifted = (center[:, 2] > 0.02) | (radius < threshold)
    in_place = 0.1 * lifted + 0.9 * near_goal
    rewards = (2.0 * grip + 6.0 * in_place) * upright(rows, _WRENCH, 0.4)
    return Outcome(np.where(success, 10.0, rewards), success)


def disassemble(rows: Rows) -> Outcome:
    """Disassemble of version 2."""
    grip = caging(rows, _handle(rows, 0.01), radius=0.015, pad=0.02, xz=0.01, density="high")
    center = rows.site("RoundNut")
    near_goal = tolerance(norm(rows.target + np.array([0.0, 0.0, 0.1]) - center), 0.02, 0.2)
    in_place = 0.1 * (center[:, 2] > 0.02) + 0.9 * near_goal
    rewards = (2.0 * grip + 6.0 * in_place) * upright(rows, _WRENCH, 0.4)
    success = rows.object[:, 2] > rows.target[:, 2]
    return Outcome(np.where(success, 10.0, rewards), success)


def hammer(rows: Rows) -> Outcome:
    """Hammer of version 2."""
    grip = caging(rows, _handle(rows, 0.07), radius=0.015, pad=0.02, xz=0.01, density="high")
    head = rows.object + np.array([0.16, 0.06, 0.0])
    near_goal = tolerance(norm(rows.target - head), 0.02, 0.2)
    in_place = 0.1 * (head[:, 2] > 0.02) + 0.9 * near_goal
    rewards = (2.0 * grip + 6.0 * in_place) * upright(rows, (1.0, 0.0, 0.0, 0.0), 0.4)
    success = rows.joint("NailSlideJoint") > 0.09
    return Outcome(np.where(success & (rewards > 5.0), 10.0, rewards), success)


def peg_insert_side(rows: Rows) -> Outcome:
    """Peg-insert-side of version 2."""
    obj, head = rows.object, rows.site("pegHead")
    scale = np.array([1.0, 2.0, 2.0])
    left = norm((head - rows.target) * scale)
    in_place = tolerance(left, 0.07, norm((rows.noted("peg_head_pos_init") - rows.target) * scale))
    boxes = [
        _prism(
            head,
            rows.site(f"bottom_right_corner_collision_box_{number}"),
            rows.site(f"top_left_corner_collision_box_{number}"),
        )
        for number in (1, 2)
    ]
    in_place = hamacher(in_place, hamacher(boxes[1], boxes[0]))
    grasped = caging(rows, obj, radius=0.0075, pad=0.03, xz=0.005, density="high")
    lifted = (norm(obj - rows.tcp) < 0.08) & (rows.opened > 0)
    lifted &= obj[:, 2] - 0.01 > rows.noted("obj_init_pos")[:, 2]
    rewards = hamacher(np.where(lifted, 1.0, grasped), in_place)
    rewards = np.where(lifted, rewards + (1.0 + 5 * in_place), rewards)
    return Outcome(np.where(left <= 0.07, 10.0, rewards), left <= 0.07)


def _prism(position: np.ndarray, zero: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Inside a box, the product of how far along each side a position is; 1 outside, [row]."""
    inside = ((np.minimum(zero, one) <= position) & (position <= np.maximum(zero, one))).all(1)
    width = np.where((one != zero) & inside[:, None], one - zero, 1.0)
    scales = (position - zero) / width
    result: np.ndarray = np.where(inside, scales[:, 0] * scales[:, 1] * scales[:, 2], 1.0)
    return result


def peg_unplug_side(rows: Rows) -> Outcome:
    """Peg-unplug-side of version 2."""
    obj, start = rows.object, rows.noted("obj_init_pos")
    left = norm(obj - rows.target)
    grasped = caging(rows, obj, radius=0.025, pad=0.05, xz=0.005, most_effort=0.8, density="high")
    in_place = tolerance(left, 0.05, norm(start - rows.target))
    pulled = (rows.opened > 0.5) & (obj[:, 0] - start[:, 0] > 0.015) & (norm(obj - rows.tcp) < 0.035)
    rewards = np.where(pulled, 1 + 2 * grasped + 5 * in_place, 2 * grasped)
    return Outcome(np.where(left <= 0.05, 10.0, rewards), left <= 0.07)


def stick_pull(rows: Rows) -> Outcome:
    """Stick-pull of version 2."""
    stick, handle, end = rows.object, rows.observations[:, 11:14], rows.site("stick_end")
    shift = np.array([0.05, 0.0, 0.0])
    container, container_start = handle + shift, rows.noted("obj_init_pos") + shift
    stick_start, target = rows.noted("stick_init_pos"), rows.target
    scale = np.array([1.0, 1.0, 2.0])
    margin = norm((stick_start - container_start) * scale)
    in_place = tolerance(norm((stick - container) * scale), 0.05, margin)
    at_goal = tolerance(norm(stick - target), 0.05, norm(stick_start - target))
    margin = norm(rows.noted("obj_init_pos") - target)
    container_at_goal = tolerance(norm(container - target), 0.05, margin)
    grasped = caging(rows, stick, radius=0.014, pad=0.05, xz=0.01, density="high")
    held = (norm(stick - rows.tcp) < 0.02) & (rows.opened > 0) & (stick[:, 2] - 0.01 > stick_start[:, 2])
    both = hamacher(np.where(held, 1.0, grasped), in_place)
    inserted, left = _inserted(handle, end), norm(handle - target)
    rewards = np.where(held, 1.0 + both + 5.0 * in_place, both)
    pulling = 1.0 + both + 5.0 + 2.0 * at_goal + 1.0 * container_at_goal
    rewards = np.where(held & inserted, np.where(left <= 0.12, 10.0, pulling), rewards)
    return Outcome(rewards, (left <= 0.12) & inserted)


def _inserted(handle: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Whether the end of the stick is in the container's handle, bool [row]."""
    through = (end[:, 0] >= handle[:, 0]) & (np.abs(end[:, 1] - handle[:, 1]) <= 0.04)
    inserted: np.ndarray = through & (np.abs(end[:, 2] - handle[:, 2]) <= 0.06)
    return inserted


def stick_push(rows: Rows) -> Outcome:
    """Stick-push of version 2; a success needs both pads to press on the stick."""
    held_at, container = rows.object + np.array([0.015, 0.0, 0.0]), rows.observations[:, 11:14]
    start, target = rows.noted("stick_init_pos"), rows.target
    in_place = tolerance(norm(held_at - target), 0.12, norm(start - target) - 0.12)
    left = norm(container - target)
    container_in_place = tolerance(left, 0.12, norm(rows.noted("obj_init_pos") - target) - 0.12)
    grasped = caging(rows, held_at, radius=0.04, pad=0.05, xz=0.01, density="high", initial="stick_init_pos")
    lifted = held_at[:, 2] - 0.01 > start[:, 2]
    held = (norm(held_at - rows.tcp) < 0.02) & (rows.opened > 0) & lifted
    rewards = np.where(held, 2.0 + 5.0 * in_place + 3.0 * container_in_place, grasped)
    rewards = np.where(held & (left <= 0.12), 10.0, rewards)
    success = (left <= 0.12) & (rows.opened > 0) & (rows.object[:, 2] - 0.01 > start[:, 2])
    return Outcome(rewards, rows.touching(success, "objGeom"))


def _lift_old(
    rows: Rows, height: np.ndarray, dropped: np.ndarray, *, up: np.ndarray, reach: float = 0.1
) -> np.ndarray:
    """Reward of version 1 for lifting a tool from its first height, [row]."""
    most, z, distance = rows.noted("heightTarget"), rows.object[:, 2], norm(rows.object - rows.tcp)
    lifting = np.where((distance < reach) & (z > height + 0.005), 100 * np.minimum(most, z), 0)
    result: np.ndarray = np.where(up & ~dropped, 100 * most, lifting)
    return result


def _dropped(rows: Rows, z: np.ndarray, height: np.ndarray, left: np.ndarray) -> np.ndarray:
    dropped: np.ndarray = (z < height + 0.005) & (left > 0.02) & (norm(rows.object - rows.tcp) > 0.02)
    return dropped


def _grip_old(rows: Rows) -> np.ndarray:
    """Reward of version 1 for approaching a tool, and closing the gripper at it, [row]."""
    distance = norm(rows.object - rows.tcp)
    closed = -distance + np.maximum(rows.actions[:, 3], 0) / 50
    result: np.ndarray = np.where(distance < 0.05, closed, -distance)
    return result


def assembly_old(rows: Rows) -> Outcome:
    """Assembly of version 1."""
    nut, target = rows.body("RoundNut"), rows.target
    height, most = rows.noted("obj_height"), rows.noted("heightTarget")
    distance = norm(rows.object - rows.tcp)
    left, final = norm(nut[:, :2] - target[:, :2]), np.abs(nut[:, 2] - height)
    up = (nut[:, 2] >= most - 0.01) & (distance < 0.03)
    dropped = _dropped(rows, nut[:, 2], height, left)
    placed = (np.abs(nut[:, :2] - target[:, :2]) < 0.03).all(1)
    lifting = np.where((distance < 0.04) & (nut[:, 2] > height + 0.005), 100 * np.minimum(most, nut[:, 2]), 0)
    picked = np.where(placed | (up & ~dropped), 100 * most, lifting)
    squares = -(final * final)
    lower = 2000 * (most - final) + 2000 * (np.exp(squares / 0.003) + np.exp(squares / 0.0003))
    place = near(left, rows.noted("maxPlacingDist"))
    place = np.maximum(np.where(placed, place + lower, place), 0)
    counts = placed | (up & (distance < 0.04) & ~dropped)
    rewards = approach_old(rows, rows.object, z=1, near_at=0.04) + picked + np.where(counts, place, 0)
    return Outcome(rewards, placed & (final <= 0.04))


def disassemble_old(rows: Rows) -> Outcome:
    """Disassemble of version 1; a nut that is off the peg earns the reward of a lifted one."""
    obj, most = rows.object, rows.noted("heightTarget")
    distance, left = norm(obj - rows.tcp), norm(obj - rows.target)
    up = (obj[:, 2] >= most - 0.01) & (distance < 0.04)
    dropped = _dropped(rows, obj[:, 2], rows.noted("objHeight"), left)
    picked = _lift_old(rows, rows.noted("objHeight"), dropped, up=up, reach=0.04)
    place = np.maximum(near(left, rows.noted("maxPlacingDist")), 0)
    place = np.where(up & (distance < 0.03) & ~dropped, place, 0)
    peg = rows.noted("obj_init_pos") + np.array([0.0, 0.0, 0.03])
    off = (np.abs(rows.body("RoundNut")[:, :2] - peg[:, :2]) > 0.05).any(1)
    reached = approach_old(rows, obj, z=2, near_at=0.04)
    rewards = np.where(off, most * 100 + place, reached + picked + place)
    return Outcome(rewards, obj[:, 2] > rows.target[:, 2])


def hammer_old(rows: Rows) -> Outcome:
    """Hammer of version 1."""
    nail, obj = rows.site("nailHead"), rows.object
    strike, screw = norm(nail - rows.geom("HammerHead")), np.abs(nail[:, 1] - rows.target[:, 1])
    up = obj[:, 2] >= rows.noted("heightTarget") - 0.01
    dropped = _dropped(rows, obj[:, 2], rows.noted("hammerHeight"), strike)
    picked = _lift_old(rows, rows.noted("hammerHeight"), dropped, up=up)
    squares = -((strike + screw) * (strike + screw))
    hit = 1000 * (rows.noted("maxHammerDist") - strike - screw)
    hit = np.maximum(hit + 1000 * (np.exp(squares / 0.01) + np.exp(squares / 0.001)), 0)
    held = up & (norm(obj - rows.tcp) < 0.1) & ~dropped
    rewards = _grip_old(rows) + picked + np.where(held, hit, 0)
    return Outcome(rewards, rows.joint("NailSlideJoint") > 0.09)


def peg_unplug_old(rows: Rows) -> Outcome:
    """Peg-unplug-side of version 1."""
    obj = rows.object
    distance, plane = norm(obj - rows.tcp), norm(obj[:, :2] - rows.tcp[:, :2])
    left = norm(obj[:, :2] - rows.target[:, :2])
    height = np.abs(rows.tcp[:, 2] - rows.noted("hand_init_pos")[:, 2])
    reached = np.where(plane < 0.05, -distance, -plane - 2 * height)
    closed = -distance + np.maximum(rows.actions[:, 3], 0) / 50
    place = np.maximum(near(left, rows.noted("maxPlacingDist")), 0)
    rewards = np.where(distance < 0.05, closed + place, reached)
    return Outcome(rewards, left <= 0.07)


def stick_pull_old(rows: Rows) -> Outcome:
    """Stick-pull of version 1."""
    left = norm(rows.observations[:, 6:8] - rows.target[:, :2])
    rewards = _stick_old(rows, left, "maxPullDist", 0.01, 0.001)
    handle = rows.observations[:, 11:14]
    success = (norm(handle - rows.target) <= 0.12) & _inserted(handle, rows.site("stick_end"))
    return Outcome(rewards, success)


def stick_push_old(rows: Rows) -> Outcome:
    """Stick-push of version 1, which never reports a success."""
    left = norm(rows.observations[:, 6:8] - rows.target[:, :2])
    rewards = _stick_old(rows, left, "maxPushDist", 0.001, 0.0001)
    return Outcome(rewards, np.zeros(len(rewards), dtype=np.bool_))


def _stick_old(rows: Rows, left: np.ndarray, most: str, c5: float, c6: float) -> np.ndarray:
    """Reward of version 1 for sticks; what the package takes for the container is numbers 6 to 8, [row]."""
    stick, container = rows.object, rows.observations[:, 6:9]
    place = norm(stick - container)
    up = stick[:, 2] >= rows.noted("heightTarget") - 0.01
    dropped = _dropped(rows, stick[:, 2], rows.noted("stickHeight"), left)
    picked = _lift_old(rows, rows.noted("stickHeight"), dropped, up=up)
    moved = near(place, rows.noted("maxPlaceDist"))
    moved = np.where(place < 0.05, moved + near(left, rows.noted(most), 2000.0, c5, c6), moved)
    held = up & (norm(stick - rows.tcp) < 0.1) & ~dropped
    result: np.ndarray = _grip_old(rows) + picked + np.where(held, np.maximum(moved, 0), 0)
    return result
