"""Dynamics tasks as data: ranges, splits that share nothing, files, and what is refused."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from metarl.envs import make_benchmark
from metarl.envs.dynamics import (
    LITERATURE,
    Change,
    DynamicsFamily,
    DynamicsTasks,
    ForwardReward,
    Randomization,
    Range,
    SimulatorGap,
    dynamics_family,
    dynamics_names,
    dynamics_split,
    load_family,
    region_of,
    split,
)
from metarl.envs.mujoco.locomotion import Motion
from metarl.envs.mujoco.robots import HALF_CHEETAH
from metarl.tasks import Task, load_tasks, save_tasks

REWARD = ForwardReward()
all_names = pytest.mark.parametrize("name", dynamics_names())


def make_family(*ranges: Range, change: Change | None = None) -> DynamicsFamily:
    return DynamicsFamily("test", HALF_CHEETAH, Randomization(ranges, change), REWARD)


def drawn(family: DynamicsFamily, region: str, count: int = 2000) -> dict[str, np.ndarray]:
    """Parameters of tasks of a region, [task] or [task, size]."""
    return family.stack(DynamicsTasks(family, region).sample(count, np.random.default_rng(0)))  # type: ignore[arg-type]


# Splits.


@all_names
def test_train_interpolation_and_extrapolation_share_no_task(name: str) -> None:
    """By construction, and on thousands of draws."""
    found, family = dynamics_split(name), dynamics_family(name)
    ranges = {r.name: r for r in family.randomization.parameters}
    tasks = {}
    for seed, region in enumerate(("train", "interpolation", "extrapolation")):
        tasks[region] = getattr(found, region).sample(1000, np.random.default_rng(seed))
        assert {region_of(family, task) for task in tasks[region][:100]} == {region}
        values = family.stack(tasks[region])  # checks the family's bounds
        for parameter, r in ranges.items():
            ringed = r.outer_low < r.low or r.outer_high > r.high
            inside = (values[parameter] >= r.low) & (values[parameter] <= r.high)
            assert inside.all() if region != "extrapolation" or not ringed else not inside.any()
    assert len(set().union(*tasks.values())) == 3000


def test_held_out_cells_are_a_fifth_and_every_value_occurs_in_training() -> None:
    family = make_family(Range("density", (), 0.5, 2.0, scale="log"), Range("tilt", (), -5.0, 5.0))
    tasks = DynamicsTasks(family).sample(2000, np.random.default_rng(0))
    share = np.mean([region_of(family, task) == "interpolation" for task in tasks])
    assert share == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / 2000))
    for region in ("train", "interpolation"):
        values = drawn(family, region)
        counts = np.histogram(np.log2(values["density"]), bins=10, range=(-1, 1))[0]
        counts = np.append(counts, np.histogram(values["tilt"], bins=10, range=(-5, 5))[0])
        # Two chi-squares with 9 degrees of freedom: each exceeds 33.7 once in 10000 times.
        assert ((counts - 200) ** 2 / 200).sum() < 2 * 33.7


def test_a_task_is_held_out_if_its_cells_sum_to_two_modulo_five() -> None:
    family = make_family(Range("tilt", (), 0.0, 10.0, ring=0.1), Range("gravity", (), 1.0, 16.0, scale="log"))
    for tilt, gravity, region in (
        (5.0, 1.1, "interpolation"),  # cells 2 and 0
        (5.0, 2.0, "train"),  # cells 2 and 1: the second begins at 16^(1/5) = 1.74
        (3.0, 2.0, "interpolation"),  # 1 and 1
        (9.0, 10.0, "train"),  # 4 and 4: 8
        (9.0, 6.0, "interpolation"),  # 4 and 3: 7
        (10.0, 16.0, "train"),  # the upper edges belong to the last cells
        (10.5, 1.1, "extrapolation"),
    ):
        assert region_of(family, Task.of("test", tilt=tilt, gravity=gravity)) == region, (tilt, gravity)


@pytest.mark.parametrize(
    ("field", "low", "high", "settings", "outer"),
    [
        ("tilt", -5.0, 5.0, {"ring": 0.5}, (-10.0, 10.0)),
        ("density", 0.5, 2.0, {"scale": "log", "ring": 0.5}, (0.25, 4.0)),
        ("sensor_noise", 0.0, 0.1, {"ring": 0.5}, (0.0, 0.15)),  # there is no noise below none
        ("delay", 0, 3, {"ring": 0.5}, (0.0, 5.0)),  # one and a half is rounded up
        ("friction", 0.2, 1.2, {"ring": 0.5}, (0.0, 1.7)),
    ],
)
def test_rings_are_as_wide_as_they_say_and_stay_within_physics(
    field: str, low: float, high: float, settings: dict[str, float], outer: tuple[float, float]
) -> None:
    family = make_family(Range(field, (), low, high, **settings))  # type: ignore[arg-type]
    assert (family.parameters[0].low, family.parameters[0].high) == pytest.approx(outer)
    values = drawn(family, "extrapolation")[field]
    assert ((values < low) | (values > high)).all()
    assert ((values >= outer[0]) & (values <= outer[1])).all()
    if outer[0] < low:
        # Log-uniform and uniform rings of equal width, or 0.2 below 0.5: the share below, within 4 errors.
        expected = 0.5 if field != "friction" else 0.2 / 0.7
        assert (values < low).mean() == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(2000))


def test_the_narrowest_ring_does_not_hold_the_ranges_edge() -> None:
    """Two steps of float64 wide: a quarter of uniform numbers are rounded to the edge."""
    narrow = Range("tilt", (), 1.0, 2.0, ring=2e-16)
    assert narrow.outer_low == 1.0 - 2 * np.spacing(0.5)
    assert not narrow.inside(narrow.draw_outside((100,), np.random.default_rng(0))).any()


def test_log_ranges_are_uniform_in_the_logarithm_and_delays_over_whole_numbers() -> None:
    family = make_family(Range("density", (), 0.25, 4.0, scale="log"), Range("delay", (), 1, 4))
    values = drawn(family, "range")
    counts = np.histogram(np.log2(values["density"]), bins=10, range=(-2, 2))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 33.7
    numbers, times = np.unique(values["delay"], return_counts=True)
    np.testing.assert_array_equal(numbers, [1, 2, 3, 4])
    assert ((times - 500) ** 2 / 500).sum() < 21.1  # chi-square, 3 degrees of freedom, once in 10000


def test_a_split_needs_a_ring_and_ranges_wide_enough_to_hold_something_out() -> None:
    with pytest.raises(ValueError, match="extrapolation needs a range with a ring"):
        split(make_family(Range("tilt", (), 0.0, 1.0)))
    narrow = make_family(Range("delay", (), 0, 1, ring=1.0))
    with pytest.raises(ValueError, match="too few values for a region 'interpolation'"):
        split(narrow).interpolation.sample(1, np.random.default_rng(0))


@all_names
def test_bounds_are_finite_and_tasks_survive_json(name: str, tmp_path: Path) -> None:
    family = dynamics_family(name)
    assert all(math.isfinite(p.low) and math.isfinite(p.high) for p in family.parameters)
    tasks = DynamicsTasks(family, "extrapolation").sample(5, np.random.default_rng(0))
    assert [Task.from_json(json.loads(json.dumps(task.to_json()))) for task in tasks] == tasks
    save_tasks(tmp_path / "tasks.json", tasks)
    assert load_tasks(tmp_path / "tasks.json", family) == tasks


def test_study_benchmarks_test_on_held_out_cells_and_the_literatures_on_fresh_draws() -> None:
    study = make_benchmark("half-cheetah-dynamics")
    assert study.train == dynamics_split("half-cheetah-dynamics").train
    assert study.test.region == "interpolation"  # type: ignore[attr-defined]
    literature = make_benchmark("walker-rand-params")
    assert literature.train is literature.test
    assert not literature.shared


def test_a_robots_own_weights_are_its_files_reward(tmp_path: Path) -> None:
    text = "{name: walker, robot: humanoid, ranges: [{field: mass, low: 0.5, high: 2}]}"
    assert load_family(write(tmp_path, text)).reward == ForwardReward(5.0, 0.1, 1.25)
    none = np.zeros((1, 0))
    motion = Motion(np.zeros((1, 2)), np.array([[2.0, 0.0]]), np.ones(1, bool), none, none)
    assert ForwardReward(forward_weight=1.25)(motion, np.zeros((1, 3)))["reward_forward"].tolist() == [2.5]


def test_a_family_is_picklable_for_worker_processes() -> None:
    family = dynamics_family("half-cheetah-failing-motor").with_simulator(SimulatorGap(timestep=0.005))
    copied = pickle.loads(pickle.dumps(family))
    assert copied == family
    assert copied.parameters == family.parameters
    assert copied.frame_skip == 10


# Files.

FILE = """
name: my-cheetah
robot: half-cheetah
horizon: 50
physics: literature
ranges:
  - {field: mass, targets: [torso, head], low: 0.5, high: 2, scale: log, each: true, ring: 0.25}
  - {field: delay, low: 0, high: 3}
  - {field: friction_loss, targets: bthigh, low: 1e-3, high: 0.1, mode: offset, name: stiction}
change:
  first_step: 10
  last_step: 40
  ranges:
    - {field: strength, targets: [bthigh], low: 0.2, high: 0.6}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "family.yaml"
    path.write_text(text)
    return path


def test_a_file_says_what_python_says(tmp_path: Path) -> None:
    head = HALF_CHEETAH.build_model().body(2).name
    ranges = (
        Range("mass", ("torso", head), 0.5, 2.0, scale="log", each=True, ring=0.25),
        Range("delay", (), 0, 3),
        Range("friction_loss", ("bthigh",), 0.001, 0.1, mode="offset", name="stiction"),
    )
    change = Change((Range("strength", ("bthigh",), 0.2, 0.6),), 10, 40)
    reward = ForwardReward(0.0, HALF_CHEETAH.ctrl_weight)
    expected = DynamicsFamily(
        "my-cheetah", HALF_CHEETAH, Randomization(ranges, change), reward, horizon=50, physics=LITERATURE
    )
    assert load_family(write(tmp_path, FILE.replace("head", head))) == expected


def test_a_file_names_a_model_beside_it(tmp_path: Path) -> None:
    (tmp_path / "cart.xml").write_text(
        "<mujoco><worldbody><body name='cart'><joint name='x' type='slide' axis='1 0 0'/>"
        "<geom size='0.1' mass='1'/></body></worldbody>"
        "<actuator><motor joint='x' ctrllimited='true' ctrlrange='-1 1'/></actuator></mujoco>"
    )
    entries = "name: cart, model: cart.xml, frame_skip: 5, ranges: [{field: mass, low: 0.5, high: 2}]"
    family = load_family(str(write(tmp_path, f"{{{entries}}}")), ForwardReward(ctrl_weight=0.5))
    same = load_family(write(tmp_path, f"{{{entries}, reward: {{ctrl_weight: 0.5}}}}"))
    assert same == family
    for change, message in (
        ("", "reward is missing: a model file has none of its own"),
        (", reward: {}, frame_skip: 0", "frame_skip is given twice"),
        (", reward: {}, hidden_qpos: 100", "cart: hidden_qpos must be at most 1, the model's positions, got 100"),
        (", reward: {}, reset_noise: -1", "reset_noise must be zero or more and finite, got -1"),
        (", reward: {}, reset_noise: .nan", "numbers must be finite, got nan"),
        (", reward: {alive_bonus: '1e999'}", "alive_bonus must be finite, got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            load_family(write(tmp_path, f"{{{entries}{change}}}"))
    with pytest.raises(ValueError, match="frame_skip must be a whole number of at least 1, got 0"):
        load_family(write(tmp_path, f"{{{entries.replace('5', '0', 1)}}}"))
    env = family.make_env(2, num_threads=0)
    env.set_tasks([Task.of("cart", mass=mass) for mass in (0.5, 2.0)])
    env.reset(seed=0)
    # Semi-implicit Euler from rest: after five steps of 2 ms the velocity is F / m * 0.01 s.
    observations = env.advance(np.ones((2, 1))).observations
    np.testing.assert_allclose(observations[:, 1], [0.02, 0.005], rtol=1e-9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: my-cheetah", "name: [", "is not YAML"),
        ("name: my-cheetah", "horizn: 3", "unknown entry 'horizn'; known: name, robot"),
        ("name: my-cheetah", "", "name is missing"),
        ("robot: half-cheetah", "robot: cheetah", "robot must be one of half-cheetah, ant"),
        ("robot: half-cheetah", "model: no.xml", "model: there is no file"),
        ("robot: half-cheetah", "", "give either robot"),
        ("robot: half-cheetah", "robot: ant\nframe_skip: 3", "frame_skip is that of the robot 'ant'"),
        ("horizon: 50", "horizon: 50.5", "horizon must be a whole number of at least 1, got 50.5"),
        ("horizon: 50", "horizon: '1e999'", "horizon must be a whole number of at least 1, got inf"),
        ("horizon: 50", "horizon: .nan", "family.yaml: horizon: numbers must be finite, got nan"),
        ("horizon: 50", "horizon: 0", "horizon must be a whole number of at least 1, got 0"),
        ("horizon: 50", "horizon: 50\nhorizon: 60", "horizon is given twice"),
        ("horizon: 50", "reward: {speed: 1}", "reward: unknown entry 'speed'; known: alive_bonus, ctrl_weight"),
        ("name: my-cheetah", "name: [a]", r"name must be text, got \['a'\]"),
        ("name: my-cheetah", "name: null", "name must be text, got None"),
        ("name: my-cheetah", "name: !!timestamp x", "has the tag"),
        ("robot: half-cheetah", "robot: [ant]", r"robot must be text, got \['ant'\]"),
        ("robot: half-cheetah", "model: .", "model: is a folder .*; expected an MJCF file"),
        ("robot: half-cheetah", "model: family.yaml", "model: MuJoCo cannot read .*family.yaml: "),
        ("physics: literature", "physics: [physical]", r"physics must be text, got \['physical'\]"),
        ("physics: literature", "physics: newton", "physics must be one of physical, literature, got 'newton'"),
        ("field: mass,", "", r"ranges\[0\]: field is missing"),
        ("field: mass", "field: weight", r"ranges\[0\]: unknown field 'weight'; known: mass, inertia"),
        ("low: 0.5", "low: half", r"ranges\[0\]: low must be a number, got 'half'"),
        ("low: 0.5", "low: 3", "range 'mass.torso.torso': low must not be above high"),
        ("scale: log", "scale: lin", "scale must be uniform or log, got 'lin'"),
        ("each: true", "each: 3", r"ranges\[0\]: each must be true or false, got 3"),
        ("name: stiction", "name: 3", r"ranges\[2\]: name must be text, got 3"),
        ("field: mass", "field: [mass]", r"ranges\[0\]: field must be text, got \['mass'\]"),
        ("scale: log", "scal: log", r"ranges\[0\]: unknown entry 'scal'; known: field, targets"),
        ("first_step: 10", "first_step: 50", "low must not be above high, got .50, 40."),
        ("first_step: 10", "", "change: first_step is missing"),
        ("ranges:\n  - ", "ranges: 3\nx:\n  - ", "unknown entry 'x'"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = FILE.replace("[torso, head]", "[torso]").replace(old, new, 1)
    with pytest.raises(ValueError, match=message.replace("mass.torso.torso", "mass.torso")) as caught:
        load_family(write(tmp_path, text))
    assert "family.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read the family file"):
        load_family(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="must be a mapping with name, got 3"):
        load_family(write(tmp_path, "3"))


def test_actuators_without_a_range_are_refused(tmp_path: Path) -> None:
    body = "<body><joint name='x'/><geom size='0.1' mass='1'/></body>"
    model = f"<mujoco><worldbody>{body}</worldbody><actuator><motor joint='x'/></actuator></mujoco>"
    (tmp_path / "wheel.xml").write_text(model)
    text = "{name: wheel, model: wheel.xml, reward: {}, ranges: [{field: mass, low: 0.5, high: 2}]}"
    with pytest.raises(ValueError, match="the model of 'wheel' needs actuators that all have a ctrlrange"):
        load_family(write(tmp_path, text))


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("weight", (), 1, 2), "unknown field 'weight'; known: mass"),
        (("mass", "torso", 1, 2), "range 'mass': targets must be a tuple of names, got 'torso'"),
        (("target", ("x", "y", "x"), 0, 1), "targets must differ from each other, got 'x' twice"),
        (("mass", ("torso",), 2, 1), r"range 'mass.torso': low must not be above high, got \[2, 1\]"),
        (("mass", (), 0.0, 1), "range 'mass': low must be above 0, got 0"),
        (("mass", (), -1.0, 1), "range 'mass': low must be above 0, got -1"),
        (("damping", (), -0.1, 1), "low must be 0 or more, got -0.1"),
        (("friction", (), math.nan, 1), "low must be a finite number, got nan"),
        (("friction", (), 0.5, math.inf), "high must be a finite number, got inf"),
        (("friction", (), 0.5, True), "high must be a finite number, got True"),
        (("friction", (), 0.0, 1, "log"), "a log scale needs low above 0, got 0"),
        (("friction", (), 0.5, 1, "cubic"), "scale must be uniform or log, got 'cubic'"),
        (("density", (), 0.5, 1, "uniform", "absolute"), "mode must be factor, got 'absolute'"),
        (("payload", (), 0.5, 1, "uniform", "factor"), "mode must be absolute, got 'factor'"),
        (("mass", (), 0.5, 1, "uniform", None, False, -1.0), "ring must be 0 or more, got -1"),
        (("mass", (), 0.5, 1.5, "uniform", None, False, 0.5), "low minus the ring must be above 0, got 0"),
        (("delay", (), 0.5, 2), r"bounds must be whole numbers on a uniform scale, got \[0.5, 2\]"),
        (("delay", (), -1, 2), "low must be 0 or more, got -1"),
        (("frame_skip", (), 0, 2), "low must be 1 or more, got 0"),
    ],
)
def test_a_range_that_inverts_or_leaves_physics_is_refused(arguments: tuple, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        Range(*arguments)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Range("mass", ("tors",), 1, 2), "field 'mass': no body 'tors' in the model; there are torso, bthigh"),
        (Range("mass", ("world",), 1, 2), "no body 'world' in the model"),
        (Range("friction", ("foot",), 1, 2), "field 'friction': no geom 'foot' in the model; there are floor"),
        (Range("damping", ("knee",), 1, 2), "no joint 'knee' in the model; there are rootx, rootz"),
        (Range("gain", ("knee",), 1, 2), "no actuator 'knee' in the model; there are bthigh"),
        (Range("damping", ("rootx",), 1, 2), "'rootx' is 0 in the model, which no factor changes"),
        (Range("friction_loss", (), 1, 2), "the model has nothing to scale; use mode absolute"),
        (Range("force_limit", (), 1, 2), "the model has nothing to scale; use mode absolute"),
        (Range("payload", (), 1, 2), "field 'payload' needs the names of the bodies that carry it"),
        (Range("tilt", ("torso",), 1, 2), "of the whole model and takes no targets"),
        (Range("delay", ("bthigh",), 1, 2), "field 'delay' takes no targets"),
        (Range("sensor_bias", ("qpos.knee",), 1, 2), "no observed quantity 'qpos.knee'; there are qpos, qvel"),
        (Range("mass", (), -5.0, 1, mode="offset"), "range 'mass': mass must be above 0; -5 makes it"),
    ],
    ids=lambda value: value.name if isinstance(value, Range) else None,
)
def test_a_name_that_is_not_in_the_model_is_refused_with_those_that_are(made: Range, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_family(made)
    assert "\n" not in str(caught.value)


def test_tasks_outside_the_declared_bounds_are_refused() -> None:
    family = make_family(Range("density", (), 0.5, 2.0), Range("delay", (), 0, 3))
    env = family.make_env(1, num_threads=0)
    for params, message in (
        ({"density": 2.5, "delay": 0.0}, r"parameter 'density' must be in \[0.5, 2\], got 2.5"),
        ({"density": 1.0, "delay": 4.0}, r"parameter 'delay' must be in \[0, 3\], got 4"),
        ({"density": 1.0, "delay": 1.5}, "parameter 'delay' must be a whole number, got 1.5"),
        ({"density": 1.0}, r"must have exactly the parameters \['delay', 'density'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            env.set_tasks([Task.of("test", **params)])


def test_randomizations_that_make_no_sense_are_refused() -> None:
    r = Range("tilt", (), 0, 1)
    for make, message in (
        (lambda: Randomization(()), "at least one range"),
        (lambda: Randomization((r, r)), "two ranges are named 'tilt'"),
        (lambda: Change((), 1, 2), "at least one range"),
        (lambda: Change((r,), 3, 2), "low must not be above high"),
        (lambda: Change((r,), -1, 2), "low must be 0 or more"),
        (lambda: Randomization((Range("change_step", (), 1, 2),)), "give Change its first_step and last_step"),
        (lambda: SimulatorGap(timestep=0.0), "the simulator's timestep must be above 0, got 0.0"),
        (lambda: SimulatorGap(integrator="rk5"), "integrator must be one of euler, rk4"),  # type: ignore[arg-type]
        (lambda: SimulatorGap(solref=(1.0,)), "solref must be 2 numbers"),  # type: ignore[arg-type]
        (lambda: dynamics_family("cheetah"), "unknown dynamics benchmark 'cheetah'; known: ant-mass-friction"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
