"""RunHost: the actor on a node of a Ray cluster that has one run trained in a process there."""

import contextlib
import io
import os
import queue
import signal
import socket
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from metarl.executors.ray_collector import Readiness, versions
from metarl.experiments.run_process import Message, RunWords, train_one
from metarl.runs.cores import CORES
from metarl.runs.lock import LOCK, LockedError, locked
from metarl.runs.starting import process_context, start_process

MARK = ".shared-"
"""Beginning of the names of files by which a node recognises shared storage."""
_POLL_S = 1.0


class News(NamedTuple):
    """Events of a run since the last poll.

    Attributes:
        messages: Messages of the run's process.
        exitcode: Status that the process ended with; None while it goes on.
        files: Archive of the run folder after the end, if it lies on the node alone.
    """

    messages: list[Message]
    exitcode: int | None
    files: bytes | None


class RunHost:
    """Has one run trained on its node: in the run's folder where that is shared storage, else in a copy of it.

    Ray calls its methods on two threads, so that it can be stopped while it waits for messages.
    """

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._messages: Any = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None

    def start(
        self,
        number: int,
        words: RunWords,
        *,
        path: Sequence[str],
        mark: str,
        files: Sequence[Any],
        cores: int,
        patience_s: float,
    ) -> Readiness:
        """Start the process of the run, and say where it is.

        Args:
            number: Number that the run's messages bear.
            words: Words of the run.
            path: Folders that modules of a user's own are imported from.
            mark: Name of a file in the run folder; where it is there too, that is on shared storage.
            files: Ray's reference of the packed run folder, in a list, so that it is fetched where it is needed.
            cores: Number of cores that the run may use.
            patience_s: Longest time in seconds until another process has left the run folder.
        """
        import ray  # noqa: PLC0415  # Ray is an extra; where this runs it is there

        sys.path.extend(folder for folder in path if folder not in sys.path)
        folder, own, iterations = words
        if not (Path(folder) / mark).is_file():
            self._copy = tempfile.TemporaryDirectory(prefix="metarl-run-")
            folder = str(Path(self._copy.name) / Path(folder).name)
            unpack(ray.get(files[0]), Path(folder))
        _wait_for_lock(Path(folder), patience_s)
        os.environ[CORES] = str(cores)
        self._messages = process_context().Queue()
        arguments = (number, (folder, own, iterations), cores, self._messages)
        self._folder = Path(folder)
        self._process = start_process(train_one, arguments, daemon=False)
        node = ray.get_runtime_context().get_node_id()
        return Readiness(socket.gethostname(), os.getpid(), node, versions())

    def poll(self) -> News:
        """Events since the last call; waits a second for one."""
        assert self._process is not None, "start comes before poll"
        exitcode = self._process.exitcode  # before the queue is read: what it said last is in there
        messages: list[Message] = []
        with contextlib.suppress(queue.Empty):
            while True:
                messages.append(self._messages.get(timeout=0.1 if messages or exitcode is not None else _POLL_S))
        files = pack(self._folder) if exitcode is not None and self._copy is not None else None
        return News(messages, exitcode, files)

    def stop(self) -> None:
        """Stop the run after its iteration; at once if it was asked before."""
        process = self._process
        if process is not None and process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGTERM)


def _wait_for_lock(folder: Path, patience_s: float) -> None:
    """Wait until no process trains in the folder, for so long at most."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(LockedError), locked(folder):
            return
        time.sleep(0.5)


def pack(folder: Path) -> bytes:
    """The files of a run folder, without its lock and marks."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != LOCK and not path.name.startswith(MARK):
                archive.add(path, str(path.relative_to(folder)))
    return stream.getvalue()


def unpack(files: bytes, folder: Path) -> None:
    """Write what `pack` gave into a folder, new or there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        archive.extractall(folder, filter="data")
