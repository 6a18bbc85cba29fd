"""Configurations as JSON and back: dataclasses of plain values, tuples, and choices among dataclasses by a tag."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

Tags = Mapping[str, Mapping[str, type[Any]]]
"""The key that says which of some dataclasses an object is, and their names."""


def encode(value: Any, tags: Tags) -> Any:
    """A configuration as JSON types; what is a choice says which it is."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return list(value) if isinstance(value, tuple) else value
    data = {key: name for key, kinds in tags.items() for name, kind in kinds.items() if kind is type(value)}
    return data | {f.name: encode(getattr(value, f.name), tags) for f in dataclasses.fields(value)}


def decode(kind: Any, data: Any, where: str, tags: Tags) -> Any:
    """The value of an annotation that a JSON value encodes.

    Args:
        kind: the annotation.
        data: decoded JSON.
        where: names the value in errors.
        tags: how choices were written.

    Raises:
        ValueError: naming the field that is unknown, missing or of a wrong type.
    """
    options = set(typing.get_args(kind))
    for tag, kinds in tags.items():
        if options and options == set(kinds.values()):
            name: Any = data.get(tag) if isinstance(data, dict) else None
            if name not in kinds:
                raise ValueError(f"{where}: unknown {tag} {name!r}; known: {', '.join(kinds)}")
            rest = {field: value for field, value in data.items() if field != tag}
            return decode(kinds[name], rest, where, tags)
    if not dataclasses.is_dataclass(kind):
        return _decode_value(kind, data, where)
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be an object, got {data!r}")
    own = {tag for tag, kinds in tags.items() if kind in kinds.values()}
    hints = typing.get_type_hints(kind)
    build: Any = kind
    fields = {name: value for name, value in data.items() if name not in own}
    unknown = sorted(set(fields) - set(hints))
    if unknown:
        raise ValueError(f"{where} has unknown fields {unknown}; known: {sorted(hints)}")
    try:
        decoded = {name: decode(hints[name], value, f"{where}.{name}", tags) for name, value in fields.items()}
        return build(**decoded)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _decode_value(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"{where} must be a list, got {data!r}")
        return tuple(_decode_value(arguments[0], item, where) for item in data)
    if origin is Literal:
        valid = data in arguments
    elif origin is types.UnionType:
        valid = any(_matches(option, data) for option in arguments)
    else:
        valid = _matches(kind, data)
    if not valid:
        raise ValueError(f"{where} must be {getattr(kind, '__name__', kind)}, got {data!r}")
    return data


def _matches(kind: Any, data: Any) -> bool:
    if isinstance(data, bool):
        return bool(kind is bool)
    return isinstance(data, int | float) if kind is float else isinstance(data, kind)
