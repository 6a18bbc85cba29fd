"""Rewards of buttons, handles and levers that are pressed, pulled or turned."""

import numpy as np

from metarl.envs.metaworld.rewards.terms import Outcome, caging, effort, hamacher, near, reach_then, tolerance
from metarl.envs.metaworld.rows import Rows, norm

X, Y, Z = 0, 1, 2


def _distance(rows: Rows, axis: int) -> np.ndarray:
    distance: np.ndarray = np.abs(rows.target[:, axis] - rows.object[:, axis])
    return distance


def _press(rows: Rows, axis: int, *, near_at: float, margin: np.ndarray | float) -> tuple[np.ndarray, ...]:
    """Distance of the fingers, how near they are, how far the button is from pressed, how much it is pressed."""
    distance = norm(rows.object - rows.tcp)
    reached = tolerance(distance, near_at, norm(rows.object - rows.noted("init_tcp")))
    left = _distance(rows, axis)
    return distance, reached, left, tolerance(left, 0.005, margin)


def button_press(rows: Rows) -> Outcome:
    """Button-press of version 2."""
    distance, reached, left, pressed = _press(rows, Y, near_at=0.05, margin=rows.noted("_obj_to_target_init"))
    rewards = 2 * hamacher(np.maximum(rows.opened, 0.0), reached)
    return Outcome(np.where(distance <= 0.05, rewards + 8 * pressed, rewards), left <= 0.02)


def button_press_topdown(rows: Rows) -> Outcome:
    """Button-press-topdown of version 2."""
    return _topdown(rows, 1 - rows.opened)


def button_press_topdown_wall(rows: Rows) -> Outcome:
    """Button-press-topdown-wall of version 2."""
    return _topdown(rows, np.maximum(rows.opened, 0.0))


def _topdown(rows: Rows, closed: np.ndarray) -> Outcome:
    distance, reached, left, pressed = _press(rows, Z, near_at=0.01, margin=rows.noted("_obj_to_target_init"))
    rewards = 5 * hamacher(closed, reached)
    return Outcome(np.where(distance <= 0.03, rewards + 5 * pressed, rewards), left <= 0.024)


def button_press_wall(rows: Rows) -> Outcome:
    """Button-press-wall of version 2."""
    distance, reached, left, pressed = _press(rows, Y, near_at=0.01, margin=rows.noted("_obj_to_target_init"))
    far = 2 * hamacher((1 - rows.opened) / 2.0, reached)
    close = 2 + 2 * (1 + rows.opened) + 4 * (pressed * pressed)
    return Outcome(np.where(distance > 0.07, far, close), left <= 0.03)


def coffee_button(rows: Rows) -> Outcome:
    """Coffee-button of version 2."""
    distance, reached, left, pressed = _press(rows, Y, near_at=0.05, margin=rows.noted("max_dist"))
    rewards = 2 * hamacher(np.maximum(rows.opened, 0.0), reached)
    return Outcome(np.where(distance <= 0.05, rewards + 8 * pressed, rewards), left <= 0.02)


def _old(rows: Rows, axis: int, success: float, finger: str = "left") -> Outcome:
    left = np.abs(rows.object[:, axis] - rows.target[:, axis])
    reward = np.maximum(near(left, rows.noted("maxDist")), 0)
    rewards = reach_then(rows, reward, finger="left" if finger == "left" else "both")
    return Outcome(rewards, left <= success)


def button_press_old(rows: Rows) -> Outcome:
    """Button-press of version 1."""
    return _old(rows, Y, 0.02)


def button_press_wall_old(rows: Rows) -> Outcome:
    """Button-press-wall of version 1."""
    return _old(rows, Y, 0.03)


def button_press_topdown_old(rows: Rows) -> Outcome:
    """Button-press-topdown of version 1, with a wall or without."""
    return _old(rows, Z, 0.024, "both")


def coffee_button_old(rows: Rows) -> Outcome:
    """Coffee-button of version 1."""
    return _old(rows, Y, 0.02)


def handle_press_old(rows: Rows) -> Outcome:
    """Handle-press of version 1, from the front or the side."""
    return _old(rows, Z, 0.02)


def handle_pull_side_old(rows: Rows) -> Outcome:
    """Handle-pull-side of version 1."""
    return _old(rows, Z, 0.08)


def handle_pull_old(rows: Rows) -> Outcome:
    """Handle-pull of version 1."""
    return _old(rows, Z, 0.05)


def handle_press(rows: Rows) -> Outcome:
    """Handle-press of version 2, from the front or the side."""
    handle, start = rows.site("handleStart"), rows.noted("_handle_init_pos")
    left = np.abs(handle[:, Z] - rows.target[:, Z])
    margin = np.abs(np.abs(start[:, Z] - rows.target[:, Z]) - 0.02)
    in_place = tolerance(left, 0.02, margin)
    margin = np.abs(norm(start - rows.noted("init_tcp")) - 0.02)
    reached = tolerance(norm(handle - rows.tcp), 0.02, margin)
    pressed = left <= 0.02
    return Outcome(np.where(pressed, 1.0, hamacher(reached, in_place)) * 10, pressed)


def handle_pull_side(rows: Rows) -> Outcome:
    """Handle-pull-side of version 2."""
    handle, start = rows.object, rows.noted("obj_init_pos")
    left = norm(handle - rows.target)
    in_place = tolerance(left, 0.05, norm(start - rows.target))
    return _pull(rows, left, in_place, handle[:, Z], pad=0.06, radius=0.032, success=0.08)


def handle_pull(rows: Rows) -> Outcome:
    """Handle-pull of version 2; the package compares y with z."""
    handle, start = rows.object, rows.noted("obj_init_pos")
    left = np.abs(rows.target[:, Z] - handle[:, Z])
    in_place = tolerance(left, 0.05, np.abs(rows.target[:, Z] - start[:, Z]))
    return _pull(rows, left, in_place, handle[:, Y], pad=0.05, radius=0.022, success=0.05)


def _pull(
    rows: Rows,
    left: np.ndarray,
    in_place: np.ndarray,
    height: np.ndarray,
    *,
    pad: float,
    radius: float,
    success: float,
) -> Outcome:
    grasped = caging(rows, rows.object, pad=pad, radius=radius, xz=0.01, density="high")
    rewards = hamacher(grasped, in_place)
    close = norm(rows.object - rows.tcp) < 0.035
    lifted = close & (rows.opened > 0) & (height - 0.01 > rows.noted("obj_init_pos")[:, Z])
    rewards = np.where(lifted, rewards + (1.0 + 5.0 * in_place), rewards)
    return Outcome(np.where(left < 0.05, 10.0, rewards), left <= success)


def dial_position(rows: Rows) -> np.ndarray:
    """Positions of the dial's knob, metres [row, 3]."""
    angle = rows.joint("knob_Joint_1")
    offset = np.stack((np.sin(angle), -np.cos(angle), np.zeros(len(angle))), axis=1)
    return rows.body("dial") + offset * 0.05


def dial_turn(rows: Rows) -> Outcome:
    """Dial-turn of version 2."""
    knob, start = dial_position(rows), rows.noted("dial_push_position")
    push = knob + np.array([0.05, 0.02, 0.09])
    left = norm(knob - rows.target)
    in_place = tolerance(left, 0.07, np.abs(norm(start - rows.target) - 0.07))
    margin = np.abs(norm(start - rows.noted("init_tcp")) - 0.005)
    reached = tolerance(norm(push - rows.tcp), 0.005, margin, sigmoid="gaussian")
    reached = hamacher(reached, effort(rows))
    return Outcome(10 * hamacher(reached, in_place), left <= 0.07)


def dial_turn_old(rows: Rows) -> Outcome:
    """Dial-turn of version 1."""
    left = np.abs(rows.object[:, Y] - rows.target[:, Y])
    reward = np.maximum(near(left, rows.noted("maxPullDist"), c2=0.001, c3=0.0001), 0)
    return Outcome(reach_then(rows, reward), left <= 0.07)


def lever_pull(rows: Rows) -> Outcome:
    """Lever-pull of version 2."""
    scale, offset = np.array([4.0, 1.0, 4.0]), np.array([0.0, 0.055, 0.07])
    start = rows.noted("_lever_pos_init")
    shoulder = norm((rows.hand + offset - rows.object) * scale)
    margin = norm((rows.noted("init_tcp") + offset - start) * scale)
    ready = tolerance(shoulder, 0.02, margin)
    in_place = tolerance(norm(rows.object - rows.target), 0.04, norm(start - rows.target))
    error = np.abs(-rows.joint("LeverAxis") - np.pi / 2.0)
    return Outcome(10.0 * hamacher(ready, in_place), error <= np.pi / 24)


def lever_pull_old(rows: Rows) -> Outcome:
    """Lever-pull of version 1; the package compares a distance with an angle."""
    left = norm(rows.object - rows.target)
    reward = np.maximum(near(left, rows.noted("maxPullDist")), 0)
    return Outcome(reach_then(rows, reward), left <= np.pi / 24)
