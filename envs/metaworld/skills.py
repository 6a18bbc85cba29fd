"""Meta-World's 50 environments for many rows at once: what is observed of the objects, and both rewards."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metarl.envs.metaworld.rewards import buttons, doors, picking, pushing, tools
from metarl.envs.metaworld.rewards.terms import Outcome
from metarl.envs.metaworld.rows import Rows

Column = Callable[[Rows], np.ndarray]
Reward = Callable[[Rows], Outcome]


@dataclass(frozen=True)
class Skill:
    """One of Meta-World's environments.

    Attributes:
        positions: Positions of one object or two, metres [row, 3] each.
        rotations: Their quaternions, [row, 4] each.
        reward: Reward of version 2.
        old: Reward of version 1.
        goal: Position of the goal, metres [row, 3]; None for the one that the reset noted.
    """

    positions: tuple[Column, ...]
    rotations: tuple[Column, ...]
    reward: Reward
    old: Reward
    goal: Column | None = None

    def observe(self, rows: Rows) -> np.ndarray:
        """The present part of the observations, before it is bounded, [row, 18]."""
        hand = rows.gripper_and_hand()
        current = np.zeros((len(hand), 18))
        current[:, :4] = hand
        for number, (position, rotation) in enumerate(zip(self.positions, self.rotations, strict=True)):
            first = 4 + 7 * number
            current[:, first : first + 3] = position(rows)
            current[:, first + 3 : first + 7] = rotation(rows)
        return current


def _body(name: str, *shift: float) -> Column:
    return lambda rows: rows.body(name) + np.array(shift) if shift else rows.body(name)


def _site(name: str, *shift: float) -> Column:
    return lambda rows: rows.site(name) + np.array(shift) if shift else rows.site(name)


def _geom(name: str) -> Column:
    return lambda rows: rows.geom(name)


def _quat(name: str) -> Column:
    return lambda rows: rows.body_quaternion(name)


def _rotation(kind: str, name: str) -> Column:
    return lambda rows: rows.rotation(kind, name)


def _constant(*values: float) -> Column:
    return lambda rows: np.array(values)


_NONE = _constant(0.0, 0.0, 0.0, 0.0)


def _skill(position: Column, rotation: Column, reward: Reward, old: Reward, goal: Column | None = None) -> Skill:
    return Skill((position,), (rotation,), reward, old, goal)


_OBJ, _OBJ_GEOM, _OBJ_ROTATION = _body("obj"), _geom("objGeom"), _rotation("geom", "objGeom")
_MUG = (_OBJ, _rotation("geom", "mug"))
_PUCK = (_geom("puck"), _rotation("geom", "puck"))
_NUT = (_site("RoundNut-8"), _quat("RoundNut"))
_TOP_BUTTON = (_body("button", 0.0, 0.0, 0.193), _quat("button"))
_BUTTON = (_body("button", 0.0, -0.193, 0.0), _quat("button"))
_DOOR = (_geom("handle"), _rotation("geom", "handle"))
_HANDLE = (_site("handleStart"), _NONE)
_STICK = _rotation("body", "stick")

SKILLS: dict[str, Skill] = {
    "assembly-v3": _skill(*_NUT, tools.assembly, tools.assembly_old),
    "basketball-v3": _skill(
        _body("bsktball"), _quat("bsktball"), picking.basketball, picking.basketball_old, _site("goal")
    ),
    "bin-picking-v3": _skill(_OBJ, _quat("obj"), picking.bin_picking, picking.bin_picking_old, _body("bin_goal")),
    "box-close-v3": _skill(_body("top_link"), _quat("top_link"), doors.box_close, picking.box_close_old),
    "button-press-topdown-v3": _skill(
        *_TOP_BUTTON, buttons.button_press_topdown, buttons.button_press_topdown_old
    ),
    "button-press-topdown-wall-v3": _skill(
        *_TOP_BUTTON, buttons.button_press_topdown_wall, buttons.button_press_topdown_old
    ),
    "button-press-v3": _skill(*_BUTTON, buttons.button_press, buttons.button_press_old),
    "button-press-wall-v3": _skill(*_BUTTON, buttons.button_press_wall, buttons.button_press_wall_old),
    "coffee-button-v3": _skill(
        _site("buttonStart"), _constant(1.0, 0.0, 0.0, 0.0), buttons.coffee_button, buttons.coffee_button_old
    ),
    "coffee-pull-v3": _skill(*_MUG, pushing.coffee, pushing.coffee_pull_old),
    "coffee-push-v3": _skill(*_MUG, pushing.coffee, pushing.coffee_push_old),
    "dial-turn-v3": _skill(buttons.dial_position, _quat("dial"), buttons.dial_turn, buttons.dial_turn_old),
    "disassemble-v3": _skill(*_NUT, tools.disassemble, tools.disassemble_old),
    "door-close-v3": _skill(*_DOOR, doors.door_close, doors.door_close_old),
    "door-lock-v3": _skill(_site("lockStartLock"), _quat("door_link"), doors.door_lock, doors.lock_old),
    "door-open-v3": _skill(*_DOOR, doors.door_open, doors.door_open_old),
    "door-unlock-v3": _skill(_site("lockStartUnlock"), _quat("door_link"), doors.door_unlock, doors.lock_old),
    "drawer-close-v3": _skill(
        _body("drawer_link", 0.0, -0.16, 0.05), _NONE, doors.drawer_close, doors.drawer_close_old
    ),
    "drawer-open-v3": _skill(
        _body("drawer_link", 0.0, -0.16, 0.0), _quat("drawer_link"), doors.drawer_open, doors.drawer_open_old
    ),
    "faucet-close-v3": _skill(
        _site("handleStartClose", 0.0, 0.0, -0.01), _quat("faucetBase"), doors.faucet_close, doors.faucet_old
    ),
    "faucet-open-v3": _skill(
        _site("handleStartOpen", 0.0, 0.0, -0.01), _quat("faucetBase"), doors.faucet_open, doors.faucet_old
    ),
    "hammer-v3": Skill(
        (_body("hammer"), _body("nail_link")),
        (_quat("hammer"), _quat("nail_link")),
        tools.hammer,
        tools.hammer_old,
    ),
    "hand-insert-v3": _skill(_OBJ, _quat("obj"), picking.hand_insert, picking.hand_insert_old),
    "handle-press-side-v3": _skill(*_HANDLE, buttons.handle_press, buttons.handle_press_old),
    "handle-press-v3": _skill(*_HANDLE, buttons.handle_press, buttons.handle_press_old),
    "handle-pull-side-v3": _skill(
        _site("handleCenter"), _NONE, buttons.handle_pull_side, buttons.handle_pull_side_old
    ),
    "handle-pull-v3": _skill(_site("handleRight"), _NONE, buttons.handle_pull, buttons.handle_pull_old),
    "lever-pull-v3": _skill(_site("leverStart"), _OBJ_ROTATION, buttons.lever_pull, buttons.lever_pull_old),
    "peg-insert-side-v3": _skill(
        _site("pegGrasp"), _rotation("site", "pegGrasp"), tools.peg_insert_side, picking.peg_insert_old
    ),
    "peg-unplug-side-v3": _skill(_site("pegEnd"), _quat("plug1"), tools.peg_unplug_side, tools.peg_unplug_old),
    "pick-out-of-hole-v3": _skill(_OBJ, _quat("obj"), picking.pick_out_of_hole, picking.pick_out_of_hole_old),
    "pick-place-v3": _skill(_OBJ, _OBJ_ROTATION, picking.pick_place, picking.place_old),
    "pick-place-wall-v3": _skill(_OBJ_GEOM, _OBJ_ROTATION, picking.pick_place_wall, picking.place_old),
    "plate-slide-back-side-v3": _skill(*_PUCK, pushing.plate_slide_side, pushing.plate_slide_old),
    "plate-slide-back-v3": _skill(*_PUCK, pushing.plate_slide_side, pushing.plate_slide_old),
    "plate-slide-side-v3": _skill(*_PUCK, pushing.plate_slide_side, pushing.plate_slide_old),
    "plate-slide-v3": _skill(*_PUCK, pushing.plate_slide, pushing.plate_slide_old),
    "push-back-v3": _skill(_OBJ_GEOM, _OBJ_ROTATION, pushing.push_back, pushing.push_far_old),
    "push-v3": _skill(_OBJ, _OBJ_ROTATION, pushing.push, pushing.push_old),
    "push-wall-v3": _skill(_OBJ_GEOM, _OBJ_ROTATION, pushing.push_wall, pushing.push_far_old),
    "reach-v3": _skill(_OBJ, _OBJ_ROTATION, pushing.reach, pushing.reach_old),
    "reach-wall-v3": _skill(_OBJ, _OBJ_ROTATION, pushing.reach, pushing.reach_old),
    "shelf-place-v3": _skill(_OBJ, _OBJ_ROTATION, picking.shelf_place, picking.place_old),
    "soccer-v3": _skill(
        _body("soccer_ball"), _rotation("body", "soccer_ball"), pushing.soccer, pushing.push_far_old
    ),
    "stick-pull-v3": Skill(
        (_body("stick"), _site("insertion")), (_STICK, _NONE), tools.stick_pull, tools.stick_pull_old
    ),
    "stick-push-v3": Skill(
        (_body("stick"), _site("insertion", 0.0, 0.09, 0.0)),
        (_STICK, _NONE),
        tools.stick_push,
        tools.stick_push_old,
    ),
    "sweep-into-v3": _skill(_OBJ, _OBJ_ROTATION, pushing.sweep_into, pushing.sweep_into_old),
    "sweep-v3": _skill(_OBJ, _quat("obj"), pushing.sweep, pushing.sweep_old),
    "window-close-v3": _skill(_site("handleCloseStart"), _NONE, doors.window_close, doors.window_old),
    "window-open-v3": _skill(_site("handleOpenStart"), _NONE, doors.window_open, doors.window_old),
}
