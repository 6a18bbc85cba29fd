"""Intervals cover the truth as often as they say, whatever belongs together."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from metarl.intervals import Bounds, Sampling, student_quantile

ROUNDS = 2000
LEAST = 0.93  # of 0.95, over 2,000 rounds: four standard deviations below


def _coverage(intervals: list[Bounds], truth: float) -> float:
    assert len(intervals) == ROUNDS
    return float(np.mean([low - 1e-12 <= truth <= high + 1e-12 for low, high in filter(None, intervals)]))


def _width(intervals: list[Bounds]) -> float:
    return float(np.mean([high - low for low, high in filter(None, intervals)]))


def _clustered(rng: np.random.Generator, rate: float, alike: float, shape: tuple[int, int]) -> np.ndarray:
    """Success rates of tasks, [task, round]: beta-distributed with an intraclass correlation in [0, 1]."""
    if alike == 0:
        return np.full(shape, rate)
    if alike == 1:
        return (rng.random(shape) < rate).astype(float)
    scale = (1 - alike) / alike
    return rng.beta(rate * scale, (1 - rate) * scale, shape)


def test_two_directions_twenty_times_each_vary_by_their_repetitions() -> None:
    rng = np.random.default_rng(0)
    directions = np.arange(40) % 2
    values = np.array([-100.0, 300.0])[directions][:, None] + 50 * rng.normal(size=(40, ROUNDS))
    sampling = Sampling.of_tasks(directions.tolist(), ["half-cheetah-dir"] * 40, exhaustive=True)
    intervals = sampling.mean_intervals(values)
    assert 0.93 <= _coverage(intervals, 100.0) <= 0.97
    assert 30 < _width(intervals) < 33  # 2 x 2.02 x 50 / sqrt(40)
    drawn = Sampling.of_tasks(list(range(40)), ["half-cheetah-dir"] * 40, exhaustive=False)
    assert _width(drawn.mean_intervals(values)) > 120  # as if the 40 were tasks of their own


@pytest.mark.parametrize("num_tasks", [2, 3, 5, 20])
def test_tasks_that_were_drawn_vary_by_task(num_tasks: int) -> None:
    """Each is measured three times, which adds nothing where repetitions are alike."""
    rng = np.random.default_rng(num_tasks)
    tasks = list(range(num_tasks)) * 3
    values = rng.normal(size=(num_tasks, ROUNDS))[tasks] + 0.1 * rng.normal(size=(3 * num_tasks, ROUNDS))
    sampling = Sampling.of_tasks(tasks, ["point"] * len(tasks), exhaustive=False)
    assert 0.93 <= _coverage(sampling.mean_intervals(values), 0.0) <= 0.97
    if num_tasks == 20:
        apart = Sampling.independent(len(tasks)).mean_intervals(values)
        assert _coverage(apart, 0.0) < 0.8  # what came of counting copies as tasks


def test_task_families_are_strata() -> None:
    rng = np.random.default_rng(1)
    families = np.arange(20) % 5
    values = 100.0 * families[:, None] + 10 * rng.normal(size=(20, ROUNDS))
    sampling = Sampling.of_tasks(list(range(20)), families.tolist(), exhaustive=False)
    intervals = sampling.mean_intervals(values)
    assert 0.93 <= _coverage(intervals, 200.0) <= 0.97
    assert _width(intervals) < 10
    assert _width(Sampling.independent(20).mean_intervals(values)) > 100


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.95])
@pytest.mark.parametrize(
    ("num_tasks", "episodes", "alike"),
    [(20, 1, 0), (10, 10, 0), (20, 10, 0.1), (20, 10, 0.6), (40, 5, 0.3), (20, 2, 1), (10, 10, 1)],
)
def test_success_rates_are_covered(rate: float, num_tasks: int, episodes: int, alike: float) -> None:
    rng = np.random.default_rng(2)
    successes = rng.binomial(episodes, _clustered(rng, rate, alike, (num_tasks, ROUNDS))) / episodes
    intervals = Sampling.independent(num_tasks).rate_intervals(successes, episodes)
    assert _coverage(intervals, rate) >= LEAST


def test_success_rates_of_families_are_covered() -> None:
    rng = np.random.default_rng(3)
    rates = np.array([0.05, 0.3, 0.5, 0.9, 1.0])[np.arange(20) % 5]
    sampling = Sampling.of_tasks(list(range(20)), (np.arange(20) % 5).tolist(), exhaustive=False)
    for episodes in (1, 10):
        successes = rng.binomial(episodes, rates[:, None], (20, ROUNDS)) / episodes
        assert _coverage(sampling.rate_intervals(successes, episodes), float(rates.mean())) >= LEAST


def test_rates_of_independent_episodes_have_wilsons_interval() -> None:
    """By hand, 38 successes of 40: Wilson's bounds at t = 2.0227 instead of z."""
    successes = np.ones((40, 1))
    successes[:2] = 0
    t, p, n = 2.0227, 0.95, 39  # the variance is estimated, with n - 1
    middle, half = p + t**2 / (2 * n), t * np.sqrt(p * (1 - p) / n + t**2 / (4 * n**2))
    expected = np.array([middle - half, middle + half]) / (1 + t**2 / n)
    (interval,) = Sampling.independent(40).rate_intervals(successes, 1)
    assert_allclose(interval or [], expected, atol=1e-4)
    ((low, high),) = [bounds or [] for bounds in Sampling.independent(20).rate_intervals(np.ones((20, 1)), 50)]
    assert high == 1.0
    assert 0.8 < low < 0.85  # a thousand successes of twenty tasks are twenty successes


def test_a_single_measurement_has_no_interval() -> None:
    assert Sampling.independent(1).mean_interval(np.ones(1)) is None
    assert Sampling.of_tasks([0, 0], ["point"] * 2, exhaustive=False).rate_intervals(np.ones((2, 1)), 3) == [None]
    assert Sampling.of_tasks([0, 0], ["point"] * 2, exhaustive=True).mean_interval(np.arange(2.0)) is not None


def test_strata_of_one_unit_are_put_together() -> None:
    for labels, strata in (
        ([0, 0, 1], [0, 0, 0]),
        ([0, 1, 1], [0, 0, 0]),
        ([0, 1, 2], [0, 0, 0]),
        ([0, 0, 1, 1], [0, 0, 1, 1]),
        ([0, 1, 2, 2], [0, 0, 1, 1]),
    ):
        assert Sampling.of_tasks(labels, ["point"] * len(labels), exhaustive=True).strata.tolist() == strata


def test_students_quantiles_are_those_of_the_tables() -> None:
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980}
    for degrees, quantile in table.items():
        assert_allclose(student_quantile(degrees), quantile, rtol=3e-3)
