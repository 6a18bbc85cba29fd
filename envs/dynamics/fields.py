"""The fields that can be randomised, by name: their places in a compiled model, and the values physics allows.

A field of a kind of model element (bodies, geoms, joints, actuators) or of the whole model names arrays of
`mujoco.MjModel`; those of the control loop (delay, frame skip) and of the sensors act outside the model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import mujoco
import numpy as np

Kind = Literal["body", "geom", "joint", "actuator", "model", "control", "sensor", "target"]
Mode = Literal["factor", "absolute", "offset"]
PAYLOAD = ":payload"
"""Ends the name of the massless body that carries a body's payload."""
_ALL = (0, 1, 2)


class Columns(NamedTuple):
    """Part of a model array: its name, and which columns of a row belong to the field; none for a vector."""

    array: str
    columns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Field:
    """One quantity that can be randomised.

    Attributes:
        kind: Kind of the targets.
        writes: Model arrays that the field changes; empty for control and sensors.
        lowest: Least value that physics allows.
        strict: Whether the least value itself is forbidden.
        modes: Allowed modes of a value; the first is the default.
        integer: Whether only whole numbers make sense.
        payload: Whether values are written to the payload body of the target instead of to the target.
        signs: Factors of the columns when a value is absolute, for +-limits for instance.
    """

    kind: Kind
    writes: tuple[Columns, ...] = ()
    lowest: float = -math.inf
    strict: bool = False
    modes: tuple[Mode, ...] = ("factor", "absolute", "offset")
    integer: bool = False
    payload: bool = False
    signs: tuple[float, ...] = ()


_POSITIVE_MODES: tuple[Mode, ...] = ("factor", "absolute", "offset")
_ADDED: tuple[Mode, ...] = ("offset", "absolute", "factor")
_SET: tuple[Mode, ...] = ("absolute",)
_SCALED: tuple[Mode, ...] = ("factor",)
_WHOLE: tuple[Mode, ...] = ("factor", "absolute")
_GAINS = Columns("actuator_gainprm", _ALL)

FIELDS: dict[str, Field] = {
    # Of bodies. Density is mass and inertia together: the same shape of another material.
    "mass": Field("body", (Columns("body_mass"),), 0.0, strict=True),
    "inertia": Field("body", (Columns("body_inertia", _ALL),), 0.0, strict=True, modes=_SCALED),
    **{
        f"inertia_{axis}": Field("body", (Columns("body_inertia", (i,)),), 0.0, strict=True)
        for i, axis in enumerate("xyz")
    },
    "density": Field(
        "body", (Columns("body_mass"), Columns("body_inertia", _ALL)), 0.0, strict=True, modes=_SCALED
    ),
    **{f"com_{axis}": Field("body", (Columns("body_ipos", (i,)),), modes=_ADDED) for i, axis in enumerate("xyz")},
    "payload": Field("body", (Columns("body_mass"),), 0.0, modes=_SET, payload=True),
    **{
        f"payload_{axis}": Field("body", (Columns("body_ipos", (i,)),), modes=_SET, payload=True)
        for i, axis in enumerate("xyz")
    },
    # Of geoms: sliding friction has no unit, torsional and rolling are metres.
    "friction": Field("geom", (Columns("geom_friction", (0,)),), 0.0),
    "torsional_friction": Field("geom", (Columns("geom_friction", (1,)),), 0.0),
    "rolling_friction": Field("geom", (Columns("geom_friction", (2,)),), 0.0),
    # Of joints.
    "damping": Field("joint", (Columns("dof_damping"),), 0.0),
    "armature": Field("joint", (Columns("dof_armature"),), 0.0),
    "friction_loss": Field("joint", (Columns("dof_frictionloss"),), 0.0),
    # Of actuators. Strength scales the whole force, of motors and of servos; stiffness the pull of position servos
    # to where they settle. Control limits can only shrink: actions have the nominal ones.
    "strength": Field("actuator", (_GAINS, Columns("actuator_biasprm", _ALL)), 0.0, modes=_SCALED),
    "gain": Field("actuator", (Columns("actuator_gainprm", (0,)),)),
    "stiffness": Field(
        "actuator", (Columns("actuator_gainprm", (0,)), Columns("actuator_biasprm", (1,))), 0.0, modes=_SCALED
    ),
    "bias": Field("actuator", (Columns("actuator_biasprm", (0,)),), modes=_ADDED),
    "ctrl_limit": Field(
        "actuator", (Columns("actuator_ctrlrange", (0, 1)),), 0.0, strict=True, modes=_WHOLE, signs=(-1.0, 1.0)
    ),
    "force_limit": Field(
        "actuator", (Columns("actuator_forcerange", (0, 1)),), 0.0, strict=True, modes=_WHOLE, signs=(-1.0, 1.0)
    ),
    # Of the world: gravity in m/s^2, its magnitude or a component; a tilt, in degrees, raises the ground along +x.
    "gravity": Field("model", (Columns("opt.gravity", _ALL),), 0.0, modes=_WHOLE),
    **{
        f"gravity_{axis}": Field("model", (Columns("opt.gravity", (i,)),), modes=_SET)
        for i, axis in enumerate("xyz")
    },
    "tilt": Field("model", modes=_SET),
    # Of the control loop: in control steps, and physics steps per control step.
    "delay": Field("control", lowest=0.0, modes=_SET, integer=True),
    "delay_jitter": Field("control", lowest=0.0, modes=_SET, integer=True),
    "frame_skip": Field("control", lowest=1.0, modes=_SET, integer=True),
    "change_step": Field("control", lowest=0.0, modes=_SET, integer=True),
    # Of the reward: where something should be, in metres or m/s; one number per axis that is a target.
    "target": Field("target", modes=_SET),
    # Of the observation, in its units.
    "sensor_noise": Field("sensor", lowest=0.0, modes=_SET),
    "sensor_bias": Field("sensor", modes=_SET),
}


class Write(NamedTuple):
    """The places of one parameter's numbers in a model: flat indices of one array.

    Attributes:
        array: Name of the model's attribute, with a dot for those of `opt`.
        indices: Indices into the flattened array, [element].
        components: Index of the parameter's number for each element, [element].
        nominal: Values of the elements in the nominal model, a copy, [element].
        signs: Factor of each element when the value is absolute, [element].
    """

    array: str
    indices: np.ndarray
    components: np.ndarray
    nominal: np.ndarray
    signs: np.ndarray

    def values(self, value: float | Sequence[float], mode: Mode) -> np.ndarray:
        """New values of the elements, [element]."""
        numbers: np.ndarray = np.atleast_1d(np.asarray(value, dtype=np.float64))[self.components]
        by_mode: dict[Mode, np.ndarray] = {
            "factor": self.nominal * numbers,
            "absolute": self.signs * numbers,
            "offset": self.nominal + numbers,
        }
        return by_mode[mode]


def flat(model: mujoco.MjModel, array: str) -> np.ndarray:
    """A flat view of a model's array; writing to it writes to the model."""
    holder, _, name = array.rpartition(".")
    view: np.ndarray = getattr(getattr(model, holder) if holder else model, name).reshape(-1)
    return view


def element_names(model: mujoco.MjModel, kind: Kind) -> list[str]:
    """Names of the model's bodies, geoms, joints or actuators by id; an unnamed one is "geom 3", say."""
    one = {"body": model.body, "geom": model.geom, "joint": model.joint, "actuator": model.actuator}[kind]
    count = {"body": model.nbody, "geom": model.ngeom, "joint": model.njnt, "actuator": model.nu}[kind]
    return [one(i).name or f"{kind} {i}" for i in range(count)]


def resolve_writes(
    name: str, mode: Mode, model: mujoco.MjModel, targets: Sequence[str], each: bool
) -> list[Write]:
    """The places of a field's numbers in a model, for targets from `find_targets`."""
    field = FIELDS[name]
    names = element_names(model, field.kind) if field.kind != "model" else []
    writes = []
    for array, columns in field.writes:
        view = flat(model, array)
        indices: list[int] = []
        components: list[int] = []
        signs: list[float] = []
        for place, target in enumerate(targets or [""]):
            rows = [0] if field.kind == "model" else _rows(model, field, names, target)
            width = {"opt.gravity": 3}.get(array) or _width(model, array)
            own = [row * width + column for row in rows for column in (columns or (0,))]
            indices += own
            components += [place if each else 0] * len(own)
            signs += list(field.signs) * len(rows) if field.signs else [1.0] * len(own)
        places = np.array(indices, dtype=np.int64)
        nominal = view[places].copy()
        sign_array = np.array(signs)
        if name == "gravity" and mode == "absolute":
            sign_array = nominal / np.linalg.norm(nominal)
        writes.append(Write(array, places, np.array(components, dtype=np.int64), nominal, sign_array))
    return writes


def find_targets(name: str, mode: Mode, model: mujoco.MjModel, targets: Sequence[str]) -> list[str]:
    """The names that a field is to change in a model, all that make sense by default.

    By default: bodies with mass; geoms of bodies that move; joints that are actuated (all, if none is); all
    actuators; and in factor mode only elements with a value to scale.

    Raises:
        ValueError: if a target is not in the model, or has nothing to scale.
    """
    field = FIELDS[name]
    if field.kind in ("model", "control"):
        if name == "gravity" and not model.opt.gravity.any():
            raise ValueError("field 'gravity': the model has none, to scale or to have a direction; use gravity_z")
        if targets:
            raise ValueError(f"field {name!r} is of the whole model and takes no targets, got {list(targets)}")
        return []
    names = element_names(model, field.kind)
    known = [n for n in names if not n.endswith(PAYLOAD)] if field.kind == "body" else names
    for target in targets:
        if target not in known or (field.kind == "body" and target == names[0]):
            there = ", ".join(known[1:] if field.kind == "body" else known)
            raise ValueError(f"field {name!r}: no {field.kind} {target!r} in the model; there are {there}")
    chosen = list(targets) or [known[i] for i in _usual(model, field.kind)]
    for target in chosen:
        if why := _does_nothing(name, model, names.index(target)):
            raise ValueError(f"field {name!r}: {target!r} {why}")
    if mode != "factor":
        return chosen
    scalable = [t for t in chosen if any(w.nominal.any() for w in resolve_writes(name, mode, model, [t], False))]
    if missing := [t for t in targets if t not in scalable]:
        raise ValueError(
            f"field {name!r}: {missing[0]!r} is 0 in the model, which no factor changes; use mode absolute"
        )
    if not scalable:
        raise ValueError(f"field {name!r}: the model has nothing to scale; use mode absolute and name targets")
    return scalable


def _does_nothing(name: str, model: mujoco.MjModel, index: int) -> str:
    """Why a field would not do to an element what its name says; empty if it does."""
    if name in ("friction", "torsional_friction", "rolling_friction"):
        paired = index in model.pair_geom1 or index in model.pair_geom2
        return "is in a <pair> of the model, which has a friction of its own; remove the pair" if paired else ""
    return _no_force(name, model, index) if name in ("strength", "gain", "bias", "stiffness") else ""


def _no_force(name: str, model: mujoco.MjModel, index: int) -> str:
    # As integers: in MuJoCo 4 an enumeration equals no number of NumPy.
    gain_type, bias_type = int(model.actuator_gaintype[index]), int(model.actuator_biastype[index])
    if gain_type in _OWN_GAINS or bias_type in _OWN_BIASES:
        return (
            "is a muscle or has a gain of its user's, whose parameters are no forces; leave it out of the targets"
        )
    gain, (pull, drag) = model.actuator_gainprm[index, 0], model.actuator_biasprm[index, 1:3]
    affine = bias_type == mujoco.mjtBias.mjBIAS_AFFINE
    if name == "gain" and affine and (pull or drag):
        return "is a servo, whose gain says where it settles; use stiffness or strength"
    if name == "stiffness" and not (affine and pull and gain == -pull):
        return "is no position servo; use gain or strength"
    return ""


_OWN_GAINS = (mujoco.mjtGain.mjGAIN_MUSCLE, mujoco.mjtGain.mjGAIN_USER)
_OWN_BIASES = (mujoco.mjtBias.mjBIAS_MUSCLE, mujoco.mjtBias.mjBIAS_USER)


def _usual(model: mujoco.MjModel, kind: Kind) -> list[int]:
    """Ids of the elements that are randomised where none is named."""
    if kind == "body":
        return [i for i in range(1, model.nbody) if model.body_mass[i] > 0.0]
    if kind == "geom":
        return [i for i in range(model.ngeom) if model.body_weldid[model.geom_bodyid[i]] != 0]
    if kind == "joint":
        on_joints = (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT)
        driven = {
            int(model.actuator_trnid[i, 0]) for i in range(model.nu) if int(model.actuator_trntype[i]) in on_joints
        }
        return sorted(driven) or list(range(model.njnt))
    return list(range(model.nu))


def _rows(model: mujoco.MjModel, field: Field, names: Sequence[str], target: str) -> list[int]:
    """Rows of the field's arrays that belong to a target."""
    if field.payload:
        return [list(names).index(target + PAYLOAD)]
    index = list(names).index(target)
    if field.kind != "joint":
        return [index]
    first = int(model.jnt_dofadr[index])
    last = int(model.jnt_dofadr[index + 1]) if index + 1 < model.njnt else int(model.nv)
    return list(range(first, last))


def _width(model: mujoco.MjModel, array: str) -> int:
    shape = getattr(model, array).shape
    return int(shape[1]) if len(shape) > 1 else 1
