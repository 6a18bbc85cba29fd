"""Commands in forked children of a process that has imported everything, with time and memory limits."""

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import tyro

from metarl.experiments.cli import main

MEMORY_BYTES = 4 * 2**30
"""Memory that a child may map beyond what its parent has mapped."""
_STRAGGLERS_S = 15.0


class Child(NamedTuple):
    """A forked process, the leader of a session of its own."""

    pid: int
    log: Path

    def ended(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait(self, limit_s: float) -> int:
        """The exit code; a child that runs for longer is killed and counts as one that hangs."""
        deadline = time.monotonic() + limit_s
        while (code := self.ended()) is None:
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"it hangs: no end after {limit_s:g} s; {self.log.read_text()[-2000:]}")
            time.sleep(0.002)
        return code

    def kill_after(self, delay_s: float) -> bool:
        """Send SIGKILL after some time; whether it hit a process that was running."""
        deadline = time.monotonic() + delay_s
        while (left := deadline - time.monotonic()) > 0:
            if self.ended() is not None:
                return False
            time.sleep(min(left, 0.005))
        if self.ended() is not None:
            return False
        os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == -signal.SIGKILL


def fork(call: Callable[[], int], log: Path) -> Child:
    """Call a function in a forked process that writes to the log and exits with what the function returns."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, log)
    status = 70
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(output, stream)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(output), "w", buffering=1) for _ in range(2))
        torch.set_num_threads(1)
        status = call()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def limit_memory(num_bytes: int = MEMORY_BYTES) -> None:
    """Have this process run out of memory when it asks for this much more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + num_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def command(words: Sequence[str]) -> int:
    """The exit status of a command, as the process `metarl WORDS` would have it."""
    try:
        return main(list(words))
    except SystemExit as stop:
        return int(stop.code or 0)


def wait_for_session(session: int) -> None:
    """Raise an AssertionError unless all processes of a session end by themselves, soon after its leader did."""
    deadline = time.monotonic() + _STRAGGLERS_S
    while left := _session(session):
        assert time.monotonic() < deadline, f"processes stay behind: {left}"
        time.sleep(0.02)


def _session(session: int) -> list[str]:
    """What runs in a session."""
    running = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, rest = (place / "stat").read_text().rpartition(")")
            state, _, _, of = rest.split()[:4]
            if int(of) == session and state != "Z":
                running.append(name)
    return running


def run_all(calls: Sequence[Callable[[], Any]], *, limit_s: float, at_once: int = 2) -> list[Any]:
    """The JSON results of functions that are called in forked processes, two at a time.

    Args:
        calls: Functions; one that raises fails the test with its traceback.
        limit_s: Longest time of one call in seconds.
        at_once: Number of processes.
    """
    results: list[Any] = [None] * len(calls)
    failures: list[str] = []
    running: dict[int, tuple[Child, float]] = {}
    waiting = list(range(len(calls)))[::-1]
    with tempfile.TemporaryDirectory(prefix="chaos-") as place:
        while waiting or running:
            while waiting and len(running) < at_once:
                number = waiting.pop()
                log = Path(place) / f"{number}.log"
                child = fork(_writing(calls[number], Path(place) / f"{number}.json"), log)
                running[number] = child, time.monotonic() + limit_s
            for number, (child, deadline) in list(running.items()):
                code = child.ended()
                if code is None and time.monotonic() > deadline:
                    os.killpg(child.pid, signal.SIGKILL)
                    code = child.wait(10)
                if code is not None:
                    del running[number]
                    text = child.log.read_text(errors="replace") if child.log.exists() else ""
                    result = Path(place) / f"{number}.json"
                    if code == 0 and result.exists():
                        results[number] = json.loads(result.read_text())
                    else:
                        failures.append(f"call {number} ended with {code}: {text[-3000:]}")
            time.sleep(0.002)
    if failures:
        pytest.fail(f"{len(failures)} of {len(calls)} failed:\n" + "\n".join(failures[:12]), pytrace=False)
    return results


def _writing(call: Callable[[], Any], path: Path) -> Callable[[], int]:
    def called() -> int:
        path.write_text(json.dumps(call()))
        return 0

    return called


class Ended(NamedTuple):
    """The end of a command.

    Attributes:
        status: Exit status.
        parsed: True if the command line got past the parser.
        log: What it printed.
    """

    status: int
    parsed: bool
    log: str


def run_command(words: Sequence[str], folder: Path, *, patience_s: float = 60.0, limit_s: float = 90.0) -> Ended:
    """Run a command in a child in a folder; one that works for long is asked to stop, again and again.

    Args:
        words: Words after `metarl`.
        folder: Working folder.
        patience_s: Time in seconds after which the command is interrupted.
        limit_s: Time in seconds after which a command counts as hanging.
    """
    parsed, log = folder / ".parsed", folder / ".log"
    log.write_text("")

    def call() -> int:
        os.chdir(folder)
        limit_memory()
        of_tyro = tyro.cli

        def noted(*arguments: Any, **options: Any) -> Any:
            value = of_tyro(*arguments, **options)
            parsed.touch()
            return value

        tyro.cli = noted  # type: ignore[assignment]
        return command(words)

    began, interrupts = time.monotonic(), 0
    child = fork(call, log)
    while (code := child.ended()) is None:
        took = time.monotonic() - began
        if took > patience_s + (2 * interrupts if interrupts < 2 else 8 * interrupts):  # one may fall on deaf ears
            os.kill(child.pid, signal.SIGINT)
            interrupts += 1
        if took > limit_s:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(10)
            raise AssertionError(f"it hangs: {words}; {log.read_text()[-2000:]}")
        time.sleep(0.002)
    wait_for_session(child.pid)
    return Ended(code, parsed.exists(), log.read_text(errors="replace"))


def check_one_line(ended: Ended, words: Sequence[str]) -> None:
    """Raise an AssertionError unless a command ended well, in one line of error, or as it was told to."""
    lines = [line for line in ended.log.splitlines() if line.startswith("metarl: error")]
    where = f"{[word[:60] for word in words]}: status {ended.status}: {ended.log[-1500:]}"
    assert "Traceback" not in ended.log, where
    assert ended.status in (0, 1, 2, 130), where
    assert len(lines) == (ended.status in (1, 2)), where
    assert all(20 < len(line) < 1500 for line in lines), where
