"""The checks that configurations share: bounds, and numbers that no computer's types hold."""

import math
from collections.abc import Callable
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


@pytest.mark.parametrize("check", [check_counts, check_fraction, check_not_negative, check_positive])
@pytest.mark.parametrize("value", [True, False, "1", "", [1], {}, 1j, "x" * 10_000], ids=lambda v: ascii(v)[:8])
def test_what_is_no_number_is_named_in_one_line(check: Callable[..., None], value: object) -> None:
    with pytest.raises(TypeError, match=r"rate must be a (whole )?number, got ") as caught:
        check(SimpleNamespace(rate=value), "rate")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [2.0, math.nan, math.inf])
def test_a_count_is_whole(value: float) -> None:
    with pytest.raises(TypeError, match="rate must be a whole number, got"):
        check_counts(SimpleNamespace(rate=value), "rate")
