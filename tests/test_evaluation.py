"""Adaptation curves: exact episode counts, intervals, and the same actor protocol as training."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Actor, Outcome
from metarl.evaluation import (
    AdaptationCurve,
    adaptation_curve,
    bootstrap_interval,
    bootstrap_intervals,
    worst_decile,
)
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

    def collect(self, actor: Actor, tasks: Sequence[Task], num_episodes: int, seed: int) -> Trajectories:
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
    rows = _curve()[0].summary(np.random.default_rng(0))
    assert [row["step"] for row in rows] == [0, 1, 2]
    # mean over tasks of 10 task + 1.5
    assert [row["return_mean"] for row in rows] == [11.5, 111.5, 211.5]
    assert all(abs(row["success_mean"] - 1 / 3) < 1e-12 for row in rows)
    low, high = rows[0]["return_ci95"]
    assert 1.5 <= low < 11.5 < high <= 21.5


def test_each_step_has_fresh_episodes() -> None:
    assert len(set(_curve()[1].seeds)) == 3


def test_one_task_has_no_interval() -> None:
    assert _curve(num_tasks=1)[0].summary(np.random.default_rng(0))[0]["return_ci95"] is None


def test_bootstrap_interval_of_normal_samples_is_that_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(5.0, 2.0, 400)
    interval = bootstrap_interval(values, rng)
    assert interval is not None
    half = 1.96 * values.std(ddof=1) / 20
    np.testing.assert_allclose(interval, [values.mean() - half, values.mean() + half], atol=0.02)


def test_bootstrap_intervals_cover_the_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        low, high = bootstrap_intervals(rng.normal(size=(50, 1)), rng, resamples=500)[0] or (0.0, 0.0)
        covered += low < 0 < high
    assert 270 <= covered <= 298  # 95% of 300 is 285, three standard deviations are 11


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
    trial = curve.trial_return(np.random.default_rng(0))
    assert trial["return_mean"] == np.mean([50 * t + 10 for t in range(6)])


def test_intervals_of_many_columns_are_those_of_each_alone() -> None:
    values = np.random.default_rng(0).normal(size=(400, 3)) + np.array([0.0, 5.0, -2.0])
    together = bootstrap_intervals(values, np.random.default_rng(1))
    for column, interval in enumerate(together):
        alone = bootstrap_interval(values[:, column], np.random.default_rng(2))
        np.testing.assert_allclose(interval or [], alone or [], atol=0.01)


def test_the_worst_decile_is_of_each_columns_own_worst_tasks() -> None:
    values = np.stack((np.arange(20.0), np.arange(20.0)[::-1] * 10), axis=1)
    assert worst_decile(values).tolist() == [0.5, 5.0]
    assert worst_decile(values[:11]).tolist() == [0.5, 95.0]
    assert float(worst_decile(np.array([3.0, 1.0]))) == 1.0
