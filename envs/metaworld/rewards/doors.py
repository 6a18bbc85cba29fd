"""Rewards of doors, locks, drawers, faucets, windows, and the lid of a box."""

import numpy as np

from metarl.envs.metaworld.rewards.terms import (
    Outcome,
    above,
    effort,
    floor_around,
    hamacher,
    near,
    reach_then,
    tolerance,
    upright,
)
from metarl.envs.metaworld.rows import Rows, norm

_WRENCH = (0.707, 0.0, 0.0, 0.707)
_SHOULDER = np.array([0.0, 0.055, 0.07])
_FLAT_SCALE = np.array([0.25, 1.0, 0.5])


def _old(rows: Rows, distance: np.ndarray, success: float, most: str = "maxPullDist") -> Outcome:
    reward = np.maximum(near(distance, rows.noted(most)), 0)
    return Outcome(reach_then(rows, reward), distance <= success)


def door_close(rows: Rows) -> Outcome:
    """Door-close of version 2."""
    left = norm(rows.object - rows.target)
    margin = norm(rows.noted("obj_init_pos") - rows.target)
    in_place = tolerance(left, 0.05, margin, sigmoid="gaussian")
    margin = norm(rows.noted("hand_init_pos") - rows.object) + 0.1
    hand_in_place = tolerance(norm(rows.tcp - rows.target), 0.25 * 0.05, margin, sigmoid="gaussian")
    return Outcome(np.where(left < 0.05, 10, 3 * hand_in_place + 6 * in_place), left <= 0.08)


def door_close_old(rows: Rows) -> Outcome:
    """Door-close of version 1."""
    return _old(rows, norm(rows.object[:, :2] - rows.target[:, :2]), 0.08)


def door_open(rows: Rows) -> Outcome:
    """Door-open of version 2."""
    theta = rows.joint("doorjoint")
    hand, door = rows.hand, rows.object + np.array([-0.05, 0, 0])
    floor = floor_around(norm(hand[:, :2] - door[:, :2]), 0.12, 0.04, 0.4)
    over = above(hand[:, 2], floor, floor / 2.0)
    in_place = tolerance(norm(hand - door - np.array([0.05, 0.03, -0.01])), 0.12 / 2.0, 0.5)
    ready = hamacher(over, in_place)
    opened = tolerance(np.pi / 2.0 + np.pi / 6 - -theta, 0.5, np.pi / 3.0)
    opened = 0.2 * (theta < -np.pi / 90.0) + 0.8 * opened
    grab = (np.clip(rows.actions[:, 3], -1, 1) + 1.0) / 2.0
    success = np.abs(rows.object[:, 0] - rows.target[:, 0]) <= 0.08
    return Outcome(np.where(success, 10.0, 2.0 * hamacher(ready, grab) + 8.0 * opened), success)


def door_open_old(rows: Rows) -> Outcome:
    """Door-open of version 1."""
    rewards = _old(rows, norm(rows.object[:, :2] - rows.target[:, :2]), 0.0).rewards
    return Outcome(rewards, np.abs(rows.object[:, 0] - rows.target[:, 0]) <= 0.08)


def door_lock(rows: Rows) -> Outcome:
    """Door-lock of version 2; the package's initial place of the pad shows where the pad is now."""
    lock, pad = rows.object, rows.body("leftpad")
    distance = norm((lock - pad) * _FLAT_SCALE)
    left = np.abs(rows.target[:, 2] - lock[:, 2])
    reached = tolerance(distance, 0.01, distance)
    pressed = tolerance(left, 0.005, rows.noted("_lock_length"))
    rewards = 2 * hamacher(np.maximum(rows.opened, 0.0), reached) + 8 * pressed
    return Outcome(rewards, left <= 0.02)


def door_unlock(rows: Rows) -> Outcome:
    """Door-unlock of version 2; the package's initial place of the lock shows where the lock is now."""
    lock = rows.object
    shoulder = norm((rows.hand + _SHOULDER - lock) * _FLAT_SCALE)
    margin = norm((rows.noted("init_tcp") + _SHOULDER - rows.body("lock_link")) * _FLAT_SCALE)
    ready = tolerance(shoulder, 0.02, margin)
    left = np.abs(rows.target[:, 0] - lock[:, 0])
    pushed = tolerance(left, 0.005, rows.noted("_lock_length"))
    return Outcome(2 * ready + 8 * pushed, left <= 0.02)


def lock_old(rows: Rows) -> Outcome:
    """Door-lock and door-unlock of version 1."""
    return _old(rows, norm(rows.object - rows.target), 0.02)


def drawer_close(rows: Rows) -> Outcome:
    """Drawer-close of version 2."""
    start = rows.noted("obj_init_pos")
    left = norm(rows.object - rows.target)
    in_place = tolerance(left, 0.05, np.abs(norm(start - rows.target) - 0.05))
    margin = np.abs(norm(start - rows.noted("init_tcp")) - 0.005)
    reached = tolerance(norm(rows.object - rows.tcp), 0.005, margin, sigmoid="gaussian")
    reached = hamacher(reached, effort(rows))
    success = left <= 0.05 + 0.015
    return Outcome(np.where(success, 1.0, hamacher(reached, in_place)) * 10, success)


def drawer_close_old(rows: Rows) -> Outcome:
    """Drawer-close of version 1."""
    return _old(rows, np.abs(rows.object[:, 1] - rows.target[:, 1]), 0.05 + 0.015, "maxDist")


def drawer_open(rows: Rows) -> Outcome:
    """Drawer-open of version 2."""
    handle, most = rows.object, rows.noted("maxDist")
    left = norm(handle - rows.target)
    opening = tolerance(left, 0.02, most)
    start = rows.target + np.stack((np.zeros(len(most)), most, np.zeros(len(most))), axis=1)
    scale = np.array([3.0, 3.0, 1.0])
    margin = norm((start - rows.noted("init_tcp")) * scale)
    reached = tolerance(norm((handle - rows.hand) * scale), 0.01, margin)
    return Outcome((reached + opening) * 5.0, left <= 0.03)


def drawer_open_old(rows: Rows) -> Outcome:
    """Drawer-open of version 1."""
    return _old(rows, np.abs(rows.object[:, 1] - rows.target[:, 1]), 0.03, "maxDist")


def faucet_close(rows: Rows) -> Outcome:
    """Faucet-close of version 2."""
    return _faucet(rows, rows.object)


def faucet_open(rows: Rows) -> Outcome:
    """Faucet-open of version 2."""
    return _faucet(rows, rows.object + np.array([-0.04, 0.0, 0.03]))


def _faucet(rows: Rows, handle: np.ndarray) -> Outcome:
    start = rows.noted("obj_init_pos")
    left = norm(handle - rows.target)
    in_place = tolerance(left, 0.07, np.abs(norm(start - rows.target) - 0.07))
    margin = np.abs(norm(start - rows.noted("init_tcp")) - 0.01)
    reached = tolerance(norm(handle - rows.tcp), 0.01, margin, sigmoid="gaussian")
    success = left <= 0.07
    return Outcome(np.where(success, 10, (2 * reached + 3 * in_place) * 2), success)


def faucet_old(rows: Rows) -> Outcome:
    """Faucet-close and faucet-open of version 1."""
    return _old(rows, norm(rows.object - rows.target), 0.07)


def window_close(rows: Rows) -> Outcome:
    """Window-close of version 2."""
    start = rows.noted("window_handle_pos_init")
    return _window(rows, rows.site("handleCloseStart"), start[:, 0], "gaussian")


def window_open(rows: Rows) -> Outcome:
    """Window-open of version 2."""
    return _window(rows, rows.site("handleOpenStart"), rows.noted("obj_init_pos")[:, 0], "long_tail")


def _window(rows: Rows, handle: np.ndarray, start: np.ndarray, sigmoid: str) -> Outcome:
    left = np.abs(handle[:, 0] - rows.target[:, 0])
    in_place = tolerance(left, 0.05, np.abs(np.abs(start - rows.target[:, 0]) - 0.05))
    margin = np.abs(norm(rows.noted("window_handle_pos_init") - rows.noted("init_tcp")) - 0.02)
    distance = norm(handle - rows.tcp)
    reached = tolerance(distance, 0.02, margin, sigmoid="gaussian" if sigmoid == "gaussian" else "long_tail")
    return Outcome(10 * hamacher(reached, in_place), left <= 0.05)


def window_old(rows: Rows) -> Outcome:
    """Window-close and window-open of version 1; the second reward may be negative."""
    left = np.abs(rows.object[:, 0] - rows.target[:, 0])
    return Outcome(reach_then(rows, near(left, rows.noted("maxPullDist"))), left <= 0.05)


def box_close(rows: Rows) -> Outcome:
    """Box-close of version 2."""
    grab = np.clip((np.clip(rows.actions[:, 3], -1, 1) + 1.0) / 2.0, 0.0, 1.0)
    hand, lid = rows.hand, rows.object + np.array([0.0, 0.0, 0.02])
    floor = floor_around(norm(hand[:, :2] - lid[:, :2]), 0.02, 0.04, 0.4)
    over = above(hand[:, 2], floor, floor / 2.0)
    ready = hamacher(over, tolerance(norm(hand - lid), 0.02, 0.5))
    error = norm((rows.target - lid) * np.array([1.0, 1.0, 3.0]))
    lifted = 0.2 * (lid[:, 2] > 0.04) + 0.8 * tolerance(error, 0.05, 0.25)
    success = norm(rows.object - rows.target) < 0.08
    rewards = np.where(success, 10.0, 2.0 * hamacher(grab, ready) + 8.0 * lifted)
    return Outcome(rewards * upright(rows, _WRENCH, 0.2), success)
