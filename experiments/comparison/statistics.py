"""Statistics over seeds and tasks (Agarwal et al. 2021, arXiv:2108.13264): interquartile means and bootstraps.

Seeds and tasks are both samples. A bootstrap draws seeds with replacement and, independently, tasks within their
family, so that an interval says what other seeds and other tasks of the same kinds would give.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from metarl.intervals import Sampling

Interval = list[float] | None
"""A lower and an upper bound; None where one seed leaves nothing to compare."""
NUM_RESAMPLES = 2000
_CELLS = 4_000_000  # values of one chunk of resamples


def mean(cells: np.ndarray) -> np.ndarray:
    """Mean over seeds and tasks: of [..., seed, task], [...]."""
    return np.asarray(cells.mean((-2, -1)))


def interquartile_mean(cells: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the values over seeds and tasks: of [..., seed, task], [...]."""
    ordered = np.sort(cells.reshape(*cells.shape[:-2], -1), axis=-1)
    quarter = ordered.shape[-1] // 4
    return np.asarray(ordered[..., quarter : ordered.shape[-1] - quarter].mean(-1))


def interval(
    values: np.ndarray, families: Sequence[Hashable], statistic: Callable[[np.ndarray], np.ndarray] = mean
) -> Interval:
    """The 95% bootstrap interval of a statistic of values [seed, task]; None for one seed.

    Args:
        values: Measurements, [seed, task].
        families: Family of each task, within which tasks are drawn.
        statistic: Function of [resample, seed, task] that returns [resample].
    """
    if len(values) < 2:
        return None
    samples = []
    for rng, count in _chunks(values.size):
        seeds = rng.integers(len(values), size=(count, len(values)))
        tasks = _drawn(families, count, rng)
        samples.append(statistic(values[seeds[:, :, None], tasks[:, None, :]]))
    return _bounds(np.concatenate(samples))


def rate_interval(successes: np.ndarray, families: Sequence[Hashable]) -> Interval:
    """The interval of a success rate, see `interval`; where all succeed, or all fail, Wilson's.

    A bootstrap of nothing but successes has width zero, which a few tasks do not justify: they are the sample
    then.

    Args:
        successes: Success rates, [seed, task].
        families: Family of each task.
    """
    bounds = interval(successes, families)
    if bounds is None or bounds[0] < bounds[1]:
        return bounds
    tasks = Sampling.of_tasks(range(len(families)), families, exhaustive=False)
    return tasks.rate_intervals(successes.mean(0)[:, None], len(successes))[0]


def difference(first: np.ndarray, second: np.ndarray, families: Sequence[Hashable]) -> tuple[float, Interval]:
    """Mean paired difference on the same tasks, first minus second, and its interval; None if either has one seed.

    Args:
        first: Measurements, [seed, task].
        second: Measurements on the same tasks, [seed, task].
        families: Family of each task.
    """
    value = float((first.mean(0) - second.mean(0)).mean())
    if min(len(first), len(second)) < 2:
        return value, None
    samples = []
    for rng, count in _chunks(first.size + second.size):
        tasks = _drawn(families, count, rng)
        means = []
        for values in (first, second):
            seeds = rng.integers(len(values), size=(count, len(values)))
            means.append(values[seeds[:, :, None], tasks[:, None, :]].mean((1, 2)))
        samples.append(means[0] - means[1])
    return value, _bounds(np.concatenate(samples))


def probability_of_improvement(
    first: np.ndarray, second: np.ndarray, families: Sequence[Hashable]
) -> tuple[float, Interval]:
    """Probability that a run of the first is better than one of the second on a task; ties count half.

    Args:
        first: Measurements, [seed, task].
        second: Measurements on the same tasks, [seed, task].
        families: Family of each task.
    """
    wins = (first[:, None] > second[None]) + 0.5 * (first[:, None] == second[None])  # [seed, seed, task]
    value = float(wins.mean())
    if min(len(first), len(second)) < 2:
        return value, None
    samples = []
    for rng, count in _chunks(wins.size):
        rows = rng.integers(len(first), size=(count, len(first)))
        columns = rng.integers(len(second), size=(count, len(second)))
        tasks = _drawn(families, count, rng)
        drawn = wins[rows[:, :, None, None], columns[:, None, :, None], tasks[:, None, None, :]]
        samples.append(drawn.mean((1, 2, 3)))
    return value, _bounds(np.concatenate(samples))


def profile(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of runs and tasks [seed, task] above each threshold, [threshold]."""
    above: np.ndarray = (values[..., None] > thresholds).mean((0, 1))
    return above


def _chunks(size: int) -> list[tuple[np.random.Generator, int]]:
    """Generators and numbers of resamples, so that a chunk fits into memory; the same in every call."""
    most = max(1, min(NUM_RESAMPLES, _CELLS // max(1, size)))
    counts = [min(most, NUM_RESAMPLES - begun) for begun in range(0, NUM_RESAMPLES, most)]
    return [(np.random.default_rng(number), count) for number, count in enumerate(counts)]


def _drawn(families: Sequence[Hashable], count: int, rng: np.random.Generator) -> np.ndarray:
    """Tasks drawn with replacement within their families, [resample, task]."""
    drawn = np.empty((count, len(families)), dtype=np.int64)
    for family in dict.fromkeys(families):
        own = np.array([place for place, other in enumerate(families) if other == family])
        drawn[:, own] = own[rng.integers(len(own), size=(count, len(own)))]
    return drawn


def _bounds(samples: np.ndarray) -> list[float]:
    return [float(bound) for bound in np.quantile(samples, (0.025, 0.975))]
