"""Observations as arrays: one array, or a flat dictionary of arrays where a space has several parts.

A Box, Discrete, MultiDiscrete or MultiBinary space is one part. Dict and Tuple spaces have a named part for each
space inside: names of nested spaces are joined by dots, entries of tuples are numbered. Everything behind an
environment (collector, replay, recordings, encoders) handles these flat dictionaries, and keeps the shapes and
kinds of numbers.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces

Changed = TypeVar("Changed")

Arrays = Any
"""Observations of any number of environments: an array, or a dictionary of arrays by the names of the space's
parts.

Which of the two is up to the space, so no type can say it.
"""
PartSpace = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
"""A space whose elements are arrays or numbers."""


def space_parts(space: spaces.Space[Any]) -> dict[str, PartSpace]:
    """The parts of a space by name; the name of a space that is one part itself is empty.

    Raises:
        ValueError: if a part is of another kind, or two parts have one name.
    """
    if isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return {"": space}
    inside: dict[str, spaces.Space[Any]]
    if isinstance(space, spaces.Dict):
        inside = {str(name): part for name, part in space.spaces.items()}
    elif isinstance(space, spaces.Tuple):
        inside = {str(number): part for number, part in enumerate(space.spaces)}
    else:
        raise ValueError(
            "observations must be of a Box, Discrete, MultiDiscrete or MultiBinary space, or of a Dict or Tuple "
            f"of these, got {describe(space)}"
        )
    parts: dict[str, PartSpace] = {}
    for name, part in inside.items():
        for rest, leaf in space_parts(part).items():
            whole = f"{name}.{rest}" if rest else name
            if whole in parts:
                raise ValueError(
                    f"expected distinct names of observations, got {whole!r} twice in {describe(space)}"
                )
            parts[whole] = leaf
    return parts


def describe(space: spaces.Space[Any]) -> str:
    """A space in one line, for messages."""
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(f'{name}: {describe(part)}' for name, part in space.spaces.items())})"
    if isinstance(space, spaces.Tuple):
        return f"Tuple({', '.join(map(describe, space.spaces))})"
    if isinstance(space, spaces.Box):
        low, high = np.unique(space.low), np.unique(space.high)
        bounds = f"{low[0]:g}, {high[0]:g}, " if len(low) == len(high) == 1 else ""
        return f"Box({bounds}{space.shape}, {space.dtype})"
    text = " ".join(str(space).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_arrays(
    observations: Any,
) -> Arrays:  # what Gymnasium gives: arrays, numbers, dictionaries and tuples of them
    """The parts of observations that came in Gymnasium's form, nested as their space is."""
    if isinstance(observations, dict):
        inside = {str(name): part for name, part in observations.items()}
    elif isinstance(observations, tuple):
        inside = {str(number): part for number, part in enumerate(observations)}
    else:
        return np.asarray(observations)
    arrays: dict[str, np.ndarray] = {}
    for name, part in inside.items():
        below = as_arrays(part)
        if isinstance(below, dict):
            arrays |= {f"{name}.{rest}": values for rest, values in below.items()}
        else:
            arrays[name] = below
    return arrays


def as_nested(space: spaces.Space[Any], arrays: Arrays, prefix: str = "") -> Any:
    """Parts in Gymnasium's form, nested as the space is; `as_arrays` is the inverse."""
    if isinstance(space, spaces.Dict):
        return {name: as_nested(part, arrays, _join(prefix, str(name))) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(
            as_nested(part, arrays, _join(prefix, str(number))) for number, part in enumerate(space.spaces)
        )
    return arrays[prefix] if isinstance(arrays, dict) else arrays


def row_format(space: spaces.Space[Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of one row of an array that stores observations; several parts are fields of one dtype."""
    parts = space_parts(space)
    if "" in parts:
        return parts[""].shape or (), np.dtype(parts[""].dtype)
    return (), np.dtype([(name, part.dtype, part.shape or ()) for name, part in parts.items()])


def stored_parts(stored: np.ndarray) -> Arrays:
    """The parts of rows that are stored in `row_format`, or of one row, without a copy."""
    if stored.dtype.names is None:
        return np.asarray(stored)
    return {name: np.asarray(stored[name]) for name in stored.dtype.names}


def map_parts(change: Callable[..., Changed], first: Any, *others: Any) -> Any:
    """The change made to every part: of one array or tensor, or of each of a dictionary.

    Args:
        change: Function of one part of each of the arguments.
        first: Array or tensor, or a dictionary of them.
        others: More of the same structure.
    """
    if isinstance(first, dict):
        return {name: change(part, *(other[name] for other in others)) for name, part in first.items()}
    return change(first, *others)


def put(target: Arrays, index: slice | np.ndarray | int, values: Arrays) -> None:
    """Write values into some rows of every part."""
    if isinstance(target, dict):
        for name, part in target.items():
            part[index] = values[name]
    else:
        target[index] = values


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
