"""Reading a command line, and what every command does about bad arguments and interruptions."""

import contextlib
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tyro

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Arguments = TypeVar("Arguments")
Settings = TypeVar("Settings", bound="DataclassInstance")


class UsageError(ValueError):
    """An argument that cannot be used; the message is one line."""


def parse(kind: type[Arguments], words: list[str], program: str, default: Arguments | None = None) -> Arguments:
    """Parse a command line with tyro; a bad argument raises a UsageError of one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                kind,
                args=words,
                prog=program,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        plain = re.sub(r"\x1b\[[0-9;]*m", "", errors.getvalue())
        inside = [line.strip("│ ") for line in plain.splitlines() if line[:1] not in "╭╰"]
        text = " ".join(line for line in inside if line.strip("─"))
        text = re.sub(r"For full helptext, (see|run) (.*)", r"see `\2`", text)
        raise UsageError(text) from None


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
