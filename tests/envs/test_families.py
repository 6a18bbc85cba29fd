"""Rewards, ends and horizons of every task family by hand, and what the benchmarks are made of."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from metarl.envs import benchmark_names, make_benchmark
from metarl.envs.mujoco.families import (
    AntDir,
    AntDir2D,
    AntGoal,
    HalfCheetahDir,
    HalfCheetahVel,
    HumanoidDir,
    RunForward,
)
from metarl.envs.mujoco.locomotion import LocomotionEnv, LocomotionFamily, Motion
from metarl.envs.mujoco.robots import ANT, HALF_CHEETAH, HOPPER, HUMANOID, WALKER2D, Robot
from metarl.envs.toy.point import Point, PointEnv, PointFamily, PointUniformStart, SparsePoint
from metarl.tasks import Benchmark, FiniteTasks, Task, TaskDistribution

TWO_DIRECTIONS = {"ant-dir", "half-cheetah-dir", "humanoid-dir-2"}
SHARED = TWO_DIRECTIONS | {"gridnavi", "tmaze-100"}
EXACT = 1e-12
STILL = (np.zeros((0, 0)), np.zeros((0, 0)))  # positions and velocities, which these rewards do not read


def reward(
    family: LocomotionFamily,
    value: float | tuple[float, ...],
    *,
    velocity: tuple[float, float] = (0.0, 0.0),
    position: tuple[float, float] = (0.0, 0.0),
    action: tuple[float, ...] = (),
    healthy: bool = True,
) -> float:
    """The reward of one step of one row, for a family with one parameter."""
    actions = np.zeros((1, 8))
    actions[0, : len(action)] = action
    motion = Motion(np.array([position]), np.array([velocity]), np.array([healthy]), *STILL)
    terms = family.reward_terms(motion, actions, {family.parameters[0].name: np.array([value])})
    assert all(term.shape == (1,) for term in terms.values())
    return float(sum(term[0] for term in terms.values()))


def test_half_cheetah_dir_rewards_velocity_along_the_direction_minus_control_cost() -> None:
    # 2 - 0.05 * (0.5^2 + 1^2) = 1.9375 and -2 - 0.0625 = -2.0625
    step = {"velocity": (2.0, 9.0), "action": (0.5, 1.0)}
    assert reward(HalfCheetahDir(), 1.0, **step) == pytest.approx(1.9375, abs=EXACT)  # type: ignore[arg-type]
    assert reward(HalfCheetahDir(), -1.0, **step) == pytest.approx(-2.0625, abs=EXACT)  # type: ignore[arg-type]


def test_half_cheetah_vel_rewards_closeness_to_the_velocity_on_both_sides() -> None:
    # -|2 - 3| - 0.05 * 1.25 = -1.0625, and the same from 4 m/s; at the target the cost alone is left.
    for speed, expected in ((2.0, -1.0625), (4.0, -1.0625), (3.0, -0.0625)):
        found = reward(HalfCheetahVel(), 3.0, velocity=(speed, 9.0), action=(0.5, 1.0))
        assert found == pytest.approx(expected, abs=EXACT)


def test_ant_dir_rewards_velocity_along_the_direction_and_survival_minus_control_cost() -> None:
    # 2 + 1 - 0.5 * 1.25 = 2.375 and -2 + 1 - 0.625 = -1.625
    for direction, expected in ((1.0, 2.375), (-1.0, -1.625)):
        found = reward(AntDir(), direction, velocity=(2.0, 9.0), action=(0.5, 1.0))
        assert found == pytest.approx(expected, abs=EXACT)


def test_ant_dir_2d_rewards_velocity_along_the_heading() -> None:
    # (2, 3) . (cos h, sin h) + 1 - 0.5 * 1.25; along 3/4 pi it is (3 - 2) / sqrt(2).
    for heading, along in (
        (0.0, 2.0),
        (math.pi / 2, 3.0),
        (math.pi, -2.0),
        (1.5 * math.pi, -3.0),
        (0.75 * math.pi, 0.7071067811865476),
    ):
        found = reward(AntDir2D(), heading, velocity=(2.0, 3.0), action=(0.5, 1.0))
        assert found == pytest.approx(along + 0.375, abs=EXACT)


def test_heading_pi_is_direction_minus_one_and_heading_zero_is_plus_one() -> None:
    step = {"velocity": (1.7, -0.4), "action": (0.3, -0.2)}
    for heading, direction in ((math.pi, -1.0), (0.0, 1.0), (2 * math.pi, 1.0)):
        found = reward(AntDir2D(), heading, **step)  # type: ignore[arg-type]
        expected = reward(AntDir(), direction, **step)  # type: ignore[arg-type]
        assert found == pytest.approx(expected, abs=EXACT)


def test_ant_goal_rewards_closeness_in_the_l1_norm() -> None:
    # -|1 - 3| - |-2 - 1| - 0.1 * 1.25 = -5.125, whatever the velocity and health
    found = reward(AntGoal(), (3.0, 1.0), position=(1.0, -2.0), velocity=(7.0, 7.0), action=(0.5, 1.0))
    assert found == pytest.approx(-5.125, abs=EXACT)
    assert reward(AntGoal(), (3.0, 1.0), position=(1.0, -2.0), healthy=False) == pytest.approx(-5.0, abs=EXACT)


def test_humanoid_dir_weighs_velocity_by_one_and_a_quarter() -> None:
    # 1.25 * 2 + 5 - 0.1 * 1.25 = 7.375 along x; 1.25 * 3 + 5 - 0.125 = 8.625 along y; 2.375 backward
    for heading, expected in ((0.0, 7.375), (math.pi / 2, 8.625), (math.pi, 2.375)):
        found = reward(HumanoidDir(), heading, velocity=(2.0, 3.0), action=(0.5, 1.0))
        assert found == pytest.approx(expected, abs=EXACT)


def test_run_forward_rewards_health_only_while_healthy() -> None:
    # Gymnasium's weights: hopper 2 + 1 - 0.001 * 1.25, half-cheetah 2 - 0.1 * 1.25 (never unhealthy)
    actions = np.array([[0.5, 1.0, 0.0]] * 2)
    motion = Motion(np.zeros((2, 2)), np.array([[2.0, 9.0]] * 2), np.array([True, False]), *STILL)
    hopper = sum(RunForward(HOPPER).reward_terms(motion, actions, {}).values())
    cheetah = sum(RunForward(HALF_CHEETAH).reward_terms(motion, actions, {}).values())
    np.testing.assert_allclose(hopper, [2.99875, 1.99875], rtol=0, atol=EXACT)
    np.testing.assert_allclose(cheetah, [1.875, 1.875], rtol=0, atol=EXACT)


def test_every_row_is_rewarded_with_its_own_parameters() -> None:
    motion = Motion(np.zeros((3, 2)), np.array([(1.0, 0.0), (1.0, 0.0), (5.0, 0.0)]), np.ones(3, np.bool_), *STILL)
    terms = HalfCheetahDir().reward_terms(motion, np.zeros((3, 6)), {"direction": np.array([1.0, -1.0, -1.0])})
    np.testing.assert_array_equal(sum(terms.values()), [1.0, -1.0, -5.0])


def test_velocity_is_displacement_over_the_duration_of_a_step() -> None:
    env = HalfCheetahVel().make_env(1, num_threads=0)
    env.set_tasks([Task.of("half-cheetah-vel", velocity=1.5)])
    env.reset(seed=0)
    before = env.physics.qpos[0, 0]
    action = np.array([[0.5, -1.0, 0.25, 0.0, 1.0, -0.5]])
    step = env.advance(action)
    speed = (env.physics.qpos[0, 0] - before) / 0.05  # five physics steps of 0.01 s
    # 0.05 * (0.25 + 1 + 0.0625 + 0 + 1 + 0.25) = 0.128125
    assert step.rewards[0] == pytest.approx(-abs(speed - 1.5) - 0.128125, abs=1e-9)


@pytest.mark.parametrize(
    ("family", "horizon"),
    [
        (Point(), 100),
        (PointUniformStart(), 20),
        (SparsePoint(), 20),
        (HalfCheetahDir(), 100),
        (HalfCheetahVel(), 100),
        (AntDir(), 200),
        (AntDir2D(), 200),
        (AntGoal(), 200),
        (HumanoidDir(), 200),
        (RunForward(HALF_CHEETAH), 1000),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_horizons_are_those_of_the_literature(family: PointFamily | LocomotionFamily, horizon: int) -> None:
    assert family.make_env(1, num_threads=0).max_episode_steps == horizon
    assert family.make_env(1, num_threads=0, horizon=3).max_episode_steps == 3


def make_ants(family: LocomotionFamily, value: float | tuple[float, ...], heights: list[float]) -> LocomotionEnv:
    """Ants at rest at the given heights above the floor, at (1, -2)."""
    env = family.make_env(len(heights), num_threads=0)
    env.set_tasks([Task.of(family.name, **{family.parameters[0].name: value})] * len(heights))
    env.reset(seed=0)
    qpos = np.tile(ANT.build_model().qpos0, (len(heights), 1))
    qpos[:, :2] = 1.0, -2.0
    qpos[:, 2] = heights
    env.physics.set_states(np.arange(len(heights)), qpos, np.zeros((len(heights), 14)))
    return env


HEIGHTS = [0.75, 5.0]


@pytest.mark.parametrize(("family", "value"), [(AntDir(), 1.0), (AntDir2D(), 1.0)], ids=["ant-dir", "ant-dir-2d"])
def test_an_ant_that_leaves_the_ground_terminates(family: LocomotionFamily, value: float) -> None:
    step = make_ants(family, value, HEIGHTS).advance(np.zeros((2, 8)))
    np.testing.assert_array_equal(step.terminated, [False, True])


def test_ant_goal_never_terminates() -> None:
    step = make_ants(AntGoal(), (1.0, 1.0), HEIGHTS).advance(np.zeros((2, 8)))
    assert not step.terminated.any()


def test_ant_goal_observes_its_position_and_ant_dir_does_not() -> None:
    goal = make_ants(AntGoal(), (1.0, 1.0), HEIGHTS).advance(np.zeros((2, 8))).observations
    direction = make_ants(AntDir(), 1.0, HEIGHTS).advance(np.zeros((2, 8))).observations
    assert goal.shape == (2, 15 + 14)
    # One step of 0.05 s from rest: at most centimetres away from (1, -2).
    np.testing.assert_allclose(goal[0, :2], [1.0, -2.0], rtol=0, atol=0.05)
    np.testing.assert_array_equal(direction, goal[:, 2:])


@pytest.mark.parametrize(
    ("robot", "index", "healthy", "unhealthy"),
    [
        (ANT, 2, [0.2, 0.5, 1.0], [0.19, 1.01, math.nan]),
        (HUMANOID, 2, [1.01, 1.4, 1.99], [1.0, 2.0, math.nan]),
        (WALKER2D, 1, [0.81, 1.2, 1.99], [0.8, 2.0, math.nan]),
        (WALKER2D, 2, [-0.99, 0.0, 0.99], [-1.0, 1.0, math.nan]),
        (HOPPER, 1, [0.71, 1.2, 99.0], [0.7, 0.1, math.nan]),
        (HOPPER, 2, [-0.19, 0.0, 0.19], [-0.2, 0.2, math.nan]),
        (HOPPER, 4, [-99.0, 99.0], [-100.0, 100.0, math.nan]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_limits_of_health_are_those_that_gymnasium_documents(
    robot: Robot, index: int, healthy: list[float], unhealthy: list[float]
) -> None:
    """The torso's height, its angle, and for the hopper every joint; closed limits for the ant alone."""
    model = robot.build_model()
    qpos = np.tile(model.qpos0, (len(healthy) + len(unhealthy), 1))
    qpos[:, index] = healthy + unhealthy
    assert robot.healthy is not None
    found = robot.healthy(qpos, np.zeros((len(qpos), model.nv)))
    np.testing.assert_array_equal(found, [True] * len(healthy) + [False] * len(unhealthy))


def test_a_humanoid_that_lies_down_terminates() -> None:
    env = HumanoidDir().make_env(3, num_threads=0)
    env.set_tasks([Task.of("humanoid-dir", heading=0.0)] * 3)
    env.reset(seed=0)
    qpos = env.physics.qpos.copy()
    qpos[:, 2] = 1.4, 0.9, 2.5
    env.physics.set_states(np.arange(3), qpos, np.zeros((3, 23)))
    np.testing.assert_array_equal(env.advance(np.zeros((3, 17))).terminated, [False, True, True])


def make_point(family: PointFamily, goal: tuple[float, float], horizon: int = 100) -> PointEnv:
    env = family.make_env(1, horizon=horizon)
    env.set_tasks([Task.of(family.name, goal=goal)])
    env.reset(seed=0)
    return env


def test_point_is_rewarded_with_minus_the_euclidean_distance() -> None:
    step = make_point(Point(), (0.4, -0.3)).advance(np.array([[0.1, 0.1]]))
    # From (0.1, 0.1) the goal is (0.3, -0.4) away: 0.5.
    assert step.rewards[0] == pytest.approx(-0.5, abs=EXACT)
    np.testing.assert_allclose(step.observations, [[0.1, 0.1]], rtol=0, atol=EXACT)


def test_point_moves_at_most_a_tenth_along_each_axis() -> None:
    env = make_point(Point(), (5.0, 5.0))
    np.testing.assert_allclose(env.advance(np.array([[7.0, -0.05]])).observations, [[0.1, -0.05]], atol=EXACT)
    np.testing.assert_allclose(env.advance(np.array([[-0.2, -9.0]])).observations, [[0.0, -0.15]], atol=EXACT)


@pytest.mark.parametrize(
    ("goal", "terminated"),
    [
        ((0.109, 0.091), True),
        ((0.109, 0.111), False),  # near along x alone
        ((0.089, 0.1), False),  # near along y alone
        ((0.108, 0.108), True),  # the square and not the disk of 0.01
        ((0.0, 0.0), False),  # the origin is no goal
    ],
)
def test_point_terminates_within_a_hundredth_along_both_axes(goal: tuple[float, float], terminated: bool) -> None:
    step = make_point(Point(), goal).advance(np.array([[0.1, 0.1]]))
    assert bool(step.terminated[0]) is terminated


@pytest.mark.parametrize(
    "family", [PointUniformStart(), SparsePoint()], ids=["point-uniform-start", "sparse-point"]
)
def test_points_without_an_end_do_not_terminate_at_the_goal(family: PointFamily) -> None:
    env = make_point(family, (0.0, 0.0))
    for _ in range(50):
        step = env.advance(-env._positions)
        assert not step.terminated[0]
    np.testing.assert_allclose(step.observations, [[0.0, 0.0]], rtol=0, atol=EXACT)
    assert step.infos["success"][0] == 1.0


def test_starts_are_uniform_in_the_square_or_at_the_origin() -> None:
    env = PointUniformStart().make_env(400)
    env.set_tasks([Task.of("point-uniform-start", goal=(0.0, 0.0))] * 400)
    observations, _ = env.reset(seed=0)
    assert np.abs(observations).max() <= 1.0
    # Uniform in [-1, 1]: mean 0 and variance 1/3, here within 4 standard errors of 400 draws.
    np.testing.assert_allclose(observations.mean(0), 0.0, rtol=0, atol=4 * math.sqrt(1 / 3 / 400))
    np.testing.assert_allclose(observations.var(0), 1 / 3, rtol=0, atol=4 * math.sqrt(4 / 45 / 400))
    for family in (Point(), SparsePoint()):
        np.testing.assert_array_equal(make_point(family, (1.0, 0.0)).reset(seed=3)[0], [[0.0, 0.0]])


def test_sparse_point_is_rewarded_within_two_tenths_of_the_goal_only() -> None:
    env = make_point(SparsePoint(), (0.45, 0.0))
    rewards, dense, success = [], [], []
    for _ in range(5):  # positions 0.1, 0.2, 0.3, 0.4, 0.5; distances 0.35, 0.25, 0.15, 0.05, 0.05
        step = env.advance(np.array([[0.1, 0.0]]))
        rewards.append(step.rewards[0])
        dense.append(step.infos["dense_reward"][0])
        success.append(step.infos["success"][0])
    np.testing.assert_allclose(rewards, [0.0, 0.0, 0.85, 0.95, 0.95], rtol=0, atol=EXACT)
    np.testing.assert_allclose(dense, [-0.35, -0.25, -0.15, -0.05, -0.05], rtol=0, atol=EXACT)
    assert success == [0.0, 0.0, 1.0, 1.0, 1.0]


# Benchmarks.


def draw(tasks: TaskDistribution, count: int, seed: int = 0) -> list[Task]:
    return tasks.sample(count, np.random.default_rng(seed))


def values(benchmark: Benchmark, parameter: str, count: int = 4000) -> np.ndarray:
    """A parameter of tasks drawn to train on, float64 [task] or [task, size]."""
    return np.array([task[parameter] for task in draw(benchmark.train, count)])


@pytest.mark.parametrize("name", benchmark_names())
def test_a_benchmark_knows_its_name_and_its_tasks_belong_to_its_family(name: str) -> None:
    benchmark = make_benchmark(name)
    assert benchmark.name == name
    assert benchmark.description
    assert benchmark.train.family is benchmark.test.family is benchmark.family
    for task in draw(benchmark.train, 50) + draw(benchmark.test, 50, seed=1):
        benchmark.family.check(task)


@pytest.mark.parametrize("name", benchmark_names())
def test_a_benchmarks_tasks_run(name: str) -> None:
    benchmark = make_benchmark(name)
    horizon = None if name == "half-cheetah-failing-motor" else 2  # whose motor fails later than that
    env = benchmark.family.make_env(2, horizon=horizon, num_threads=0)
    env.set_tasks(draw(benchmark.train, 2))
    observations, _ = env.reset(seed=0)
    shape = env.single_action_space.shape
    assert shape is not None
    step = env.advance(np.zeros((2, *shape), dtype=env.single_action_space.dtype))
    assert observations.shape == step.observations.shape
    assert np.isfinite(step.rewards).all()
    env.close()


def test_only_small_finite_benchmarks_test_on_the_training_tasks() -> None:
    assert {name for name in benchmark_names() if make_benchmark(name).shared} == SHARED


@pytest.mark.parametrize("name", sorted(set(benchmark_names()) - SHARED))
def test_train_and_test_draws_share_no_task(name: str) -> None:
    benchmark = make_benchmark(name)
    train, test = draw(benchmark.train, 1000), draw(benchmark.test, 1000, seed=1)
    assert set(train).isdisjoint(test)


@pytest.mark.parametrize("name", sorted(TWO_DIRECTIONS))
def test_two_direction_benchmarks_hold_forward_and_backward(name: str) -> None:
    benchmark = make_benchmark(name)
    expected = {Task.of(name, direction=d) for d in (-1.0, 1.0)}
    if name == "humanoid-dir-2":
        expected = {Task.of("humanoid-dir", heading=h) for h in (0.0, np.pi)}
    assert set(draw(benchmark.train, 10)) == set(draw(benchmark.test, 10)) == expected


@pytest.mark.parametrize("name", benchmark_names())
def test_the_same_generator_draws_the_same_tasks(name: str) -> None:
    first, second = make_benchmark(name), make_benchmark(name)
    assert draw(first.train, 30, seed=7) == draw(second.train, 30, seed=7)
    assert draw(first.test, 30, seed=7) == draw(second.test, 30, seed=7)
    assert draw(first.train, 30, seed=7) != draw(first.train, 30, seed=8)


@pytest.mark.parametrize(
    ("name", "parameter", "high"),
    [
        ("half-cheetah-vel", "velocity", 3.0),
        ("half-cheetah-vel-2", "velocity", 2.0),
        ("ant-dir-2d", "heading", 2 * math.pi),
        ("humanoid-dir", "heading", 2 * math.pi),
    ],
)
def test_speeds_and_headings_are_uniform_from_zero(name: str, parameter: str, high: float) -> None:
    drawn = values(make_benchmark(name), parameter)
    assert drawn.min() >= 0.0
    assert drawn.max() <= high
    counts = np.histogram(drawn, bins=10, range=(0.0, high))[0]
    # Chi-square with 9 degrees of freedom: a uniform distribution exceeds 33.7 once in 10000 times.
    assert ((counts - 400) ** 2 / 400).sum() < 33.7


@pytest.mark.parametrize(("name", "extent"), [("point", 0.5), ("point-uniform-start", 1.0)])
def test_point_goals_are_uniform_in_a_square(name: str, extent: float) -> None:
    goals = values(make_benchmark(name), "goal")
    assert np.abs(goals).max() <= extent
    limits = [(-extent, extent)] * 2
    counts = np.histogram2d(goals[:, 0], goals[:, 1], bins=4, range=limits)[0]
    # Chi-square with 15 degrees of freedom: exceeds 44.3 once in 10000 times.
    assert ((counts - 250) ** 2 / 250).sum() < 44.3


def test_ant_goals_are_uniform_over_the_area_of_a_disk_of_three_metres() -> None:
    goals = values(make_benchmark("ant-goal"), "goal")
    squares = (goals**2).sum(1)
    assert squares.max() <= 9.0
    angles = np.arctan2(goals[:, 1], goals[:, 0])
    # Equal areas: quarters of r^2 / 9 by quarters of the circle. Chi-square with 15 degrees of freedom.
    counts = np.histogram2d(squares, angles, bins=4, range=[(0.0, 9.0), (-math.pi, math.pi)])[0]
    assert ((counts - 250) ** 2 / 250).sum() < 44.3


def test_sparse_point_goals_are_a_hundred_on_the_unit_semicircle_split_80_to_20() -> None:
    benchmark = make_benchmark("sparse-point")
    train, test = set(draw(benchmark.train, 1000)), set(draw(benchmark.test, 1000))
    assert (len(train), len(test)) == (80, 20)
    assert train.isdisjoint(test)
    goals = np.array([task["goal"] for task in train | test])
    np.testing.assert_allclose(np.hypot(*goals.T), 1.0, rtol=0, atol=EXACT)
    angles = np.sort(np.arctan2(goals[:, 1], goals[:, 0]))
    np.testing.assert_allclose(angles, np.arange(100) * math.pi / 99, rtol=0, atol=1e-9)


def finite(count: int) -> FiniteTasks:
    return FiniteTasks(Point(), tuple(Task.of("point", goal=(0.1 * i, 0.0)) for i in range(count)))


@pytest.mark.parametrize(("count", "num_tasks"), [(2, 40), (2, 5), (3, 7), (5, 3), (80, 20), (1, 4)])
def test_a_sample_of_finitely_many_tasks_is_stratified(count: int, num_tasks: int) -> None:
    sample = draw(finite(count), num_tasks)
    times = [sample.count(task) for task in finite(count).tasks]
    assert sum(times) == len(sample) == num_tasks
    assert max(times) - min(times) <= 1


def test_the_places_of_a_stratified_sample_are_uniform() -> None:
    rng = np.random.default_rng(0)
    samples = np.array([[task["goal"] for task in finite(2).sample(4, rng)] for _ in range(1000)])[..., 0] > 0
    # Each place holds the second task half of the time: 500 +- 4 * sqrt(250).
    np.testing.assert_allclose(samples.sum(0), 500, rtol=0, atol=64)
    assert len(np.unique(samples, axis=0)) == 6  # all orders of two and two


def test_a_finite_distribution_refuses_no_tasks_and_tasks_of_another_family() -> None:
    with pytest.raises(ValueError, match="must have at least one task"):
        FiniteTasks(Point(), ())
    with pytest.raises(ValueError, match="expected tasks of family 'point', got 'sparse-point'"):
        FiniteTasks(Point(), (Task.of("sparse-point", goal=(0.0, 0.0)),))


def test_an_unknown_benchmark_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown benchmark 'half-cheetah-direction'") as caught:
        make_benchmark("half-cheetah-direction")
    for name in benchmark_names():
        assert name in str(caught.value)


def test_benchmark_names_are_sorted_and_complete() -> None:
    names = benchmark_names()
    assert names == sorted(names)
    assert {
        "ant-dir",
        "ant-dir-2d",
        "ant-goal",
        "half-cheetah-dir",
        "half-cheetah-vel",
        "half-cheetah-vel-2",
        "humanoid-dir",
        "point",
        "point-uniform-start",
        "sparse-point",
    } <= set(names)


@pytest.mark.parametrize(
    ("family", "params", "message"),
    [
        (HalfCheetahDir(), {"direction": 0.5}, r"must be one of \[-1.0, 1.0\], got 0.5"),
        (HalfCheetahVel(), {"velocity": -0.1}, r"must be in \[0, 10\], got -0.1"),
        (AntDir2D(), {"heading": 6.3}, r"must be in \[0, 6.28319\], got 6.3"),
        (AntGoal(), {"goal": (1.0, 10.5)}, r"must be in \[-10, 10\], got 10.5"),
        (HumanoidDir(), {"heading": -1.0}, r"must be in \[0, 6.28319\], got -1.0"),
        (Point(), {"goal": (1.0, 2.0, 3.0)}, "must be a list of 2 numbers"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_families_refuse_parameters_out_of_range(
    family: LocomotionFamily | PointFamily, params: dict[str, float | tuple[float, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        family.make_env(1, num_threads=0).set_tasks([Task.of(family.name, **params)])


def test_dynamics_of_one_family_are_the_same_for_all_tasks_by_default() -> None:
    family: Callable[[], LocomotionFamily] = HalfCheetahDir
    env = family().make_env(2, num_threads=0)
    env.set_tasks([Task.of("half-cheetah-dir", direction=d) for d in (1.0, -1.0)])
    env.reset(seed=[0, 0])
    step = env.advance(np.full((2, 6), 0.5))
    np.testing.assert_array_equal(step.observations[0], step.observations[1])
    assert step.rewards[0] != step.rewards[1]
