"""Observation and action spaces as JSON, in the files that go with a policy.

    {"kind": "Box", "shape": [3], "dtype": "float32", "low": -1.0, "high": [1.0, 2.0, "inf"]}
    {"kind": "Discrete", "n": 4, "start": 0}
    {"kind": "MultiDiscrete", "shape": [2], "dtype": "int64", "nvec": [3, 4], "start": 0}
    {"kind": "MultiBinary", "shape": [2, 3]}, or a number where the space has one
    {"kind": "Dict", "parts": {"image": ..., "speed": ...}}          {"kind": "Tuple", "parts": [...]}

Bounds are one number where all are equal, and otherwise a list in the order of the flattened array.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from metarl.observations import describe
from metarl.runs.reading import shorten

_MAX_NUMBERS = 10_000_000
"""Numbers of one part of a space; of more no policy could be made."""

_DTYPES = (*(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), "float32", "float64")


def space_to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """The space as JSON types; `space_from_json` is the inverse.

    Raises:
        ValueError: if the space is of another kind than those above.
    """
    if isinstance(space, spaces.Box):
        bounds = {"low": _numbers(space.low), "high": _numbers(space.high)}
        return {"kind": "Box", "shape": list(space.shape), "dtype": space.dtype.name} | bounds
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        sizes = {"nvec": _numbers(space.nvec), "start": _numbers(space.start)}
        dtype = np.dtype(space.dtype).name
        return {"kind": "MultiDiscrete", "shape": list(space.shape or ()), "dtype": dtype} | sizes
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "shape": space.n if isinstance(space.n, int) else list(space.shape)}
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "parts": {name: space_to_json(part) for name, part in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "parts": [space_to_json(part) for part in space.spaces]}
    raise ValueError(f"expected a space of Gymnasium's usual kinds, got {describe(space)}")


def space_from_json(data: Any) -> spaces.Space[Any]:
    """The space that `space_to_json` described.

    Raises:
        ValueError: in one line, if it describes none.
    """
    try:
        return _made(data)
    except (KeyError, TypeError, AssertionError, OverflowError, AttributeError) as error:
        raise ValueError(f"expected the description of a space, got {shorten(data)}") from error


def _made(data: Mapping[str, Any]) -> spaces.Space[Any]:
    kind = data["kind"]
    if kind == "Discrete":
        return spaces.Discrete(_count(data["n"]), start=_whole(data["start"]))
    if kind == "MultiBinary":
        size = data["shape"]
        return spaces.MultiBinary(_shape(size) if isinstance(size, list) else _count(size))
    if kind == "Dict":
        return spaces.Dict({str(name): space_from_json(part) for name, part in data["parts"].items()})
    if kind == "Tuple":
        return spaces.Tuple([space_from_json(part) for part in data["parts"]])
    shape, dtype = _shape(data["shape"]), data["dtype"]
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {shorten(dtype)}")
    kinds: Any = np.dtype(dtype)  # gymnasium's annotations leave most of them out
    if kind == "Box":
        low, high = _array(data["low"], shape, dtype), _array(data["high"], shape, dtype)
        if not (low <= high).all():
            raise ValueError("the low bounds of a Box must not be above the high ones")
        return spaces.Box(low, high, shape, kinds)
    if kind == "MultiDiscrete":
        sizes = _array(data["nvec"], shape, dtype)
        if not (sizes > 0).all() or sum(sizes.ravel().tolist()) > _MAX_NUMBERS:  # whose sum might wrap around
            raise ValueError(
                f"nvec must be positive counts of at most {_MAX_NUMBERS:,} in all, got {shorten(data['nvec'])}"
            )
        return spaces.MultiDiscrete(sizes, dtype=kinds, start=_array(data["start"], shape, dtype))
    raise ValueError(f"the kind of a space must be Box, Discrete, ... or Tuple, got {shorten(kind)}")


def _numbers(array: np.ndarray) -> Any:
    """One number if all are equal, else a list; infinities are text, which JSON has no numbers for."""
    values = np.unique(array)
    listed = (values if len(values) == 1 else array.ravel()).tolist()
    texts = [x if math.isfinite(x) else str(x) for x in listed]
    return texts[0] if len(values) == 1 else texts


def _array(numbers: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    listed = [_number(x) for x in (numbers if isinstance(numbers, list) else [numbers])]
    with np.errstate(over="ignore"):
        values = np.array(listed, dtype)
    pairs = zip(listed, values.tolist(), strict=True)
    if wrong := [x for x, value in pairs if math.isinf(value) != math.isinf(x)]:
        raise ValueError(f"bounds must be numbers of {dtype}, got {shorten(wrong[0])}")
    if len(values) not in (1, math.prod(shape)):
        raise ValueError(f"a space of shape {shape} must have so many numbers or one, got {len(values)}")
    whole: np.ndarray = np.broadcast_to(values, math.prod(shape)).reshape(shape).copy()
    return whole


def _number(value: Any) -> float:
    if value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"bounds must be numbers, inf or -inf, got {shorten(value)}")
    return value


def _shape(data: Any) -> tuple[int, ...]:
    shape = tuple(_count(size) for size in data)
    if len(shape) > 8 or math.prod(shape) > _MAX_NUMBERS:
        raise ValueError(f"a space must have at most {_MAX_NUMBERS:,} numbers, got the shape {shorten(shape)}")
    return shape


def _count(value: Any) -> int:
    if not 1 <= _whole(value) <= _MAX_NUMBERS:
        raise ValueError(f"counts must be from 1 to {_MAX_NUMBERS:,}, got {shorten(value)}")
    return int(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**62:
        raise ValueError(f"expected a whole number, got {shorten(value)}")
    return value
