"""Checks that configurations share; each error names the field, the expected range and the value."""

from numbers import Integral, Real
from typing import Any

from metarl.runs.reading import shorten

LARGEST_NUMBER = 3e38
"""Largest number that is checked to be finite: float32 holds no more, and integers have no end of their own."""

LARGEST_COUNT = 10**9
"""Largest count: no memory holds more of anything that is counted."""


def check_positive(config: object, *names: str) -> None:
    """Raise a ValueError unless the fields are positive and finite in float32."""
    for name in names:
        value = _number(config, name)
        if not 0 < value <= LARGEST_NUMBER:
            raise ValueError(f"{name} must be positive and finite, got {_shown(value)}")


def check_not_negative(config: object, *names: str) -> None:
    """Raise a ValueError unless the fields are zero or more, and finite in float32."""
    for name in names:
        value = _number(config, name)
        if not 0 <= value <= LARGEST_NUMBER:
            raise ValueError(f"{name} must be zero or more and finite, got {_shown(value)}")


def check_fraction(config: object, *names: str) -> None:
    """Raise a ValueError unless the fields are in [0, 1]."""
    for name in names:
        value = _number(config, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {_shown(value)}")


def check_counts(config: object, *names: str) -> None:
    """Raise a ValueError unless the fields are from 1 to a billion, or None; a TypeError if they are not whole."""
    for name in names:
        value: Any = getattr(config, name)
        if value is None:
            continue
        if type(value) is bool or not issubclass(type(value), Integral):
            raise TypeError(f"{name} must be a whole number, got {shorten(value)}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {_shown(value)}")
        if value > LARGEST_COUNT:
            raise ValueError(f"{name} must be at most {LARGEST_COUNT:,}, got {_shown(value)}")


def _number(config: object, name: str) -> Any:
    """The field's value, which must be a number: true is none, though Python counts it as 1."""
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {shorten(value)}")
    return value


def _shown(value: object) -> str:
    """A number as it stands in an error; of an integer without end the size alone."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"an integer of {value.bit_length()} bits"
    return str(value)
