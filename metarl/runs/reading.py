"""Files that people write: read whole, bounded, of plain values, and refused with one line.

A folder, a pipe or a device is refused at once and never waited for. JSON and YAML hold
nothing but mappings with text keys, lists, text, finite numbers, true, false and null, of bounded depth.
"""

import codecs
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import yaml

MAX_JSON_BYTES = 64 * 2**20
MAX_YAML_BYTES = 2**20
"""PyYAML reads a megabyte in some seconds."""
MAX_DEPTH = 50

_ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_json(path: Path, name: str) -> Any:
    """The content of a JSON file in UTF-8, or in UTF-16 with a byte order mark.

    Args:
        path: Path of the file.
        name: Noun for the file in errors, e.g. "task file".

    Raises:
        ValueError: If the file cannot be read, is not JSON, or holds what is no plain value; one line.
    """
    return parse_json(read_text(path, name, MAX_JSON_BYTES), f"the {name} {path}")


def parse_json(text: str, name: str) -> Any:
    """The plain values that a text in JSON holds.

    Args:
        text: Text in JSON.
        name: Noun for the text in errors, with its place.

    Raises:
        ValueError: If it is not JSON, or holds what is no plain value; one line.
    """
    try:
        return _checked(json.loads(text, object_pairs_hook=_without_repeats, parse_int=_whole))
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def read_yaml(path: Path, name: str) -> Any:
    """The content of a YAML file in UTF-8, or in UTF-16 with a byte order mark.

    Plain words are read as YAML 1.2 reads them: true, false, null, decimal numbers; all others are text. Aliases
    and tags are refused.

    Args:
        path: Path of the file.
        name: Noun for the file in errors, e.g. "family file".

    Raises:
        ValueError: If the file cannot be read, is not YAML, or holds what is no plain value; one line.
    """
    text = read_text(path, name, MAX_YAML_BYTES)
    try:
        return _checked(yaml.load(text, _Loader))  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(f"the {name} {path} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ValueError(f"the {name} {path} is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"the {name} {path}: {error}") from error


def open_regular(path: Path) -> BinaryIO:
    """An existing regular file, opened to read bytes; what might block is refused.

    Raises:
        OSError: If there is no such file, or it may not be read.
        ValueError: If it is a folder, a pipe or a device.
    """
    # Opened without waiting, a pipe that nobody writes to opens at once.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise ValueError("it is not a regular file")


def shorten(value: object) -> str:
    """The representation of a value on one line of at most 80 characters, for errors."""
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists nested too deeply
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_text(path: Path, name: str, most: int) -> str:
    """The text of a regular file in UTF-8, or in UTF-16 with a byte order mark.

    Args:
        path: Path of the file.
        name: Noun for the file in errors, e.g. "task file".
        most: Number of bytes above which it is refused.

    Raises:
        ValueError: If the file cannot be read, is too large, or is not text; one line.
    """
    try:
        with open_regular(path) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f"expected at most {most // 2**20} MiB")
        encoding = next((code for mark, code in _ENCODINGS.items() if data.startswith(mark)), "utf-8")
        return data.decode(encoding)
    except OSError as error:
        raise ValueError(f"cannot read the {name} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot read the {name} {path}: it is not text in UTF-8 ({error.reason})") from error
    except ValueError as error:  # of the file, or a null character in its path
        raise ValueError(f"cannot read the {name} {shorten(str(path))[1:-1]}: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a JSON file, in which no key stands twice."""
    data: dict[str, Any] = {}
    for key, value in pairs:
        if key in data:
            raise ValueError(f"a key stands twice in one object, {shorten(key)}")
        data[key] = value
    return data


def _checked(data: Any, where: str = "", depth: int = 0) -> Any:
    """The data, which hold plain and finite values only; where names their place in the file."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested too deeply, expected at most {MAX_DEPTH} levels")
    if isinstance(data, dict):
        for key, value in data.items():
            if not isinstance(key, str):
                raise ValueError(f"{_place(where)}keys must be text, got {shorten(key)}")
            _check_text(key, where)
            _checked(value, f"{where}.{key}" if where else key, depth + 1)
    elif isinstance(data, list):
        for place, value in enumerate(data):
            _checked(value, f"{where}[{place}]", depth + 1)
    elif isinstance(data, str):
        _check_text(data, where)
    elif data is not None and not isinstance(data, bool):
        if not isinstance(data, int | float):
            raise ValueError(f"{_place(where)}expected a plain value, got {shorten(data)}")
        if not (isinstance(data, int) or math.isfinite(data)):
            raise ValueError(f"{_place(where)}numbers must be finite, got {data}")
    return data


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{_place(where)}text has half a character, {shorten(text)}") from error


def _place(where: str) -> str:
    """The beginning of an error at a place; none at the top of the file."""
    return f"{shorten(where)[1:-1]}: " if where else ""


def _whole(digits: str) -> int:
    """The integer, which is in the range of floats. Python converts thousands of digits in quadratic time."""
    if len(digits) > 400 or math.isinf(float(digits)):
        raise ValueError(f"numbers must be finite, got an integer of {len(digits)} digits")
    return int(digits)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Refuses what YAML can say beyond plain values: aliases, tags and repeated entries."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {line} has the alias *{event.anchor}; write the value out")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"line {line} has the tag {shorten(event.tag)}; write the plain value")
        if self._depth > MAX_DEPTH:
            raise ValueError(f"it is nested too deeply, expected at most {MAX_DEPTH} levels")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"keys must be text, got a list or a mapping in line {key.start_mark.line + 1}")
            if key.value in names:
                raise ValueError(
                    f"{shorten(key.value)[1:-1]} is given twice in line {node.start_mark.line + 1} and after"
                )
            names.add(key.value)
        entries: dict[Any, Any] = super().construct_mapping(node, deep)
        return entries


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    text = node.value
    if re.fullmatch("[-+]?[0-9]+", text):
        return _whole(text)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (
        "float",
        r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:float", _decimal)
