"""WorkerProcess: a process of its own that answers one request after another, and does not hang or stay behind.

Rollout workers and hosts of Gymnasium environments are such processes. A process says once a second that it is
alive while it works, so that a time limit is one for its silence and not for its work. It ends with its parent,
however that ends, and does not hear Ctrl-C: the parent decides.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

from metarl.runs.cores import WorkerError
from metarl.runs.starting import start_process

_START_S = 300.0
"""Longest time in seconds until a process answers for the first time: it imports a simulator on a busy machine."""
_BEAT_S = 1.0
"""Seconds between two signs of life of a process that works."""
_LARGE = 32_000
"""Bytes of a message that might not fit into a pipe whose other end does not read."""
_ALIVE, _DONE, _FAILED = "alive", "done", "failed"
_HINT = ' (a script that starts processes needs `if __name__ == "__main__":`, a notebook environments of a module)'

Alive = Callable[[], None]
"""Called by a worker between one piece of its work and the next: it is alive."""


class Servant(Protocol):
    """The worker in a process: it lives there, and answers requests."""

    def answer(self, request: Any) -> Any:
        """The answer to a request; both are picklable."""

    def close(self) -> None:
        """Release what it has, before the process ends."""


class ProcessLost(WorkerError):
    """A process died or hung; the message says which and how."""


class WorkerProcess:
    """A process in which a servant answers requests, one after another.

    Args:
        name: Name of the process, for messages: "worker 1".
        start: Maker of the servant, called in the process; picklable.
        timeout_s: Longest silence in seconds of a process that was asked something; None for no limit.
        contents: Cargo that `start` carries into the process, for messages: "the task family 'walk'".

    Raises:
        ValueError: if what the process needs cannot be pickled.
    """

    def __init__(
        self, name: str, start: Callable[[Alive], Servant], *, timeout_s: float | None, contents: str
    ) -> None:
        check_timeout(timeout_s)
        self.name = name
        self._make, self._timeout_s, self._contents = start, timeout_s, contents
        self._asked, self._is_stopped = 0, False
        self._start()

    def _start(self) -> None:
        self._connection, remote = multiprocessing.Pipe()
        try:
            self._process = start_process(
                _serve, (remote, self._make), daemon=True, name=self.name.replace(" ", "-")
            )
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{self._contents} must be picklable, its functions at the top of a module: {error}"
            ) from error
        finally:
            remote.close()
        self._has_answered = False

    @property
    def pid(self) -> int:
        """Number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def restart(self) -> None:
        """End the process, whatever it is doing, and start it anew; its servant is made again.

        Raises:
            WorkerError: if it was told to end, by another thread.
        """
        if self._is_stopped:
            raise WorkerError(f"{self.name} was stopped")
        self.kill()
        self._start()

    def ask(self, request: Any) -> None:
        """Have the process begin with something; `answer` waits for it.

        Raises:
            ProcessLost: if the process does not read what it is sent.
        """
        self._asked += 1
        # Plain pickles: torch's own reductions would open a shared-memory file for every tensor.
        message = pickle.dumps((self._asked, request))
        if len(message) < _LARGE:
            self._send(message)
            return
        sender = threading.Thread(target=self._send, args=(message,), daemon=True)
        sender.start()
        sender.join(self._patience())
        if sender.is_alive():  # killing the process will end it
            raise ProcessLost(f"{self.name} does not read what it is sent")

    def answer(self) -> Any:
        """The answer to what was asked last; answers to what was asked before are dropped.

        Raises:
            ProcessLost: if the process died, or was silent for longer than the time limit.
            WorkerError: if the servant raised an exception; the message names it.
        """
        number, kind = -1, _ALIVE
        content: Any = None
        try:
            while number != self._asked or kind == _ALIVE:
                self._await()
                number, kind, content = pickle.loads(self._connection.recv_bytes())
                self._has_answered = True
        except (EOFError, ConnectionResetError) as error:
            self._process.join(timeout=5)
            code = self._process.exitcode
            if code == 1 and not self._has_answered:  # it cannot be started; another try would end in the same way
                raise WorkerError(f"{self.name} died with exit code {code}{_HINT}") from error
            raise ProcessLost(f"{self.name} died with exit code {code}") from error
        if kind == _FAILED:
            summary, trace = content
            failure = WorkerError(f"{self.name} failed: {summary}")
            failure.add_note(trace)
            raise failure
        return content

    def _await(self) -> None:
        """Wait for a message; time in which this process was stopped itself does not count."""
        patience = self._patience()
        waited = 0.0
        while not self._connection.poll(_BEAT_S if patience is None else min(_BEAT_S, patience - waited)):
            waited += _BEAT_S
            if patience is not None and waited >= patience:
                raise ProcessLost(f"{self.name} has not answered for {patience:g} s")

    def _patience(self) -> float | None:
        if self._timeout_s is None:
            return None
        return self._timeout_s if self._has_answered else max(self._timeout_s, _START_S)

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # a dead process is reported where its answer is awaited
            self._connection.send_bytes(message)

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self.end(time.monotonic())
        self._connection.close()

    def stop(self) -> None:
        """Ask the process to close its servant and end; `close` waits for it."""
        self._is_stopped = True
        self._send(pickle.dumps(None))

    def close(self, deadline: float) -> None:
        """End the process: by itself, or by force when `time.monotonic` has come to the deadline."""
        self.end(deadline)
        self._connection.close()

    def end(self, deadline: float) -> None:
        """End the process as `close` does, while another thread may still wait for its answer."""
        self._process.join(timeout=max(0.0, deadline - time.monotonic()))
        self._process.kill()
        self._process.join()


def check_timeout(timeout_s: float | None) -> None:
    """Raise a ValueError unless a time limit is a positive number of seconds, or None."""
    if timeout_s is not None and not 0 < timeout_s < float("inf"):
        raise ValueError(f"timeout_s must be positive, or None for no limit, got {timeout_s}")


def _serve(connection: Connection, make: Callable[[Alive], Servant]) -> None:
    """A worker process: answer what is asked until told to stop, or until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    number, last_sign = 0, time.monotonic()

    def alive() -> None:
        nonlocal last_sign
        if time.monotonic() - last_sign > _BEAT_S:
            last_sign = time.monotonic()
            connection.send_bytes(pickle.dumps((number, _ALIVE, None)))

    servant = make(alive)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has stopped
        while (message := pickle.loads(connection.recv_bytes())) is not None:
            number, request = message
            last_sign = time.monotonic()
            try:
                answer = _DONE, servant.answer(request)
            except Exception as error:
                summary = " ".join("".join(traceback.format_exception_only(error)).split())
                answer = _FAILED, (summary, traceback.format_exc())
            connection.send_bytes(pickle.dumps((number, *answer)))
    servant.close()


def _end_with_parent() -> None:
    """End this process when its parent has ended, even in the middle of its work."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
