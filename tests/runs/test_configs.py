"""The checks that configurations share: bounds, and numbers that no computer's types hold."""

import math
from types import SimpleNamespace

import pytest

from metarl.runs.configs import check_counts, check_fraction, check_not_negative, check_positive

HUGE = 10**400


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 1e300, HUGE, -HUGE])
def test_numbers_that_are_not_positive_and_finite_in_float32_are_refused(value: float) -> None:
    config = SimpleNamespace(rate=value)
    with pytest.raises(ValueError, match="rate must be positive and finite, got"):
        check_positive(config, "rate")
    if value != 0:
        with pytest.raises(ValueError, match="rate must be zero or more and finite, got"):
            check_not_negative(config, "rate")
        with pytest.raises(ValueError, match=r"rate must be in \[0, 1\], got"):
            check_fraction(config, "rate")


@pytest.mark.parametrize("value", [1, 1e-300, 3e38, 10**30])
def test_numbers_that_float32_holds_are_taken(value: float) -> None:
    check_positive(SimpleNamespace(rate=value), "rate")
    check_not_negative(SimpleNamespace(rate=value), "rate")


def test_counts_are_from_one_to_a_billion() -> None:
    check_counts(SimpleNamespace(a=1, b=10**9, c=None), "a", "b", "c")
    with pytest.raises(ValueError, match="a must be at least 1, got 0"):
        check_counts(SimpleNamespace(a=0), "a")
    with pytest.raises(ValueError, match=r"a must be at most 1,000,000,000, got an integer of 16610 bits"):
        check_counts(SimpleNamespace(a=10**5000), "a")
