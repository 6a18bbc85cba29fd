"""Environments that show their task: the same steps as without, and parameters in [-1, 1] behind them."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.envs import make_benchmark
from metarl.envs.mujoco.families import HalfCheetahDir, HalfCheetahVel
from metarl.envs.observed import TaskObserved, TaskObservedEnv, observed
from metarl.envs.toy.point import Point
from metarl.envs.vector import TaskVectorEnv
from metarl.experiments.configuration import Experiment, experiment_benchmark, make_agent
from metarl.task_numbers import TaskNumbers
from metarl.tasks import FiniteTasks, Parameter, Task
from metarl.training import TrainingConfig
from metarl.workers import EnvMaker, Workers

SPEEDS = [Task.of("half-cheetah-vel", velocity=v) for v in (0.0, 2.5, 10.0)]


def test_observations_end_with_the_scaled_parameters() -> None:
    plain, shown = HalfCheetahVel().make_env(3, num_threads=1), TaskObserved(HalfCheetahVel()).make_env(3)
    plain.set_tasks(SPEEDS)
    shown.set_tasks(SPEEDS)
    expected = np.array([[-1.0], [-0.5], [1.0]])  # velocity is in [0, 10]
    before, _ = plain.reset(seed=1)
    seen, _ = shown.reset(seed=1)
    assert shown.single_observation_space.shape == (18,)
    assert shown.observation_space.contains(seen)
    np.testing.assert_array_equal(seen, np.concatenate((before, expected), axis=1))
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 6)).astype(np.float32)
    for rows in (None, np.array([0, 2])):
        part = actions if rows is None else actions[rows]
        a, b = plain.advance(part, rows), shown.advance(part, rows)
        wanted = expected if rows is None else expected[rows]
        np.testing.assert_array_equal(b.observations, np.concatenate((a.observations, wanted), axis=1))
        np.testing.assert_array_equal(b.rewards, a.rewards)
    plain.close()
    shown.close()


def test_choices_and_lists_are_scaled_by_their_own_bounds() -> None:
    directions = [Task.of("half-cheetah-dir", direction=d) for d in (-1.0, 1.0)]
    assert TaskNumbers(HalfCheetahDir()).vectors(directions).tolist() == [[-1.0], [1.0]]
    family = Point()
    bound = family.parameters[0].high
    vectors = TaskNumbers(family).vectors([Task.of("point", goal=(bound, -bound / 2))])
    np.testing.assert_allclose(vectors, [[1.0, -0.5]])


def test_the_last_observation_of_an_episode_is_extended_too() -> None:
    family = Point()
    inner = family.make_env(2, horizon=2, autoreset_mode=AutoresetMode.SAME_STEP)
    assert isinstance(inner, TaskVectorEnv)
    env = TaskObservedEnv(inner, TaskObserved(family))
    env.set_tasks([Task.of("point", goal=(0.0, 0.0))] * 2)
    env.reset(seed=0)
    env.step(np.zeros((2, 2), np.float32))
    observations, *_, infos = env.step(np.zeros((2, 2), np.float32))
    assert observations.shape == (2, 4)
    assert [len(values) for values in infos["final_obs"]] == [4, 4]


def test_a_parameter_without_bounds_is_one_line() -> None:
    class Unbounded(Point):
        parameters = (Parameter("goal", size=2),)

    with pytest.raises(ValueError, match=r"'goal' of 'point' needs finite bounds, got \[-inf, inf\]"):
        TaskObserved(Unbounded())


def test_distributions_draw_the_same_tasks() -> None:
    finite = FiniteTasks(HalfCheetahVel(), tuple(SPEEDS))
    shown = observed(finite)
    assert isinstance(shown, FiniteTasks)
    assert isinstance(shown.family, TaskObserved)
    points = make_benchmark("point").train
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    assert observed(points).sample(2, rng) == points.sample(2, other)


def test_an_experiment_can_show_its_tasks() -> None:
    agent = Rl2Config(TrialPolicyConfig(memory="none", head_sizes=(8,)), num_episodes=1)
    experiment = Experiment("point", agent, TrainingConfig(1, 2), observe_task=True, horizon=5)
    benchmark = experiment_benchmark(experiment)
    assert isinstance(benchmark.family, TaskObserved)
    assert benchmark.name != "point"
    learner = make_agent(experiment, benchmark)
    rng = np.random.default_rng(0)
    with Workers(EnvMaker(benchmark.family, 5), num_threads=1) as workers:
        experience = learner.collect(workers, benchmark.train.sample(2, rng), rng)
    assert experience.observations.shape[-1] == 4
    assert np.isfinite(list(learner.update(experience).values())).all()
