"""Where plain Gymnasium environments live: in the caller's process, or in a spawned one.

A host steps the environments of some rows. What goes in and out lies in memory that all share, so that a step
costs one short message, however many environments it steps. Environments are kept and given new tasks.

A process that dies or hangs is started again, its environments are reset with the seeds that they had and go
through the actions of their episodes once more. Where that leads to the same observations, the run goes on, with a
warning; otherwise, or if it happens again, the error names the process. Environments whose resets follow their
seeds, and whose steps are deterministic, repeat exactly. A process hangs if one environment takes longer than the
time limit over one thing: it tells of its life in between.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from metarl.envs.gymnasium.host_rows import Call, HostRows, HostSettings
from metarl.runs.cores import WorkerError
from metarl.tasks import Task

_START_S = 300.0
"""A process may take so long to start: it imports a simulator, perhaps on a busy machine."""
_LIFE_S = 1.0
"""A process that is at work says so this often."""
_LARGE = 32_000
"""Bytes of a message that might not fit into a pipe whose other end does not read."""


class _Past:
    """What is needed to bring rows to where they are: their tasks, and of each its reset and what it did since."""

    def __init__(self) -> None:
        self.tasks: Sequence[Task] | None = None
        self.episodes: dict[int, tuple[int, list[np.ndarray]]] = {}

    def note(self, call: Call) -> None:
        """The call was done."""
        if call.method == "set_tasks":
            self.tasks, self.episodes = call.arguments[0], {}
            return
        assert self.tasks is not None, "set_tasks comes first"
        rows = self.rows(call)
        if call.method == "reset":
            self.episodes |= {row: (seed, []) for row, seed in zip(rows, call.arguments[1], strict=True)}
        elif call.actions is not None:
            for row, action in zip(rows, call.actions, strict=True):
                self.episodes[row][1].append(action)

    def rows(self, call: Call) -> list[int]:
        """Those that a reset or a step is of."""
        rows = call.arguments[0]
        return list(range(len(self.tasks or ()))) if rows is None else [int(row) for row in rows]

    def kept(self, call: Call) -> Iterator[tuple[int, int, list[np.ndarray]]]:
        """Row, seed and actions of every episode that the call does not begin anew."""
        anew = set(self.rows(call)) if call.method == "reset" else set()
        for row, (seed, actions) in self.episodes.items():
            if row not in anew:
                yield row, seed, actions


class _Lost(Exception):
    """A process died or hung; says which and how."""


class HostProcess:
    """A spawned process with the environments of every n-th row.

    Args:
        number: of the process, for messages.
        settings: of the host.
        timeout_s: for one thing that one environment does; None for no limit.
    """

    def __init__(self, number: int, settings: HostSettings, timeout_s: float | None) -> None:
        self.rows = settings.rows
        self._arrays = settings.arrays()
        self._name, self._settings, self._timeout_s = f"environment process {number}", settings, timeout_s
        self._past = _Past()
        self._asked = 0
        self._call: Call | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        arguments = (remote, self._settings)
        self._process = context.Process(
            target=_serve, args=arguments, daemon=True, name=self._name.replace(" ", "-")
        )
        try:
            with _without_interrupts():
                self._process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            name = self._settings.provider.name
            raise ValueError(
                f"the task family {name!r} must be picklable, its functions at the top of a module: {error}"
            ) from error
        finally:
            remote.close()
        self._started = False

    def ask(self, call: Call) -> None:
        """Have the process begin with something; `answer` waits for it."""
        self._call = call
        with contextlib.suppress(_Lost):  # reported where the answer is awaited
            self._send(call)

    def answer(self, seen: np.ndarray) -> None:
        """Wait until what was asked is done; if the process is lost, start it again and make up for it.

        Args:
            seen: the last observations that the caller has of the process's rows, [row, ...].
        """
        call = self._call
        assert call is not None, "ask comes before answer"
        lost: _Lost | None = None
        try:
            self._receive()
        except _Lost as error:
            lost = error
            try:
                self._make_up(call, seen)
            except _Lost as again:
                raise WorkerError(f"{lost}; started again, {again}") from again
        self._past.note(call)
        if lost is not None:
            warnings.warn(f"{lost}; it was started again and the run goes on", RuntimeWarning, stacklevel=2)

    def _make_up(self, call: Call, seen: np.ndarray) -> None:
        """Start again, bring all rows to where they were, and do what was asked."""
        self.kill()
        self._start()
        if self._past.tasks is not None and call.method != "set_tasks":
            self._do(Call("set_tasks", (self._past.tasks,)))
            for row, seed, actions in self._past.kept(call):
                self._do(Call("repeat", (row, seed, np.array(actions))))
                if self._arrays.observations[row].tobytes() != seen[row].tobytes():
                    raise _Lost("its environments did not repeat their episodes, so they cannot go on")
        self._do(call)

    def _do(self, call: Call) -> None:
        self._send(call)
        self._receive()

    def _send(self, call: Call) -> None:
        call.place_actions(self._arrays)
        self._asked += 1
        message = pickle.dumps((self._asked, call.method, call.arguments))
        if len(message) < _LARGE:
            self._send_bytes(message)
            return
        sender = threading.Thread(target=self._send_bytes, args=(message,), daemon=True)
        sender.start()
        sender.join(self._patience())
        if sender.is_alive():  # killing the process will end it
            raise _Lost(f"{self._name} does not read what it is told")

    def _send_bytes(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # a dead process is reported where its answer is awaited
            self._connection.send_bytes(message)

    def _patience(self) -> float | None:
        if self._timeout_s is None:
            return None
        return self._timeout_s if self._started else max(self._timeout_s, _START_S)

    def _receive(self) -> None:
        """Wait for the answer to the last message; those to earlier ones, after an interruption, are of no use."""
        number: int = -1
        answer: Any = None
        warned: list[str] = []
        try:
            while number != self._asked or answer == _ALIVE:
                if not self._connection.poll(self._patience()):
                    raise _Lost(f"{self._name} has not answered for {self._patience():g} s")
                number, answer, warned = pickle.loads(self._connection.recv_bytes())
                self._started = True
        except (EOFError, ConnectionResetError) as error:
            self._process.join(timeout=5)
            code = self._process.exitcode
            hint = _HINT if code == 1 and not self._started else ""
            raise _Lost(f"{self._name} died with exit code {code}{hint}") from error
        _warn(warned)
        if answer is not None:
            summary, trace = answer
            failure = WorkerError(f"{self._name} failed: {summary}")
            failure.add_note(trace)
            raise failure

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def stop(self) -> None:
        """Ask the process to close its environments and end; `close` waits for it."""
        self._send_bytes(pickle.dumps(None))

    def close(self, deadline: float) -> None:
        """End the process: by itself, or by force when `time.monotonic` has come to the deadline."""
        self._process.join(timeout=max(0.0, deadline - time.monotonic()))
        self.kill()


_ALIVE = "alive"


def _warn(messages: Sequence[str]) -> None:
    for message in messages:
        warnings.warn(message, RuntimeWarning, stacklevel=2)


_HINT = ' (a script that starts processes needs `if __name__ == "__main__":`, a notebook environments of a module)'


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started here do not hear Ctrl-C: the parent decides."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, settings: HostSettings) -> None:
    """A worker process: do what is asked until told to stop or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    number, told = 0, time.monotonic()

    def alive() -> None:
        nonlocal told
        if time.monotonic() - told > _LIFE_S:
            told = time.monotonic()
            connection.send_bytes(pickle.dumps((number, _ALIVE, [])))

    environments = HostRows(settings.provider, settings.arrays(), alive)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has stopped
        while (asked := pickle.loads(connection.recv_bytes())) is not None:
            number, method, arguments = asked
            answer: tuple[str, str] | None = None
            told = time.monotonic()
            try:
                getattr(environments, method)(*arguments)
            except Exception as error:
                summary = " ".join("".join(traceback.format_exception_only(error)).split())
                answer = (summary, traceback.format_exc())
            connection.send_bytes(pickle.dumps((number, answer, environments.warnings)))
            environments.warnings = []
    environments.close()


def _end_with_parent() -> None:
    """End this process when its parent has ended, even in the middle of a step."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class InlineHost:
    """The same in the calling process.

    Args:
        settings: of the host.
    """

    def __init__(self, settings: HostSettings) -> None:
        self.rows = settings.rows
        self._arrays = settings.arrays()
        self._environments = HostRows(settings.provider, self._arrays, lambda: None)
        self._failure: Exception | None = None

    def ask(self, call: Call) -> None:
        """Do it; an error is kept for `answer`, so that other hosts are heard before it is raised."""
        call.place_actions(self._arrays)
        self._failure = None
        try:
            getattr(self._environments, call.method)(*call.arguments)
        except Exception as error:
            self._failure = error

    def answer(self, seen: np.ndarray) -> None:
        """Raise the environment's error, if there was one."""
        _warn(self._environments.warnings)
        self._environments.warnings = []
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Nothing runs."""

    def close(self, deadline: float) -> None:
        """Close the environments."""
        self._environments.close()
