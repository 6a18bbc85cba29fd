"""Whether a randomised field does anything: its lowest value is stepped beside its highest one.

Both simulations have the same start and the same random controls; where their states never differ, the field does
nothing. Starts are the model's own pose and random ones, in which parts touch that seldom do.
"""

from collections.abc import Sequence
from dataclasses import replace

import mujoco
import numpy as np

from metarl.envs.dynamics.fields import FIELDS, element_names
from metarl.envs.dynamics.physics import Edit, Physics, edited_model, make_edit
from metarl.envs.dynamics.ranges import Range
from metarl.envs.mujoco.engine import disable_warm_start
from metarl.tasks import Value

_STARTS = 8
_STEPS = 300
_HELD = 5
"""Physics steps for which a random control is held."""


def fields_without_effect(
    nominal: mujoco.MjModel, ranges: Sequence[Range], edits: dict[str, Edit], physics: Physics
) -> tuple[list[str], list[str]]:
    """The ranges, or targets of ranges, that change no state: for certain, and as far as was tried.

    A range whose targets are named, or that has a number for each, must act on every target; another one on the
    whole. All other parameters are in the middle of their ranges.

    Args:
        nominal: Model that the edits are made to; it is left as it is.
        ranges: Ranges that hold together, in the order in which they are applied.
        edits: Edit of every range that is about the model, by name.
        physics: Rules for derived constants.

    Returns:
        Two lists of "field 'friction' of 'cart'": of what does nothing, and of geoms that never touched anything
        although they could.
    """
    ranges = [r for r in ranges if r.name in edits]
    middle: dict[str, Value] = {
        r.name: _value(r, (r.low + r.high) / 2, len(edits[r.name].targets)) for r in ranges
    }
    scratch = mujoco.MjData(nominal)
    nothing: list[str] = []
    untried: list[str] = []
    for r in ranges:
        edit = edits[r.name]
        if r.low == r.high or FIELDS[r.field].kind == "target":
            continue
        single = [replace(r, targets=(target,)) for target in edit.targets] if r.targets or r.each else [r]
        for part in single:
            own = make_edit(nominal, part)
            models = []
            for value in (r.low, r.high):
                # The part last: it overwrites what the whole range wrote in the middle.
                params = middle | {"": _value(part, value, len(own.targets))}
                order = [edits[other.name] for other in ranges] + [own._replace(name="")]
                models.append(edited_model(nominal, order, params, physics, scratch))
            touched = _differ(models, own)
            if touched is None:
                continue
            label = f"field {r.field!r}" + (f" of {part.targets[0]!r}" if part.targets else "")
            (nothing if touched or not _could_touch(nominal, own) else untried).append(label)
    return nothing, untried


def _differ(models: Sequence[mujoco.MjModel], edit: Edit) -> bool | None:
    """None where the states of two models differ; else whether the edited geoms touched anything."""
    low, high = models
    for model in models:
        disable_warm_start(model)
    geoms = _geoms(low, edit)
    touched = not len(geoms)  # other elements always act, if they act at all
    rng = np.random.default_rng(0)
    first, second = mujoco.MjData(low), mujoco.MjData(high)
    for start in range(_STARTS):
        mujoco.mj_resetData(low, first)
        mujoco.mj_resetData(high, second)
        if start:
            first.qpos[:] = _random_pose(low, rng)
        first.qvel[:] = rng.uniform(-1.0, 1.0, low.nv)
        second.qpos[:], second.qvel[:] = first.qpos, first.qvel
        for step in range(_STEPS):
            if step % _HELD == 0:
                controls = rng.uniform(*low.actuator_ctrlrange.T)
                first.ctrl[:] = second.ctrl[:] = controls
            mujoco.mj_step(low, first)
            mujoco.mj_step(high, second)
            if not (np.array_equal(first.qpos, second.qpos) and np.array_equal(first.qvel, second.qvel)):
                return None
            if not touched and first.ncon:
                touched = bool(np.isin(first.contact.geom[: first.ncon], geoms).any())
    return touched


def _geoms(model: mujoco.MjModel, edit: Edit) -> np.ndarray:
    """Ids of the geoms that an edit is about; none for other elements."""
    if FIELDS[edit.field].kind != "geom":
        return np.zeros(0, dtype=np.int64)
    names = element_names(model, "geom")
    return np.array([names.index(target) for target in edit.targets])


def _could_touch(model: mujoco.MjModel, edit: Edit) -> bool:
    """Whether the edited geoms may collide with one of another body, by their masks."""
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT.value:
        return False
    for i in _geoms(model, edit):
        meets = (model.geom_contype[i] & model.geom_conaffinity) | (model.geom_contype & model.geom_conaffinity[i])
        if (meets.astype(bool) & (model.geom_bodyid != model.geom_bodyid[i])).any():
            return True
    return False


def _random_pose(model: mujoco.MjModel, rng: np.random.Generator) -> np.ndarray:
    """Joint positions within the joints' limits, or half a turn or 0.3 m about the model's pose."""
    qpos: np.ndarray = model.qpos0.copy()
    for j in range(model.njnt):
        at, kind = int(model.jnt_qposadr[j]), int(model.jnt_type[j])
        if kind in (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_BALL):
            free = kind == mujoco.mjtJoint.mjJNT_FREE
            if free:
                qpos[at + 2] *= rng.uniform(0.3, 1.0)
            turn = rng.standard_normal(4)
            qpos[at + 3 * free : at + 3 * free + 4] = turn / np.linalg.norm(turn)
            continue
        extent = np.pi if kind == mujoco.mjtJoint.mjJNT_HINGE else 0.3
        low, high = qpos[at] - extent, qpos[at] + extent
        if model.jnt_limited[j]:
            low, high = model.jnt_range[j]
        qpos[at] = rng.uniform(low, high)
    return qpos


def _value(r: Range, value: float, num_targets: int) -> Value:
    return (value,) * num_targets if r.each else value
