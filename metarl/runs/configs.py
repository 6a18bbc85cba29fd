"""Checks that configurations share; each error names the field, the expected range and the value."""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal

from metarl.runs.reading import shorten

LARGEST_NUMBER = 3e38
"""Largest number that is checked to be finite: float32 holds no more, and integers have no end of their own."""

LARGEST_COUNT = 10**9
"""Largest count of a field that names no kind below: no memory holds more of anything that is counted."""

# Largest counts by kind. Each is far beyond what anybody runs, and still refused in one line before the machine's
# memory is full or it counts for years.
MOST_UPDATES = 10**8
"""Most iterations, updates and environment steps of a training."""
MOST_STEPS = 10**6
"""Most steps of an episode."""
MOST_TASKS = 10**5
"""Most tasks, episodes, environments and examples that a batch or an evaluation has at once."""
MOST_REPEATS = 10**4
"""Most adaptation steps, epochs, and other repetitions within an update."""
MOST_UNITS = 2**14
"""Most units of a layer; the weights between two such layers fill a gigabyte."""
MOST_LAYERS = 1000
"""Most layers of a network, and heads of a layer."""
MOST_PROCESSES = 1000
"""Most processes or threads."""
LARGEST_SEED = 2**63 - 1
"""Largest seed, which torch's generators hold."""


class Configuration:
    """Base of configurations, dataclasses that refuse values that their fields do not take.

    These are values that a `Literal` field does not name, and anything but a configuration where a field is one.
    The check comes before a class's own `__post_init__`, which need not call it.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = cls.__dict__.get("__post_init__")
        if own is None:
            return

        @functools.wraps(own)
        def checked(self: Any) -> None:
            check_choices(self)
            check_parts(self)
            own(self)

        cls.__post_init__ = checked  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        check_choices(self)
        check_parts(self)


def check_choices(config: Any) -> None:
    """Raise a ValueError unless every `Literal` field of a dataclass, or tuple of such, has a value it names."""
    kind: Any = type(config)
    for name, (allowed, is_tuple) in _choices(kind).items():
        value = getattr(config, name)
        for each in value if is_tuple else (value,):
            if each not in allowed:
                *others, last = map(str, allowed)
                words = f"{', '.join(others)} or {last}" if others else last
                raise ValueError(f"{name} must be {'of' if is_tuple else 'one of'} {words}, got {shorten(each)}")


@functools.cache
def _choices(kind: Any) -> dict[str, tuple[tuple[Any, ...], bool]]:
    """The values of a dataclass's fields of fixed choices by name, and whether the field is a tuple of them."""
    hints, choices = typing.get_type_hints(kind), {}
    for name in (field.name for field in dataclasses.fields(kind)):
        hint, arguments = hints[name], typing.get_args(hints[name])
        is_tuple = typing.get_origin(hint) is tuple
        options = arguments[:1] if is_tuple else _options(hint)
        named = [option for option in options if typing.get_origin(option) is Literal]
        if named and all(option is type(None) for option in options if option not in named):
            values = [value for option in named for value in typing.get_args(option)]
            choices[name] = (*values, *[None] * (len(named) < len(options))), is_tuple
    return choices


def check_parts(config: Any) -> None:
    """Raise a TypeError unless every field of a dataclass that is to be a configuration is one of that kind."""
    own: Any = type(config)
    for name, (kind, is_optional) in _parts(own).items():
        value = getattr(config, name)
        if not (is_optional and value is None):
            check_kind(name, value, kind)


def check_kind(name: str, value: object, kind: type) -> None:
    """Raise a TypeError unless a configuration is of a kind.

    Args:
        name: Name of the configuration, for the message.
        value: Configuration, or what came in its place.
        kind: Class of the configuration.
    """
    if isinstance(value, kind):
        return
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    missing = dataclasses.MISSING
    needs_values = any(field.default is missing and field.default_factory is missing for field in fields)
    hint = "" if inspect.isabstract(kind) or needs_values else f"; {kind.__name__}() is the default"
    of_class = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    came = "None" if value is None else of_class
    raise TypeError(f"{name} must be an instance of {kind.__name__}, got {came}{hint}")


@functools.cache
def _parts(kind: Any) -> dict[str, tuple[type, bool]]:
    """The classes of a dataclass's fields that are configurations by name, and whether None will do."""
    hints, parts = typing.get_type_hints(kind), {}
    for name in (field.name for field in dataclasses.fields(kind)):
        options = [option for option in _options(hints[name]) if option is not type(None)]
        if len(options) == 1 and isinstance(options[0], type) and issubclass(options[0], Configuration):
            parts[name] = options[0], len(_options(hints[name])) > 1
    return parts


def _options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if is_union else (hint,)


def check_positive(config: object, *names: str) -> None:
    """Raise a ValueError unless the fields are positive and finite in float32."""
    for name in names:
        value = _number(config, name)
        if not 0 < value <= LARGEST_NUMBER:
            raise ValueError(f"{name} must be positive and finite, got {_shown(value)}")


def check_not_negative(config: object, *names: str, optional: bool = False) -> None:
    """Raise a ValueError unless the fields are zero or more and finite in float32, or None if optional."""
    for name in _given(config, names) if optional else names:
        value = _number(config, name)
        if not 0 <= value <= LARGEST_NUMBER:
            raise ValueError(f"{name} must be zero or more and finite, got {_shown(value)}")


def check_fraction(config: object, *names: str, optional: bool = False) -> None:
    """Raise a ValueError unless the fields are in [0, 1], or None if optional."""
    for name in _given(config, names) if optional else names:
        value = _number(config, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {_shown(value)}")


def check_counts(config: object, *names: str, least: int = 1, most: int = LARGEST_COUNT) -> None:
    """Raise a ValueError unless the fields are in a range, or None; a TypeError if they are not whole numbers."""
    for name in names:
        _check_count(name, getattr(config, name), least, most)


def check_sizes(config: object, *names: str, least_layers: int = 1) -> None:
    """Raise a ValueError unless the fields are sizes of layers; a TypeError if they are not whole numbers."""
    for name in names:
        sizes = getattr(config, name)
        if not least_layers <= len(sizes) <= MOST_LAYERS:
            raise ValueError(f"{name} must be {least_layers} to {MOST_LAYERS} sizes, got {len(sizes)}")
        for size in sizes:
            _check_count(f"each of {name}", size, 1, MOST_UNITS)


def check_seed(config: object, name: str = "seed") -> None:
    """Raise a ValueError unless the field is a seed or None; a TypeError if it is not a whole number."""
    check_counts(config, name, least=0, most=LARGEST_SEED)


def _check_count(name: str, value: Any, least: int, most: int) -> None:
    if value is None:
        return
    if type(value) is bool or not issubclass(type(value), Integral):
        raise TypeError(f"{name} must be a whole number, got {shorten(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {_shown(value)}")
    if value > most:
        raise ValueError(f"{name} must be at most {most:,}, got {_shown(value)}")


def _given(config: object, names: Sequence[str]) -> list[str]:
    return [name for name in names if getattr(config, name) is not None]


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
