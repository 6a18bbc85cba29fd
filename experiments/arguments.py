"""Reading a command line, and what every command does about bad arguments and interruptions."""

import contextlib
import io
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, get_args

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    UnsupportedTypeAnnotationError,
)

from metarl.runs.cores import is_first

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Arguments = TypeVar("Arguments")
Settings = TypeVar("Settings", bound="DataclassInstance")


_REGISTRY = ConstructorRegistry()


@_REGISTRY.primitive_rule
def or_none(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """The reading of an optional value: shown as "INT or none", and none in any case of letters means None."""
    kinds = get_args(info.type)
    if len(kinds) != 2 or NoneType not in kinds:
        return None
    kind = next(each for each in kinds if each is not NoneType)
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, info.markers))
    if isinstance(spec, UnsupportedTypeAnnotationError) or spec.nargs != 1:
        return None

    def read(words: list[str]) -> Any:
        if words[0].lower() == "none":
            return None
        if spec.choices is not None and words[0] not in spec.choices:
            raise ValueError(f"expected one of {', '.join(spec.choices)} or none, got {words[0]}")
        return spec.instance_from_str(words)

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{spec.metavar} or none",
        instance_from_str=read,
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["none"] if value is None else spec.str_from_instance(value),
    )


class UsageError(ValueError):
    """An argument that cannot be used; the message is one line."""


def parse(kind: type[Arguments], words: list[str], program: str, default: Arguments | None = None) -> Arguments:
    """Parse a command line with tyro; a bad argument raises a UsageError of one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(_Wrapped(sys.stdout)):
            return tyro.cli(
                kind,
                args=words,
                prog=program,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
                registry=_REGISTRY,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        plain = re.sub(r"\x1b\[[0-9;]*m", "", errors.getvalue())
        inside = [line.strip("│╰╯ ") for line in plain.splitlines()[1:]]  # the box's first line is its title
        sections = [" ".join(part.split()) for part in re.split(r"(?m)^[─-]+$", "\n".join(inside))]
        text = "; ".join(part[0].lower() + part[1:] for part in sections if part)
        raise UsageError(re.sub(r"for full helptext, (see|run):? (.*)", r"see `\2`", text)) from None


class _Wrapped(io.TextIOBase):
    """A terminal whose long lines are wrapped: tyro wraps its boxes, but no usage and no description."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._width = shutil.get_terminal_size().columns

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the terminal; boxes are drawn where it has their signs."""
        return self._terminal.encoding

    def isatty(self) -> bool:
        """Whether there are colours."""
        return self._terminal.isatty()

    def write(self, text: str) -> int:
        """Write a text, wrapped."""
        for line in text.splitlines(keepends=True):
            plain = re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip("\n")
            long = len(plain) > self._width and plain[0].isalpha()
            folded = textwrap.fill(line, self._width, subsequent_indent="  ", break_on_hyphens=False)
            self._terminal.write(folded + "\n" if long else line)
        return len(text)


def overridden(settings: Settings, arguments: object, *names: str) -> Settings:
    """The settings with the named fields of the arguments, except those that are None."""
    values = {name: getattr(arguments, name) for name in names}
    return replace(settings, **{name: value for name, value in values.items() if value is not None})


def check_new(path: Path | None, option: str = "--json") -> None:
    """Raise a UsageError unless a new file can be written there; the message names the option."""
    if path is None:
        return
    if path.exists():
        raise UsageError(f"{path} exists and is left as it is; give {option} another name")
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise UsageError(f"cannot write {path}: its folder does not exist or is not writable")


@contextlib.contextmanager
def interruptible(folder: Path) -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C, SIGTERM or SIGHUP into a request to stop after the iteration; the second stops at once.

    In a thread other than the main one signals cannot be handled, and nothing is requested.
    """
    requested: list[int] = []
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def request(number: int, frame: object) -> None:
        if number == signal.SIGHUP:  # what is printed from now on goes nowhere, and must not fail
            for stream in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        elif requested:
            raise KeyboardInterrupt  # the command line's main function catches it
        requested.append(number)
        if is_first():
            print(
                f"\nstopping after this iteration, with a checkpoint in {folder}; again to stop at once",
                file=sys.stderr,
            )

    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup goes on when the terminal is closed
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield lambda: bool(requested)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def take_option(words: list[str], option: str) -> tuple[str | None, list[str]]:
    """The value of an option, None if it is not there, and the words without it."""
    for place, word in enumerate(words):
        name, separator, value = word.partition("=")
        if name == option and separator:
            return value, words[:place] + words[place + 1 :]
        if name == option and place + 1 < len(words):
            return words[place + 1], words[:place] + words[place + 2 :]
    return None, words
