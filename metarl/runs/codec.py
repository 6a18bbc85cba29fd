"""Configurations as JSON and back: dataclasses of plain values and tuples, and choices among classes by name.

Built-in classes are written by short names, a user's as "module:Class", and objects that are no configuration (a
benchmark, a network) as {"object": "module:Class"}. Nothing is imported by such a name: what is not built in is
read with a template, an experiment that has an instance of the class at the same place.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from metarl.runs.reading import shorten
from metarl.tasks import Benchmark

Tags = Mapping[str, Mapping[str, type[Any]]]
"""The key that says which of some dataclasses an object is, and the short names of the built-in ones."""

CLASS, OBJECT = "class", "object"
"""The keys of classes without a tag of their own, and of objects that only a template can give again."""


class NotBuiltIn(ValueError):
    """A class or an object that only the experiment that a run was made with can give again."""


def encode(value: Any, tags: Tags) -> Any:
    """A configuration as JSON types; what is not of its annotation's own class says which class it is."""
    return _encode(value, type(value), tags)


def _encode(value: Any, kind: Any, tags: Tags) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        arguments = typing.get_args(kind)
        return [_encode(item, arguments[0] if arguments else type(item), tags) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _encode(item, type(item), tags) for key, item in value.items()}
    if not _is_configuration(value):
        name = {"name": value.name} if isinstance(getattr(value, "name", None), str) else {}
        return {OBJECT: _object_name(value)} | name
    data = {
        tag: name for tag, kinds in tags.items() for name, built_in in kinds.items() if built_in is type(value)
    }
    if not data and kind is not type(value):
        data = {_tag(kind, tags): _class_name(type(value))}
    hints = typing.get_type_hints(type(value))
    return data | {f.name: _encode(getattr(value, f.name), hints[f.name], tags) for f in dataclasses.fields(value)}


def decode(kind: Any, data: Any, where: str, tags: Tags, template: Any = None) -> Any:
    """The value that JSON encodes, of the kind that an annotation says.

    Args:
        kind: Annotation of the value.
        data: Decoded JSON.
        where: Name of the value in errors.
        tags: Short names of built-in classes, by the key that they are written under.
        template: Value that lends its class, or is the result itself where an object is stored; None for none.

    Raises:
        NotBuiltIn: if the template lacks a class or an object.
        ValueError: naming the field that is unknown, missing or of a wrong type.
    """
    if isinstance(data, dict) and OBJECT in data and set(data) <= {OBJECT, "name"}:
        if template is None or _object_name(template).rpartition(":")[2] != str(data[OBJECT]).rpartition(":")[2]:
            raise NotBuiltIn(f"{where} is an object of {shorten(str(data[OBJECT]))[1:-1]}, which is not built in")
        return template
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple and arguments and _is_class(arguments[0]):
        if not isinstance(data, list):
            raise ValueError(f"{where} must be a list, got {shorten(data)}")
        known = list(template)[: len(data)] if isinstance(template, tuple) else []
        templates = [*known, *[None] * (len(data) - len(known))]
        pairs = enumerate(zip(data, templates, strict=True))
        return tuple(decode(arguments[0], item, f"{where}.{n}", tags, own) for n, (item, own) in pairs)
    options = [option for option in arguments or (kind,) if _is_class(option)]
    if not options or not isinstance(data, dict):
        if _is_class(kind):
            raise ValueError(f"{where} must be an object, got {shorten(data)}")
        return _decode_value(kind, data, where)
    return _decode_class(_chosen(options, data, where, tags, template), data, where, tags, template)


def _chosen(options: list[type[Any]], data: Mapping[str, Any], where: str, tags: Tags, template: Any) -> type[Any]:
    """The class that an object is of: the only one there is, or the one that it names."""
    tag = _tag(options[0] if len(options) == 1 else types.UnionType, tags, options)
    built_in = {
        name: kind for kinds in tags.values() for name, kind in kinds.items() if issubclass(kind, tuple(options))
    }
    name: Any = data.get(tag, data.get(CLASS))
    if isinstance(name, str) and name in built_in:
        return built_in[name]
    if name is None and len(options) == 1 and not inspect.isabstract(options[0]):
        return options[0]
    if isinstance(name, str) and ":" in name:
        classes = [*options, type(template)]
        # Of a file the class's name is what counts: the module is named after the file, which may have been moved.
        for candidate in classes:
            if dataclasses.is_dataclass(candidate) and candidate.__qualname__ == name.rpartition(":")[2]:
                return candidate
        raise NotBuiltIn(f"{where} is of the class {shorten(name)[1:-1]}, which is not built in")
    raise ValueError(f"{where}: unknown {tag} {shorten(name)}; known: {', '.join(built_in)}")


def _decode_class(kind: type[Any], data: Mapping[str, Any], where: str, tags: Tags, template: Any) -> Any:
    """The dataclass whose fields an object holds; old names of fields are understood."""
    own = {CLASS, *(tag for tag, kinds in tags.items() if kind in kinds.values())}
    own |= {tag for tag, name in data.items() if isinstance(name, str) and name.endswith(f":{kind.__qualname__}")}
    names = [field.name for field in dataclasses.fields(kind)]
    renamed: Mapping[str, str] = getattr(kind, "renamed", {})
    fields = {name: value for name, value in data.items() if name not in own or name in names}
    fields = {renamed.get(name, name): value for name, value in fields.items()}
    unknown = sorted(set(fields) - set(names))
    if unknown:
        raise ValueError(f"{where} has unknown fields {shorten(unknown)}; known: {sorted(names)}")
    hints = typing.get_type_hints(kind)
    same = template if isinstance(template, kind) else None
    try:
        values = {
            name: decode(hints[name], value, f"{where}.{name}", tags, getattr(same, name, None))
            for name, value in fields.items()
        }
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _decode_value(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    options = arguments if origin in (types.UnionType, typing.Union) else (kind,)
    if isinstance(data, list):
        for option in options:
            if typing.get_origin(option) is tuple:
                return tuple(_decode_value(typing.get_args(option)[0], item, where) for item in data)
    if not any(_matches(option, data) for option in options):
        expected = "a list" if origin is tuple else getattr(kind, "__name__", kind)
        raise ValueError(f"{where} must be {expected}, got {shorten(data)}")
    if type(data) is int and float in options and int not in options:
        try:
            return float(data)
        except OverflowError as error:
            raise ValueError(f"{where} must be a number of at most 1.8e308, got {shorten(data)}") from error
    return data


def _matches(kind: Any, data: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return data in typing.get_args(kind)
    kind = typing.get_origin(kind) or kind
    if not isinstance(kind, type):
        return kind is Any
    if isinstance(data, bool):
        return kind is bool
    return isinstance(data, int | float) if kind is float else isinstance(data, kind)


def _is_class(kind: Any) -> bool:
    """Whether an annotation is a class of configurations: a dataclass, or what such dataclasses derive from."""
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or inspect.isabstract(kind))


def _is_configuration(value: Any) -> bool:
    """Whether a value is written by its fields; functions, and what is called like one, are objects."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type | Benchmark) and not callable(value)


def _tag(kind: Any, tags: Tags, options: typing.Sequence[type[Any]] = ()) -> str:
    """The key that names the class of a value of an annotation."""
    classes = tuple(options or (o for o in typing.get_args(kind) or (kind,) if isinstance(o, type)))
    for tag, kinds in tags.items():
        if any(issubclass(built_in, classes) for built_in in kinds.values()):
            return tag
    return CLASS


def _object_name(value: Any) -> str:
    """The name of a function or a class, or that of an object's class."""
    return _class_name(value if hasattr(value, "__qualname__") else type(value))


def _class_name(kind: Any) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
