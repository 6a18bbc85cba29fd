"""95% intervals of means and of success rates, for measurements of which some belong together.

An interval depends on how the measurements were sampled. Episodes of one task share the task, and often its
adaptation, so that a thousand episodes of five tasks say less than a thousand tasks do. Two cases differ:

    tasks drawn from a distribution   The distinct tasks are the sample: all measurements of a task make one unit,
                                      and units vary within their task family. Copies of a task add nothing.
    tasks that are the distribution   Two directions, say, each adapted to twenty times: nothing was drawn but the
                                      repetitions, so that these are the units and vary within their task.

Both are stratified cluster samples. Their variance is Taylor-linearised and their degrees of freedom are units
minus strata, as in survey statistics (Lohr 2021, Sampling: Design and Analysis, sections 3.4 and 9.1): what a
bootstrap of units within strata converges to, with Student's t for few units, where the percentile bootstrap is
too narrow (of 5 normal units it covers 83% of the time, this 95%). Success rates have Wilson's interval with the
effective number of episodes (Korn and Graubard 1998, Survey Methodology 24): it is never of width zero.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

Bounds = list[float] | None
"""A lower and an upper bound; None where a single unit leaves nothing to compare."""

_Z = 1.959963984540054  # the 97.5% quantile of the normal distribution


@dataclass(frozen=True)
class Sampling:
    """The grouping of measurements, and the groups within which they vary.

    Attributes:
        units: Number of the unit that a measurement belongs to; units are independent, int64 [measurement].
        strata: Number of the stratum that a unit was drawn from; strata are not drawn, int64 [unit].
    """

    units: np.ndarray
    strata: np.ndarray

    @staticmethod
    def independent(num_measurements: int) -> "Sampling":
        """The sampling of measurements that are all independent, of one distribution."""
        return Sampling(np.arange(num_measurements), np.zeros(num_measurements, dtype=np.int64))

    @staticmethod
    def of_tasks(tasks: Sequence[Hashable], families: Sequence[Hashable], *, exhaustive: bool) -> "Sampling":
        """The sampling of measurements that were made on tasks.

        Args:
            tasks: One for every measurement; the same task several times where it was measured several times.
            families: Family of every measurement's task; as many of each were drawn as were asked for.
            exhaustive: True where the tasks are the whole distribution, false where they were drawn from it.
        """
        if exhaustive:
            return Sampling(np.arange(len(tasks)), _collapsed(tasks))
        family_of = dict(zip(tasks, families, strict=True))
        return Sampling(_numbered(tasks), _collapsed(list(family_of.values())))

    def mean_intervals(
        self, values: np.ndarray, *, least: float = -math.inf, most: float = math.inf
    ) -> list[Bounds]:
        """The 95% interval of every column's mean.

        Args:
            values: Real numbers, shape [measurement, column].
            least: The least number that a value can be; intervals end there.
            most: The largest number that a value can be.
        """
        return self._intervals(
            values, lambda mean, error, t: (max(least, mean - t * error), min(most, mean + t * error))
        )

    def mean_interval(self, values: np.ndarray, *, least: float = -math.inf, most: float = math.inf) -> Bounds:
        """The 95% interval of the mean of values of shape [measurement]; see `mean_intervals`."""
        return self.mean_intervals(values[:, None], least=least, most=most)[0]

    def rate_intervals(self, successes: np.ndarray, num_episodes: int) -> list[Bounds]:
        """The 95% interval of every column's success rate.

        A few failures say little of how alike the episodes of a unit are: the variance is taken with half a unit
        more, of the rarer outcome alone. Where there is no failure at all, the episodes of a unit count as one.

        Args:
            successes: Rates in [0, 1], each of `num_episodes` episodes, shape [measurement, column].
            num_episodes: Number of episodes behind each rate.
        """

        def wilson(rate: float, error: float, t: float) -> tuple[float, float]:
            spread = rate * (1 - rate)
            units, most = float(len(self.strata)), float(num_episodes * len(successes))
            variance = error**2 + (0.5 * (max(rate, 1 - rate) / units) ** 2 if most > units else 0.0)
            effective = units  # unless both outcomes were observed
            if spread > 1e-12:
                effective = min(most, spread / variance) if variance > 0 else most
            middle = (rate + t**2 / (2 * effective)) / (1 + t**2 / effective)
            half = t / (1 + t**2 / effective) * math.sqrt(spread / effective + t**2 / (4 * effective**2))
            return max(0.0, min(rate, middle - half)), min(1.0, max(rate, middle + half))

        return self._intervals(successes, wilson)

    def _intervals(
        self, values: np.ndarray, bounds: Callable[[float, float, float], tuple[float, float]]
    ) -> list[Bounds]:
        """What `bounds` makes of every column's mean, standard error and quantile of Student's t."""
        if len(self.strata) < 2:
            return [None] * values.shape[1]
        t = student_quantile(len(self.strata) - int(self.strata.max()) - 1)
        means, errors = values.mean(0), self._standard_errors(values)
        return [[*map(float, bounds(m, e, t))] for m, e in zip(means.tolist(), errors.tolist(), strict=True)]

    def _standard_errors(self, values: np.ndarray) -> np.ndarray:
        """Standard errors of the columns' means, [column]."""
        of_measurements = self.strata[self.units]
        means = _sums(of_measurements, values) / np.bincount(of_measurements)[:, None]
        deviations = _sums(self.units, values - means[of_measurements])  # [unit, column], zero in sum by stratum
        counts = np.bincount(self.strata)
        weights = (counts / (counts - 1))[self.strata]
        errors: np.ndarray = np.sqrt(weights @ deviations**2) / len(values)
        return errors


def student_quantile(degrees: int) -> float:
    """The 97.5% quantile of Student's t, within 0.3% (Abramowitz and Stegun 1972, 26.7.5; exact for 1 and 2)."""
    if degrees < 3:
        return (12.706204736174698, 4.302652729749464)[degrees - 1]
    z, n = _Z, degrees
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )


def _numbered(labels: Sequence[Hashable]) -> np.ndarray:
    """The labels as numbers from zero, in the order in which they come."""
    places = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    return np.array([places[label] for label in labels], dtype=np.int64)


def _collapsed(labels: Sequence[Hashable]) -> np.ndarray:
    """Strata by label, those of a single unit put together, so that each has two at least where there are two.

    What differs between the strata that were put together widens the interval: it covers more often than it says.
    """
    numbers = _numbered(labels)
    single = np.bincount(numbers)[numbers] == 1
    if single.sum() == 1 and len(labels) > 1:
        single |= numbers == (1 if single[0] else 0)
    return _numbered([-1 if alone else int(number) for number, alone in zip(numbers, single, strict=True)])


def _sums(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums of the rows [row, column] of each group, [group, column]."""
    sums = np.zeros((int(groups.max()) + 1, values.shape[1]))
    np.add.at(sums, groups, values)
    return sums
