"""Edited models: every field writes what it names and nothing else, and moves the robot as physics says."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest

from metarl.envs.dynamics import (
    FIELDS,
    LITERATURE,
    PHYSICAL,
    DynamicsFamily,
    ForwardReward,
    Physics,
    Randomization,
    Range,
    dynamics_family,
)
from metarl.envs.mujoco.robots import HALF_CHEETAH, HOPPER, WALKER2D, Robot
from metarl.tasks import Task

# An arm on a cart, a box that lies on the floor, and a body of two geoms; a motor and a servo with a force limit.
ARM = """
<mujoco>
  <option timestep="0.005"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1" friction="0.8 0.02 0.002" condim="4"/>
    <body name="cart" pos="0 0 1">
      <joint name="slide" type="slide" axis="1 0 0"/>
      <geom name="cart" type="box" size="0.2 0.1 0.1" mass="2" contype="0" conaffinity="0"/>
      <body name="arm" pos="0 0 0.1">
        <joint name="hinge" axis="0 1 0" damping="0.3" armature="0.05" frictionloss="0.1"/>
        <geom name="arm" type="capsule" fromto="0 0 0 0 0 0.5" size="0.05" mass="1" condim="1"/>
        <geom name="hand" type="sphere" pos="0 0 0.55" size="0.08" mass="0.3" friction="0.5 0.01 0.001"/>
        <site name="tip" pos="0 0 0.6"/>
      </body>
    </body>
    <body name="box" pos="1 0 0.099">
      <freejoint name="box"/>
      <geom name="box" type="box" size="0.1 0.1 0.1" mass="0.5"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="motor" joint="slide" gear="10" ctrllimited="true" ctrlrange="-1 1"/>
    <position name="servo" joint="hinge" kp="5" kv="1" ctrllimited="true" ctrlrange="-2 2"
              forcelimited="true" forcerange="-3 3"/>
  </actuator>
</mujoco>
"""
DERIVED = {
    "actuator_acc0", "body_invweight0", "body_subtreemass", "dof_invweight0", "dof_M0", "tendon_invweight0",
    "stat.meaninertia", "stat.meanmass", "stat.meansize", "stat.extent", "stat.center",
}  # fmt: skip
if mujoco.mj_version() >= 4_000_000:  # its mj_setConst also finds anew which frames coincide, and bounding volumes
    DERIVED |= {"body_sameframe", "geom_sameframe", "site_sameframe", "bvh_aabb", "dof_length"}


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Robot:
    path: Path = tmp_path_factory.mktemp("models") / "arm.xml"
    path.write_text(ARM)
    return Robot("arm", str(path), 4, 0, 0.01, "uniform")


def make_family(robot: Robot, *ranges: Range, physics: Physics = PHYSICAL) -> DynamicsFamily:
    return DynamicsFamily("test", robot, Randomization(ranges), ForwardReward(), physics=physics)


def edited(family: DynamicsFamily, *values: float | tuple[float, ...]) -> mujoco.MjModel:
    """The model of the task with these values, one per range."""
    params = {p.name: value for p, value in zip(family.parameters, values, strict=True)}
    task = Task(family.name, tuple(params.items()))
    family.check(task)
    return family.model_for(task, family.build_model())


def arrays(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Every number of a model by name, copied."""
    found = {}
    for prefix, holder in (("", model), ("opt.", model.opt), ("stat.", model.stat)):
        for name in dir(holder):
            value = getattr(holder, name) if not name.startswith("_") else None
            if isinstance(value, np.ndarray | int | float):
                found[prefix + name] = np.array(value)
    return found


def differences(first: mujoco.MjModel, second: mujoco.MjModel) -> set[str]:
    a, b = arrays(first), arrays(second)
    assert set(a) == set(b)
    assert len(a) > 200
    return {name for name in a if not np.array_equal(a[name], b[name])}


def column(array: str, row: int, col: int | slice = slice(None)) -> Callable[[mujoco.MjModel], np.ndarray]:
    return lambda model: np.atleast_1d(getattr(model, array)[row])[col]


# field, target, mode, value, the array that changes, where, and what stands there afterwards
CASES = [
    ("mass", "arm", "factor", 2.0, "body_mass", column("body_mass", 2), [2.6]),
    ("mass", "arm", "absolute", 2.0, "body_mass", column("body_mass", 2), [2.0]),
    ("mass", "arm", "offset", 2.0, "body_mass", column("body_mass", 2), [3.3]),
    ("friction", "hand", "factor", 2.0, "geom_friction", column("geom_friction", 3), [1.6, 0.02, 0.002]),
    ("torsional_friction", "hand", "absolute", 2.0, "geom_friction", column("geom_friction", 3), [0.8, 2, 0.002]),
    ("rolling_friction", "hand", "factor", 2.0, "geom_friction", column("geom_friction", 3), [0.8, 0.02, 0.004]),
    ("damping", "hinge", "factor", 2.0, "dof_damping", column("dof_damping", 1), [0.6]),
    ("armature", "hinge", "factor", 2.0, "dof_armature", column("dof_armature", 1), [0.1]),
    ("friction_loss", "hinge", "offset", 2.0, "dof_frictionloss", column("dof_frictionloss", 1), [2.1]),
    ("gain", "motor", "factor", 2.0, "actuator_gainprm", column("actuator_gainprm", 0, slice(3)), [2, 0, 0]),
    ("bias", "servo", "offset", 2.0, "actuator_biasprm", column("actuator_biasprm", 1, slice(3)), [2, -5, -1]),
    ("bias", "motor", "absolute", 2.0, "actuator_biasprm", column("actuator_biasprm", 0, slice(3)), [2, 0, 0]),
    ("ctrl_limit", "servo", "factor", 0.5, "actuator_ctrlrange", column("actuator_ctrlrange", 1), [-1, 1]),
    ("ctrl_limit", "motor", "absolute", 0.5, "actuator_ctrlrange", column("actuator_ctrlrange", 0), [-0.5, 0.5]),
    ("force_limit", "servo", "factor", 2.0, "actuator_forcerange", column("actuator_forcerange", 1), [-6, 6]),
    ("force_limit", "motor", "absolute", 2.0, "actuator_forcerange", column("actuator_forcerange", 0), [-2, 2]),
    ("com_x", "arm", "offset", 2.0, "body_ipos", column("body_ipos", 2, 0), [2.0]),
    ("payload", "arm", "absolute", 2.0, "body_mass", column("body_mass", 3), [2.0]),
    ("payload_z", "arm", "absolute", 2.0, "body_ipos", column("body_ipos", 3), [0, 0, 2]),
    ("gravity", "", "factor", 2.0, "opt.gravity", lambda model: model.opt.gravity, [0, 0, -19.62]),
    ("gravity", "", "absolute", 2.0, "opt.gravity", lambda model: model.opt.gravity, [0, 0, -2]),
    ("gravity_y", "", "absolute", 2.0, "opt.gravity", lambda model: model.opt.gravity, [0, 2, -9.81]),
]


@pytest.mark.parametrize("physics", [LITERATURE, PHYSICAL], ids=["literature", "physical"])
@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]}-{c[2]}-{c[1]}" for c in CASES])
def test_a_field_changes_what_it_names_and_nothing_else(arm: Robot, case: tuple, physics: Physics) -> None:  # type: ignore[type-arg]
    field, target, mode, value, array, found, expected = case
    if physics is LITERATURE and field in ("friction", "rolling_friction", "torsional_friction"):
        expected = [0.5, 0.01, 0.001]  # the hand's own, and not the floor's, is what the nominal model has
        expected[("friction", "torsional_friction", "rolling_friction").index(field)] *= (
            2 if mode == "factor" else 1
        )
        if mode == "absolute":
            expected[1] = 2.0
    family = make_family(arm, Range(field, (target,) if target else (), value, value, mode=mode), physics=physics)
    nominal, model = family.build_model(), edited(family, value)
    np.testing.assert_allclose(found(model), expected, rtol=1e-12, atol=1e-12)
    others = differences(nominal, model) - {array}
    assert others <= (DERIVED if physics is PHYSICAL else set())
    before, after = arrays(nominal)[array], arrays(model)[array]
    assert (before != after).sum() == {"gravity": 1, "ctrl_limit": 2, "force_limit": 2}.get(field, 1)
    assert not differences(nominal, family.build_model())  # the nominal model is as it was


def test_every_field_of_the_model_is_tested_above_or_below() -> None:
    below = {"inertia", "inertia_x", "inertia_y", "inertia_z", "density", "strength", "stiffness", "tilt"}
    same = {"com_y", "com_z", "payload_x", "payload_y", "gravity_x", "gravity_z"}  # as their other axes
    of_models = {name for name, field in FIELDS.items() if field.kind not in ("control", "sensor", "target")}
    assert of_models == {case[0] for case in CASES} | below | same


def test_a_task_of_nominal_values_gives_the_nominal_model() -> None:
    for name in ("hopper-rand-params", "walker-rand-params", "half-cheetah-dynamics", "ant-mass-friction"):
        family = dynamics_family(name)
        values = [0.0 if p.name == "tilt" else (1.0,) * p.size if p.size else 1.0 for p in family.parameters]
        assert not differences(family.build_model(), edited(family, *values)), name


def test_scaled_rand_params_are_the_nominal_arrays_times_their_factors() -> None:
    family = dynamics_family("walker-rand-params")
    rng = np.random.default_rng(0)
    factors = {p.name: rng.uniform(0.5, 2.0, p.size) for p in family.parameters}
    model = edited(family, *(tuple(f) for f in factors.values()))
    plain = WALKER2D.build_model()
    np.testing.assert_array_equal(model.body_mass[1:], plain.body_mass[1:] * factors["mass"])
    for i, axis in enumerate("xyz"):
        expected = plain.body_inertia[1:, i] * factors[f"inertia_{axis}"]
        np.testing.assert_array_equal(model.body_inertia[1:, i], expected)
    for i, name in enumerate(("friction", "torsional_friction", "rolling_friction")):
        np.testing.assert_array_equal(model.geom_friction[:, i], plain.geom_friction[:, i] * factors[name])
    np.testing.assert_array_equal(model.dof_damping[3:], plain.dof_damping[3:] * factors["damping"])
    assert differences(family.build_model(), model) == {
        "body_mass",
        "body_inertia",
        "geom_friction",
        "dof_damping",
    }


def test_literature_ranges_and_numbers_of_parameters() -> None:
    """Zintgraf et al. 2020 count 41 and 65 numbers with those that do nothing: the world's, undamped joints'."""
    for name, count, joints in (("hopper-rand-params", 41, 3), ("walker-rand-params", 65, 3)):
        family = dynamics_family(name)
        assert sum(p.size for p in family.parameters) == count - 1 - 3 - joints
        ranges = {r.name: (r.low, r.high) for r in family.randomization.ranges}
        assert ranges["mass"] == pytest.approx((1.5**-3, 1.5**3))
        assert ranges["damping"] == pytest.approx((1.3**-3, 1.3**3))
        assert family.frame_skip == 4
        assert family.horizon == 200


def accelerations(model: mujoco.MjModel, seed: int = 0) -> np.ndarray:
    """Accelerations of a few random states with contacts, [state, nv]; the pose decides which bodies touch."""
    data = mujoco.MjData(model)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(10):
        mujoco.mj_resetData(model, data)
        data.qpos[:2] += rng.uniform(
            (-0.5, 1.5), (0.5, 2.5)
        )  # the hand reaches down to where the box and floor are
        data.qpos[4] -= rng.uniform(0.0, 0.01)
        data.qvel[:] = rng.uniform(-1, 1, model.nv)
        data.ctrl[:] = rng.uniform(-1, 1, model.nu)
        mujoco.mj_forward(model, data)
        assert data.ncon > 0
        found.append(data.qacc.copy())
    return np.array(found)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Of the solver's accuracy, in m/s^2 of accelerations of tens."""
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("body", ["cart", "arm", "box"])
def test_a_payload_moves_like_a_mass_that_the_file_has(arm: Robot, body: str) -> None:
    names = ("payload", "payload_x", "payload_y", "payload_z")
    values = (1.5, 0.1, -0.05, 0.07)
    family = make_family(arm, *(Range(n, (body,), -1.0 if n[-2] == "_" else 0.0, 2.0) for n in names))
    spec = mujoco.MjSpec.from_string(ARM)
    added = spec.body(body).add_body(pos=values[1:], explicitinertial=True, mass=values[0])
    added.inertia, added.ipos = [1e-12] * 3, [0.0] * 3
    close(accelerations(edited(family, *values)), accelerations(spec.compile()))
    nominal = accelerations(edited(family, 0.0, 0.0, 0.0, 0.0))
    close(nominal, accelerations(mujoco.MjModel.from_xml_string(ARM)))
    assert not np.allclose(nominal, accelerations(spec.compile()), rtol=1e-3)


@pytest.mark.parametrize("body", ["cart", "arm", "box"])
def test_a_shifted_centre_of_mass_moves_like_one_that_the_file_has(arm: Robot, body: str) -> None:
    """MuJoCo skips what it found to coincide when it compiled: the shortcuts have to be off."""
    shift = np.array([0.04, -0.03, 0.05])
    family = make_family(arm, *(Range(f"com_{axis}", (body,), -0.1, 0.1) for axis in "xyz"))
    plain = mujoco.MjModel.from_xml_string(ARM)
    i = plain.body(body).id
    spec = mujoco.MjSpec.from_string(ARM)
    spec.body(body).explicitinertial = True
    spec.body(body).mass = plain.body_mass[i]
    spec.body(body).inertia = plain.body_inertia[i]
    spec.body(body).iquat = plain.body_iquat[i]
    spec.body(body).ipos = plain.body_ipos[i] + shift
    reference = spec.compile()
    close(accelerations(edited(family, *shift)), accelerations(reference))
    close(accelerations(edited(family, 0.0, 0.0, 0.0)), accelerations(plain))


def test_bodies_without_a_name_can_be_loaded_and_shifted(arm: Robot, tmp_path: Path) -> None:
    """Their numbers stay theirs, though bodies are added before them."""
    text = re.sub('body name="[a-z]+"', "body", ARM)
    (tmp_path / "arm.xml").write_text(text)
    unnamed = Robot("arm", str(tmp_path / "arm.xml"), 4, 0, 0.01, "uniform")

    def model(robot: Robot, cart: str, hand: str, box: str) -> mujoco.MjModel:
        ranges = (Range("payload", (cart,), 0, 2), Range("com_z", (hand,), 0, 1), Range("mass", (box,), 0.5, 2))
        return edited(make_family(robot, *ranges), 1.5, 0.2, 2.0)

    differing = differences(model(arm, "cart", "arm", "box"), model(unnamed, "body 1", "body 2", "body 3"))
    assert all("name" in array for array in differing)


def test_a_heavier_body_moves_like_one_that_is_compiled_heavier(arm: Robot) -> None:
    """The inverse weights that soften contacts follow, and the constants of a free body's mass matrix."""
    for body in ("arm", "box"):
        family = make_family(arm, Range("density", (body,), 0.5, 3.0))
        spec = mujoco.MjSpec.from_string(ARM)
        for geom in spec.body(body).geoms:
            geom.mass = geom.mass * 2.5
        close(accelerations(edited(family, 2.5)), accelerations(spec.compile()))


def test_derived_constants_follow_or_stay_by_option(arm: Robot) -> None:
    r = Range("mass", ("arm",), 0.5, 4.0)
    followed, stayed = (edited(make_family(arm, r, physics=p), 4.0) for p in (PHYSICAL, LITERATURE))
    nominal = mujoco.MjModel.from_xml_string(ARM)
    np.testing.assert_array_equal(stayed.body_subtreemass, nominal.body_subtreemass)
    assert followed.body_subtreemass[1] == pytest.approx(nominal.body_subtreemass[1] + 3 * 1.3)
    reference = copy.copy(stayed)
    mujoco.mj_setConst(reference, mujoco.MjData(reference))
    assert not differences(reference, followed)


def test_inertias_stay_physical_by_default_and_not_in_the_literature() -> None:
    ranges = tuple(Range(f"inertia_{axis}", (), 0.2, 5.0, scale="log", each=True) for axis in "xyz")
    rng = np.random.default_rng(0)
    physical, literature = (make_family(WALKER2D, *ranges, physics=p) for p in (PHYSICAL, LITERATURE))
    broken = 0
    for _ in range(20):
        values = [tuple(rng.uniform(0.2, 5.0, 7)) for _ in "xyz"]
        raw = edited(literature, *values).body_inertia[1:]
        kept = edited(physical, *values).body_inertia[1:]
        over = 2 * raw.max(1) > raw.sum(1)
        broken += int(over.sum())
        assert (2 * kept.max(1) <= kept.sum(1) * (1 + 1e-12)).all()
        np.testing.assert_array_equal(kept[~over], raw[~over])
        np.testing.assert_allclose(np.sort(kept, 1)[:, :2], np.sort(raw, 1)[:, :2])
    assert broken > 10


def contact_friction(model: mujoco.MjModel, geom: str) -> np.ndarray:
    """Friction of the contact of a geom that is pressed into the floor, and its dimensions."""
    data = mujoco.MjData(model)
    data.qpos[1 if model.nq < 8 else 2] -= 0.05
    mujoco.mj_forward(model, data)
    of = [c for c in data.contact[: data.ncon] if model.geom(geom).id in (c.geom1, c.geom2)]
    assert of
    return np.array([of[0].friction[0], of[0].dim])


def test_the_robots_geoms_decide_the_friction_of_their_contacts_by_default() -> None:
    r = Range("friction", (), 0.1, 4.0)
    family = make_family(HOPPER, r)
    plain = contact_friction(HOPPER.build_model(), "foot_geom")
    np.testing.assert_array_equal(plain, [2.0, 3])
    np.testing.assert_array_equal(contact_friction(family.build_model(), "foot_geom"), plain)
    for factor in (0.1, 0.4, 2.0):
        np.testing.assert_allclose(contact_friction(edited(family, factor), "foot_geom"), [2 * factor, 3])
    # In the literature the larger friction of the two decides: the floor's 1 hides everything below a half.
    unchanged = make_family(HOPPER, r, physics=LITERATURE)
    np.testing.assert_allclose(contact_friction(edited(unchanged, 0.1), "foot_geom"), [1.0, 3])
    np.testing.assert_allclose(contact_friction(edited(unchanged, 0.8), "foot_geom"), [1.6, 3])


@pytest.mark.parametrize("robot", [HOPPER, WALKER2D, HALF_CHEETAH], ids=lambda r: r.name)
def test_letting_the_robot_decide_leaves_the_nominal_contacts_as_they_are(robot: Robot) -> None:
    plain, ready = robot.build_model(), make_family(robot, Range("friction", (), 0.5, 2.0)).build_model()
    states = []
    for model in (plain, ready):
        data = mujoco.MjData(model)
        data.qvel[0] = 1.0
        mujoco.mj_step(model, data, 200)
        assert data.ncon > 0
        states.append(data.qpos.copy())
    np.testing.assert_array_equal(states[0], states[1])


def test_strength_scales_the_force_of_motors_and_of_servos(arm: Robot) -> None:
    family = make_family(arm, Range("strength", (), 0.0, 2.0))
    forces = []
    for model in (family.build_model(), edited(family, 0.5)):
        data = mujoco.MjData(model)
        data.qpos[1], data.qvel[1], data.ctrl[:] = 0.1, 0.2, (0.5, 0.3)
        mujoco.mj_forward(model, data)
        forces.append(data.actuator_force.copy())
    np.testing.assert_allclose(forces[0], [0.5, 5 * (0.3 - 0.1) - 0.2])
    np.testing.assert_allclose(forces[1], forces[0] / 2)


def test_stiffness_pulls_harder_to_where_a_servo_settled(arm: Robot) -> None:
    model = edited(make_family(arm, Range("stiffness", ("servo",), 0.5, 2.0)), 2.0)
    data = mujoco.MjData(model)
    data.qpos[1], data.qvel[1], data.ctrl[1] = 0.1, 0.2, 0.3
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.actuator_force[1], 2 * 5 * (0.3 - 0.1) - 0.2)
    data.qpos[1], data.qvel[1] = 0.3, 0.0
    mujoco.mj_forward(model, data)
    assert data.actuator_force[1] == pytest.approx(0.0, abs=1e-12)


MUSCLE = '<muscle name="motor" joint="slide" ctrllimited="true" ctrlrange="0 1" lengthrange="0.1 1"/>'
PAIR = '<contact><pair geom1="floor" geom2="hand"/></contact>'
MOTOR = re.search("<motor.*/>", ARM).group()  # type: ignore[union-attr]
FREE = ("<option", '<option gravity="0 0 0"')


@pytest.mark.parametrize(
    ("made", "change", "message"),
    [
        (Range("ctrl_limit", ("servo",), 0.5, 1.1), ("", ""), "ctrl_limit can only shrink, .*; 1.1 widens one"),
        (Range("ctrl_limit", (), 1.0, 1.5, mode="absolute"), ("", ""), "ctrl_limit can only shrink"),
        (Range("gain", ("servo",), 0.5, 2), ("", ""), "'servo' is a servo, .*; use stiffness or strength"),
        (Range("stiffness", (), 0.5, 2), ("", ""), "'motor' is no position servo; use gain or strength"),
        (Range("strength", (), 0.5, 2), (MOTOR, MUSCLE), "'motor' is a muscle"),
        (Range("gain", ("motor",), 0.5, 2), (MOTOR, MUSCLE), "'motor' is a muscle"),
        (Range("friction", ("hand",), 0.5, 2), ("<actuator>", f"{PAIR}<actuator>"), "'hand' is in a <pair>"),
        (Range("gravity", (), 0.5, 2), FREE, "the model has none, .*; use gravity_z"),
        (Range("gravity", (), 1, 2, mode="absolute"), FREE, "the model has none, .*; use gravity_z"),
    ],
    ids=lambda value: value.name if isinstance(value, Range) else None,
)
def test_a_field_that_would_not_do_what_it_says_is_refused(
    tmp_path: Path, made: Range, change: tuple[str, str], message: str
) -> None:
    (tmp_path / "arm.xml").write_text(ARM.replace(*change) if change[0] else ARM)
    with pytest.raises(ValueError, match=message) as caught:
        make_family(Robot("arm", str(tmp_path / "arm.xml"), 4, 0, 0.01, "uniform"), made)
    assert "\n" not in str(caught.value)


def test_tilt_leans_gravity_against_the_way_forward_and_follows_its_magnitude(arm: Robot) -> None:
    family = make_family(arm, Range("tilt", (), -30.0, 30.0), Range("gravity", (), 0.1, 1.0))
    gravity = edited(family, 30.0, 0.5).opt.gravity
    np.testing.assert_allclose(gravity, 9.81 / 2 * np.array([-0.5, 0.0, -np.sqrt(0.75)]))


def test_tilt_turns_a_gravity_that_leans_already(arm: Robot) -> None:
    """A turn by 30 degrees: x' = x cos + z sin, z' = z cos - x sin."""
    family = make_family(arm, Range("tilt", (), -30.0, 30.0), Range("gravity_x", (), -4.0, 4.0))
    gravity = edited(family, 30.0, 4.0).opt.gravity
    turned = [4.0 * np.sqrt(0.75) - 9.81 / 2, 0.0, -9.81 * np.sqrt(0.75) - 4.0 / 2]
    np.testing.assert_allclose(gravity, turned)
    assert np.linalg.norm(gravity) == pytest.approx(np.hypot(9.81, 4.0))


def test_a_geom_stays_where_it_is_while_the_centre_of_mass_moves(tmp_path: Path) -> None:
    """MuJoCo places a body's only geom by its centre of mass, where it compiled the two to coincide."""
    geom = '<geom name="rod" type="capsule" size="0.1 0.2" pos="0.3 0 0" euler="0 30 0"/>'
    body = f'<body name="a" pos="0 0 1"><freejoint name="a"/>{geom}</body>'
    motor = "<actuator><motor joint='a' ctrllimited='true' ctrlrange='-1 1'/></actuator>"
    text = f"<mujoco><worldbody>{body}</worldbody>{motor}</mujoco>"
    (tmp_path / "rod.xml").write_text(text)
    coinciding = mujoco.mjtSameFrame.mjSAMEFRAME_INERTIA.value
    assert mujoco.MjModel.from_xml_string(text).geom_sameframe[0] == coinciding
    robot = Robot("rod", str(tmp_path / "rod.xml"), 1, 0, 0.0, "uniform")
    model = edited(make_family(robot, Range("com_z", ("a",), -1.0, 1.0)), 0.5)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.geom("rod").xpos, [0.3, 0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(data.body("a").xipos, [0.3, 0.0, 1.5], atol=1e-12)


def test_each_gives_every_target_a_number_of_its_own(arm: Robot) -> None:
    together = make_family(arm, Range("mass", ("arm", "box"), 0.5, 2.0))
    each = make_family(arm, Range("mass", ("box", "arm"), 0.5, 2.0, each=True))
    assert (together.parameters[0].size, each.parameters[0].size) == (0, 2)
    np.testing.assert_allclose(edited(together, 2.0).body_mass, [0, 2, 2.6, 1.0])
    np.testing.assert_allclose(edited(each, (0.5, 2.0)).body_mass, [0, 2, 2.6, 0.25])


def test_contacts_are_found_wherever_the_centre_of_mass_is(tmp_path: Path) -> None:
    """MuJoCo's bounding volumes of a body of many geoms are fixed to its centre of mass."""
    spheres = "".join(f'<geom type="sphere" size="0.1" pos="{0.3 * i} 0 0"/>' for i in range(6))
    bodies = (
        f"<body name='a'><freejoint name='a'/>{spheres}</body><body pos='0 0 0.15'><freejoint/>{spheres}</body>"
    )
    motor = "<actuator><motor joint='a' ctrllimited='true' ctrlrange='-1 1'/></actuator>"
    (tmp_path / "spheres.xml").write_text(f"<mujoco><worldbody>{bodies}</worldbody>{motor}</mujoco>")
    robot = Robot("spheres", str(tmp_path / "spheres.xml"), 1, 0, 0.0, "uniform")
    model = edited(make_family(robot, Range("com_z", ("a",), -1.0, 1.0)), -1.0)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert data.ncon == 6
