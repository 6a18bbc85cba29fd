"""The nominal model of a randomised robot, the edits of tasks to it, and settings of the simulator itself."""

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import mujoco
import numpy as np

from metarl.envs.dynamics.fields import FIELDS, PAYLOAD, Mode, Write, element_names, find_targets, resolve_writes
from metarl.envs.dynamics.ranges import Range
from metarl.envs.dynamics.terms import add_sensors
from metarl.envs.mujoco.robots import Robot, compiled
from metarl.runs.configs import MOST_REPEATS, check_counts
from metarl.tasks import Value

_FRICTIONS = ("friction", "torsional_friction", "rolling_friction")
_INTEGRATORS = {
    "euler": mujoco.mjtIntegrator.mjINT_EULER,
    "rk4": mujoco.mjtIntegrator.mjINT_RK4,
    "implicit": mujoco.mjtIntegrator.mjINT_IMPLICIT,
    "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
}
_CONES = {"pyramidal": mujoco.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mujoco.mjtCone.mjCONE_ELLIPTIC}


@dataclass(frozen=True)
class Physics:
    """Rules that keep an edited model true to physics.

    Attributes:
        recompute_constants: Whether derived constants (inverse weights, subtree masses) follow the edited masses.
        physical_inertia: Whether the largest principal moment is at most the sum of the others, as for every
            solid.
        robot_friction: Whether a geom whose friction is randomised decides the friction of its contacts. By
            MuJoCo's own rule the larger of the two geoms' does, so that less than the floor's changes nothing.
    """

    recompute_constants: bool = True
    physical_inertia: bool = True
    robot_friction: bool = True


PHYSICAL = Physics()
"""What a real robot would do."""
LITERATURE = Physics(recompute_constants=False, physical_inertia=False, robot_friction=False)
"""What the codes of the meta-RL literature do: arrays are written and nothing else."""


@dataclass(frozen=True)
class SimulatorGap:
    """Another simulator for the same tasks; settings that are None keep the model's values.

    Attributes:
        timestep: Duration of a physics step in seconds; it must divide the control period.
        integrator: Integrator of the equations of motion.
        cone: Shape of the friction cone.
        impratio: Ratio of frictional to normal constraint impedance.
        iterations: Most iterations of the constraint solver.
        solref: Reference of all contacts: time constant in seconds, and damping ratio.
        solimp: Impedance of all contacts, MuJoCo's five numbers.
    """

    timestep: float | None = None
    integrator: Literal["euler", "rk4", "implicit", "implicitfast"] | None = None
    cone: Literal["pyramidal", "elliptic"] | None = None
    impratio: float | None = None
    iterations: int | None = None
    solref: tuple[float, float] | None = None
    solimp: tuple[float, float, float, float, float] | None = None

    def __post_init__(self) -> None:
        check_counts(self, "iterations", most=MOST_REPEATS)
        for name in ("timestep", "impratio"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"the simulator's {name} must be above 0, got {value!r}")
        for name, known in (("integrator", _INTEGRATORS), ("cone", _CONES)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(f"the simulator's {name} must be one of {', '.join(known)}, got {value!r}")
        for name, size in (("solref", 2), ("solimp", 5)):
            value = getattr(self, name)
            if value is not None and len(value) != size:
                raise ValueError(f"the simulator's {name} must be {size} numbers, got {value!r}")

    def apply(self, model: mujoco.MjModel) -> None:
        """Set the options of a model that are not None."""
        for name in ("timestep", "impratio", "iterations"):
            if getattr(self, name) is not None:
                setattr(model.opt, name, getattr(self, name))
        if self.integrator is not None:
            model.opt.integrator = _INTEGRATORS[self.integrator]
        if self.cone is not None:
            model.opt.cone = _CONES[self.cone]
        if self.solref is not None:
            model.geom_solref[:] = self.solref
        if self.solimp is not None:
            model.geom_solimp[:] = self.solimp

    def substeps(self, timestep: float) -> float:
        """Physics steps of the gap's simulator per physics step of the original one."""
        return 1.0 if self.timestep is None else timestep / self.timestep


NO_GAP = SimulatorGap()
"""The simulator as the model file has it."""


class Edit(NamedTuple):
    """The effect of one task parameter on a model."""

    name: str
    field: str
    mode: Mode
    writes: tuple[Write, ...]
    targets: tuple[str, ...]


def build_nominal(
    robot: Robot, ranges: Sequence[Range], physics: Physics, measured: Sequence[str] = ()
) -> mujoco.MjModel:
    """The robot's model, made ready for the ranges; it moves as the robot's own does.

    Payloads ride on massless bodies of their own. Where a centre of mass is to move, MuJoCo's shortcuts that take
    frames to coincide are switched off.

    Raises:
        ValueError: if the model cannot be read, or a range names what is not in it.
    """
    spec = robot.build_spec()
    _strip_looks(spec)
    plain = robot.build_model()
    carriers = _bodies(plain, ranges, [name for name, field in FIELDS.items() if field.payload], named=True)
    shifted = _bodies(plain, ranges, ["com_x", "com_y", "com_z"])
    if carriers or shifted:
        _name_bodies(spec, plain)
    for body in dict.fromkeys((*carriers, *shifted)):
        # A body with a child is none of those whose mass matrix MuJoCo keeps as constants.
        added = spec.body(body).add_body(name=body + PAYLOAD)
        added.explicitinertial = True
        added.mass, added.inertia = 0.0, [0.0, 0.0, 0.0]
        spec.compiler.fusestatic = False
    add_sensors(spec, measured, plain, [r.name for r in ranges if r.field == "target"])
    model = compiled(spec)
    for i in range(model.nbody):
        if model.body(i).name.endswith(PAYLOAD):
            model.body_mass[i], model.body_inertia[i], model.body_ipos[i] = 0.0, 0.0, 0.0
            model.body_iquat[i], model.body_sameframe[i] = (1.0, 0.0, 0.0, 0.0), 0
    _free_frames(model, shifted)
    for r in ranges:
        _ready(model, r, physics)
    return model


def _strip_looks(spec: mujoco.MjSpec) -> None:
    """Remove what is only looked at: the caches have to hold a model for every environment."""
    if spec.skins or spec.flexes or spec.sensors:  # which may refer to materials and cameras
        return
    for owner in (*spec.geoms, *spec.sites, *spec.tendons):
        owner.material = ""
    for decoration in (*spec.materials, *spec.textures, *spec.lights, *spec.cameras):
        if hasattr(spec, "delete"):  # MuJoCo 3.3.3 and later
            spec.delete(decoration)
        else:
            decoration.delete()


def _name_bodies(spec: mujoco.MjSpec, plain: mujoco.MjModel) -> None:
    """Give unnamed bodies the names that `element_names` has for them: added bodies change their numbers."""
    bodies = _with_descendants(spec.worldbody)  # in the order of the compiled model
    if all(body.name for body in bodies):
        return
    if len(bodies) != plain.nbody:
        raise ValueError("the model has bodies without a name and fuses static bodies; give all bodies names")
    for body, name in zip(bodies, element_names(plain, "body"), strict=True):
        body.name = name


def _with_descendants(body: mujoco.MjsBody) -> list[mujoco.MjsBody]:
    return [body, *(below for child in body.bodies for below in _with_descendants(child))]


def _bodies(
    model: mujoco.MjModel, ranges: Sequence[Range], fields: Sequence[str], named: bool = False
) -> list[str]:
    """Bodies that ranges of the fields are about."""
    names: list[str] = []
    for r in ranges:
        if r.field in fields:
            if named and not r.targets:
                raise ValueError(
                    f"range {r.name!r}: field {r.field!r} needs the names of the bodies that carry it"
                )
            names += find_targets(r.field, "offset", model, r.targets)
    return names


def _free_frames(model: mujoco.MjModel, bodies: Sequence[str]) -> None:
    """Let the centres of mass of the bodies move: they are no longer where compilation found them."""
    for body in bodies:
        i = model.body(body).id
        model.body_sameframe[i] = 0
        for frames, owners in (
            (model.geom_sameframe, model.geom_bodyid),
            (model.site_sameframe, model.site_bodyid),
        ):
            frames[owners == i] = 0
        # Bounding volumes of bodies with many geoms are relative to the centre of mass.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_MIDPHASE.value


def _ready(model: mujoco.MjModel, r: Range, physics: Physics) -> None:
    """Switch on what a range's field needs in the nominal model to have an effect."""
    kind = FIELDS[r.field].kind
    if kind not in ("geom", "actuator"):
        return
    targets = find_targets(r.field, "offset", model, r.targets)
    ids = [element_names(model, kind).index(target) for target in targets]
    if r.field in _FRICTIONS and physics.robot_friction:
        static = model.body_weldid[model.geom_bodyid] == 0
        for i in ids:
            if static[i] or not static.any() or model.geom_priority[i] > model.geom_priority[static].max():
                continue
            # The contact stays what it was: the larger friction, the larger number of dimensions.
            model.geom_friction[i] = np.maximum(model.geom_friction[i], model.geom_friction[static].max(0))
            model.geom_condim[i] = max(model.geom_condim[i], model.geom_condim[static].max())
            model.geom_priority[i] = model.geom_priority[static].max() + 1
    if r.field == "bias":
        none = [i for i in ids if model.actuator_biastype[i] == mujoco.mjtBias.mjBIAS_NONE]
        model.actuator_biasprm[none] = 0.0
        model.actuator_biastype[none] = mujoco.mjtBias.mjBIAS_AFFINE
    if r.field == "force_limit" and r.mode == "absolute":
        free = [i for i in ids if not model.actuator_forcelimited[i]]
        model.actuator_forcerange[free] = (-1e12, 1e12)
        model.actuator_forcelimited[free] = 1


def make_edit(model: mujoco.MjModel, r: Range) -> Edit:
    """The effect of a range's parameter on a nominal model.

    Raises:
        ValueError: if a target is not in the model, or a value of the range would leave physics.
    """
    field, mode = FIELDS[r.field], r.value_mode
    targets = find_targets(r.field, mode, model, r.targets)
    writes = tuple(resolve_writes(r.field, mode, model, targets, r.each))
    if mode == "offset":  # the range itself has checked the other modes
        for write, value in itertools.product(writes, (r.outer_low, r.outer_high)):
            lowest = write.values(np.full(max(1, len(targets)), value), mode).min()
            if lowest < field.lowest or (field.strict and lowest == field.lowest):
                least = f"above {field.lowest:g}" if field.strict else f"{field.lowest:g} or more"
                raise ValueError(f"range {r.name!r}: {r.field} must be {least}; {value:g} makes it {lowest:g}")
    if r.field == "ctrl_limit":
        highest = [r.outer_high] * len(targets)
        if any((np.abs(write.values(highest, mode)) > np.abs(write.nominal)).any() for write in writes):
            raise ValueError(
                f"range {r.name!r}: ctrl_limit can only shrink, as actions have the model's limits; "
                f"{r.outer_high:g} widens one"
            )
    return Edit(r.name, r.field, mode, writes, tuple(targets))


def edited_model(
    nominal: mujoco.MjModel,
    edits: Sequence[Edit],
    params: Mapping[str, Value],
    physics: Physics,
    scratch: mujoco.MjData,
) -> mujoco.MjModel:
    """A copy of the nominal model with a task's parameters written to it.

    Args:
        nominal: Nominal model; it is not changed.
        edits: Edits in the order in which they are made.
        params: Values of the parameters, by the name of every edit.
        physics: Rules for the constants that depend on the edits.
        scratch: Data of the nominal model, whose contents are lost.
    """
    model = copy.copy(nominal)
    for edit in edits:
        for write in edit.writes:
            holder, _, name = write.array.rpartition(".")
            array = getattr(getattr(model, holder) if holder else model, name)
            array.reshape(-1)[write.indices] = write.values(params[edit.name], edit.mode)
    written = {write.array for edit in edits for write in edit.writes}
    if tilts := [edit.name for edit in edits if edit.field == "tilt"]:
        _tilt(model.opt.gravity, math.radians(cast(float, params[tilts[-1]])))
    if physics.physical_inertia and "body_inertia" in written:
        largest = np.argmax(model.body_inertia, axis=1)[:, None]
        others = model.body_inertia.sum(1, keepdims=True) - np.take_along_axis(model.body_inertia, largest, 1)
        value = np.minimum(np.take_along_axis(model.body_inertia, largest, 1), others)
        np.put_along_axis(model.body_inertia, largest, value, 1)
    if physics.recompute_constants and written & _CONSTANT_SOURCES:
        mujoco.mj_setConst(model, scratch)
    return model


_CONSTANT_SOURCES = {"body_mass", "body_inertia", "body_ipos", "dof_armature"}


def _tilt(gravity: np.ndarray, angle: float) -> None:
    """Turn gravity about y, so that the ground rises along +x by an angle in radians."""
    x, z = gravity[0], gravity[2]
    gravity[0] = math.cos(angle) * x + math.sin(angle) * z
    gravity[2] = math.cos(angle) * z - math.sin(angle) * x
