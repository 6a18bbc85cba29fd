"""Checks that configurations share; each error names the field, the expected range and the value."""

import math


def check_positive(config: object, *names: str) -> None:
    """Raise a ValueError unless the fields are positive and finite."""
    for name in names:
        value = getattr(config, name)
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def check_not_negative(config: object, *names: str) -> None:
    """Raise a ValueError unless the fields are zero or more, and finite."""
    for name in names:
        value = getattr(config, name)
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be zero or more and finite, got {value}")


def check_fraction(config: object, *names: str) -> None:
    """Raise a ValueError unless the fields are in [0, 1]."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")


def check_counts(config: object, *names: str) -> None:
    """Raise a ValueError unless the fields are at least 1, or None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
