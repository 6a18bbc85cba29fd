"""Adaptation curves: exact episode counts, intervals, and the same actor protocol as training."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Actor, Outcome
from metarl.envs import make_benchmark
from metarl.evaluation import AdaptationCurve, adaptation_curve, halves, worst_decile
from metarl.tasks import Task
from metarl.trajectories import Trajectories


class Level:
    """An actor that only counts how often it has adapted."""

    sequential = False

    def __init__(self, level: int = 0) -> None:
        self.level = level

    def select(self, tasks: slice) -> "Level":
        return self

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        pass

    def begin_episode(self) -> None:
        pass

    def observe(self, outcome: Outcome) -> None:
        pass

    def act(self, observations: Tensor) -> Actions:
        raise NotImplementedError

    def adapt(self, trajectories: Trajectories) -> "Level":
        return Level(self.level + 1)


class Scripted:
    """A collector whose returns say adaptation level, task and episode: 100 level + 10 task + episode."""

    def __init__(self) -> None:
        self.steps_collected = 0
        self.seeds: list[int] = []

    def collect(
        self,
        actor: Actor,
        tasks: Sequence[Task],
        num_episodes: int,
        seed: int,
        *,
        places: Sequence[int] | None = None,
    ) -> Trajectories:
        assert isinstance(actor, Level)
        self.seeds.append(seed)
        grid = 10.0 * torch.arange(len(tasks))[:, None] + torch.arange(num_episodes) + 100 * actor.level
        shape = (len(tasks), num_episodes, 2)
        rewards = torch.zeros(shape)
        rewards[..., 1] = grid
        flags = torch.zeros(shape, dtype=torch.bool)
        success = torch.zeros(shape)
        success[0, :, 0] = 1.0
        return Trajectories(
            tasks=tuple(tasks),
            observations=torch.zeros(*shape, 1),
            actions=torch.zeros(*shape, 1),
            rewards=rewards,
            terminated=flags,
            truncated=flags,
            mask=~flags,
            last_observations=torch.zeros(*shape[:2], 1),
            records={},
            infos={"success": success},
        )


def _curve(num_tasks: int = 3) -> tuple[AdaptationCurve, Scripted]:
    collector = Scripted()
    tasks = [Task.of("point", goal=(float(i), 0.0)) for i in range(num_tasks)]
    rng = np.random.default_rng(0)
    return adaptation_curve(Level(), collector, tasks, rng, num_steps=2, num_episodes=4), collector


def test_every_task_has_the_same_number_of_episodes_at_every_step() -> None:
    curve, _ = _curve()
    expected = 100 * np.arange(3)[:, None, None] + 10 * np.arange(3)[:, None] + np.arange(4)
    np.testing.assert_array_equal(curve.returns, expected)
    assert curve.num_steps == 3 * 3 * 4 * 2


def test_summary_averages_tasks_and_counts_success_once_per_episode() -> None:
    rows = _curve()[0].summary()
    assert [row["step"] for row in rows] == [0, 1, 2]
    # mean over tasks of 10 task + 1.5
    assert [row["return_mean"] for row in rows] == [11.5, 111.5, 211.5]
    assert all(abs(row["success_mean"] - 1 / 3) < 1e-12 for row in rows)
    # Three tasks that differ by 10: a standard error of 10 / sqrt(3), and t of two degrees is 4.3027.
    half = 4.3027 * 10 / np.sqrt(3)
    np.testing.assert_allclose(rows[0]["return_ci95"], [11.5 - half, 11.5 + half], atol=1e-3)


def test_each_step_has_fresh_episodes() -> None:
    assert len(set(_curve()[1].seeds)) == 3


def test_one_task_has_no_interval() -> None:
    assert _curve(num_tasks=1)[0].summary()[0]["return_ci95"] is None


class Trial(Level):
    """An actor whose episodes of a task follow one another."""

    sequential = True


def test_the_curve_of_a_sequential_actor_is_the_return_per_episode_of_its_trials() -> None:
    tasks = [Task.of("point", goal=(0.1 * i, 0.0)) for i in range(3)]
    collector = Scripted()
    curve = adaptation_curve(Trial(), collector, tasks, np.random.default_rng(0), num_steps=4, num_episodes=2)
    # Two trials of five episodes per task: trial 2 i + j is the j-th of task i, and returns 10 trial + episode.
    assert len(collector.seeds) == 1
    assert curve.returns.shape == (5, 3, 2)
    for episode in range(5):
        np.testing.assert_array_equal(
            curve.returns[episode], [[10 * (2 * i + j) + episode for j in range(2)] for i in range(3)]
        )
    assert curve.tasks == tuple(tasks)
    trial = curve.trial_return()
    assert trial["return_mean"] == np.mean([50 * t + 10 for t in range(6)])
    assert not curve.exhaustive
    of_all = adaptation_curve(
        Trial(), collector, tasks, np.random.default_rng(0), num_steps=4, num_episodes=2, exhaustive=True
    )
    assert of_all.exhaustive


def test_the_part_of_a_family_has_its_own_tasks_returns_and_successes() -> None:
    tasks = [Task.of("push", goal=0.0), Task.of("reach", goal=1.0), Task.of("push", goal=2.0)]
    returns = np.arange(6.0).reshape(1, 3, 2)
    parts = AdaptationCurve(tuple(tasks), returns, returns > 3, 0).by_family()
    assert list(parts) == ["push", "reach"]
    assert parts["push"].tasks == (tasks[0], tasks[2])
    assert parts["push"].returns.tolist() == [[[0, 1], [4, 5]]]
    assert parts["reach"].returns.tolist() == [[[2, 3]]]
    successes = parts["push"].successes
    assert successes is not None
    assert successes.tolist() == [[[False, False], [True, True]]]


def _directions(noise: np.ndarray, *, exhaustive: bool, successes: np.ndarray | None = None) -> AdaptationCurve:
    """Two directions twenty times, which return -100 and 300, and noise of shape [step, task, episode]."""
    tasks = tuple(Task.of("half-cheetah-dir", direction=(-1.0, 1.0)[i % 2]) for i in range(40))
    returns = np.array([-100.0, 300.0])[np.arange(40) % 2][:, None] + noise
    return AdaptationCurve(tasks, returns, successes, 0, exhaustive)


def test_copies_of_a_task_are_repetitions_of_it() -> None:
    noise = 50 * np.random.default_rng(0).normal(size=(1, 40, 1))
    low, high = _directions(noise, exhaustive=True).summary()[0]["return_ci95"]
    assert 24 < high - low < 40
    # Two tasks that were drawn are two: Student's t has one degree of freedom.
    low, high = _directions(noise, exhaustive=False).summary()[0]["return_ci95"]
    assert high - low > 4000


def test_trials_of_one_task_are_repetitions_where_the_actor_is_sequential() -> None:
    tasks = tuple(Task.of("gridnavi", goal=(float(i), 0.0)) for i in range(3))
    trials = np.array([[[1.0, 3.0], [11.0, 13.0], [21.0, 23.0]]])
    curve = AdaptationCurve(tasks, trials, trials > 2, 0, exhaustive=True, separate_episodes=True)
    # By hand: each task's variance is 2, so the mean of six has a standard error of sqrt(2 / 6); t(3) is 3.182.
    half = 3.182 * np.sqrt(1 / 3)
    np.testing.assert_allclose(curve.summary()[0]["return_ci95"], [12 - half, 12 + half], atol=0.01)
    np.testing.assert_allclose(curve.trial_return()["return_ci95"], [12 - half, 12 + half], atol=0.01)
    low, high = curve.summary()[0]["success_ci95"]
    assert low < 5 / 6 < high < 1


def test_a_benchmark_knows_whether_its_tasks_are_all_that_there_are() -> None:
    rng = np.random.default_rng(0)
    directions, points = make_benchmark("half-cheetah-dir").test, make_benchmark("point").test
    assert directions.exhausted_by(directions.sample(2, rng))
    assert not directions.exhausted_by(directions.sample(1, rng))
    assert not points.exhausted_by(points.sample(100, rng))


def test_a_perfect_success_rate_has_an_interval() -> None:
    successes = np.ones((1, 40, 3), dtype=bool)
    low, high = _directions(np.zeros((1, 40, 3)), exhaustive=True, successes=successes).summary()[0][
        "success_ci95"
    ]
    assert high == 1.0
    assert 0.85 < low < 0.95


def test_the_worst_decile_is_of_each_columns_own_worst_tasks() -> None:
    values = np.stack((np.arange(20.0), np.arange(20.0)[::-1] * 10), axis=1)
    assert worst_decile(values, values).tolist() == [0.5, 5.0]
    assert worst_decile(values[:11], values[:11]).tolist() == [0.5, 95.0]
    assert float(worst_decile(np.array([3.0, 1.0]), np.array([3.0, 1.0]))) == 1.0


def test_the_worst_decile_is_measured_by_other_episodes_than_chose_it() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 500))
    assert abs(worst_decile(values, values).mean() + 1.64) < 0.05  # selected by noise
    assert abs(worst_decile(values, rng.normal(size=(20, 500))).mean()) < 0.05
    unlike = 10 * np.arange(20.0)[:, None]
    again = worst_decile(unlike + values, unlike + rng.normal(size=(20, 500)))
    assert abs(again.mean() - 5) < 0.1  # of tasks that do differ, the worst two

    tasks = tuple(Task.of("point", goal=(float(i), 0.0)) for i in range(20))
    for episodes, cross_fitted in ((1, False), (2, True), (5, True)):
        curve = AdaptationCurve(tasks, rng.normal(size=(300, 20, episodes)), None, 0)
        rows = curve.summary()
        assert {row["worst_decile_cross_fitted"] for row in rows} == {cross_fitted}
        mean = np.mean([row["return_worst_decile"] for row in rows])
        assert abs(mean) < 0.2 if cross_fitted else mean < -1.5


def test_the_worst_decile_is_of_distinct_tasks() -> None:
    (row,) = _directions(np.random.default_rng(0).normal(size=(1, 40, 1)), exhaustive=True).summary()
    assert abs(row["return_worst_decile"] + 100) < 0.5  # one of two directions, not the worst four of forty
    assert row["worst_decile_cross_fitted"]


def test_one_task_that_was_measured_once_leaves_no_other_episodes_to_choose_by() -> None:
    tasks = tuple(Task.of("point", goal=(goal, 0.0)) for goal in (0.0, 0.0, 1.0))
    (row,) = AdaptationCurve(tasks, np.array([[[4.0], [6.0], [3.0]]]), None, 0).summary()
    assert row["return_worst_decile"] == 3.0
    assert not row["worst_decile_cross_fitted"]


def test_halves_are_means_of_the_first_and_the_other_samples() -> None:
    first, second = halves(np.array([[1.0, 3.0, 5.0, 10.0, 12.0]])) or (None, None)
    assert first is not None
    assert (first.tolist(), second.tolist()) == ([2.0], [9.0])
    assert halves(np.ones((3, 1))) is None
