"""New processes on this machine, which begin with the libraries that this one has imported.

Importing torch and a simulator takes seconds of a core. On Linux a server (Python's forkserver) does it once for a
program, and every process begins as a copy of it, within hundredths of a second. The copy is safe because the
server only imports: it runs no operation of torch, so it has one thread and no context of a GPU. Elsewhere, and
where the path of the temporary folder leaves no room for the server's socket, each process imports for itself.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

_LIBRARIES = ("numpy", "torch", "gymnasium", "mujoco", "metaworld", "stable_baselines3")
_WITH_THREADS = ("metarl.deploy.runner", "metarl.deploy.classifier", "metarl.experiments.bench.export")
"""Modules that import onnxruntime, which starts a thread at once: copies of a process with threads may hang."""
_SOCKET = "/pymp-12345678/listener-12345678"
_LONGEST_ADDRESS = 107  # bytes of a socket's path on Linux


def process_context() -> BaseContext:
    """Context of multiprocessing for processes, queues and shared memory."""
    room = len(os.fsencode(tempfile.gettempdir())) + len(_SOCKET) <= _LONGEST_ADDRESS
    return multiprocessing.get_context("forkserver" if sys.platform == "linux" and room else "spawn")


def start_process(
    target: Callable[..., None], arguments: tuple[Any, ...], *, daemon: bool, name: str | None = None
) -> BaseProcess:
    """Start a process that has this one's environment variables and path of imports, and does not hear Ctrl-C.

    Args:
        target: Function to call in the process, at the top of a module.
        arguments: Arguments of the function; picklable.
        daemon: Whether the process ends with this one, and may start none itself.
        name: Name of the process; None for one of multiprocessing's.
    """
    context = process_context()
    # The first process starts the server, which reads this and PYTHONPATH; older Pythons give it no other path.
    multiprocessing.set_forkserver_preload(_imported())
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]
        target=_begin, args=(dict(os.environ), target, arguments), daemon=daemon, name=name
    )
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        with _without_interrupts():
            _start(process)
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return process


def _start(process: BaseProcess) -> None:
    """Start a process, by a new server if this one's was killed."""
    for pause_s in (0.1, 0.5, None):
        try:
            return process.start()
        except (EOFError, ConnectionError):
            if pause_s is None:
                raise
            time.sleep(pause_s)  # until the system has noted that the server ended
    return None


def _imported() -> list[str]:
    """What the server imports: those libraries and modules of this package that this process has imported."""
    own = [name for name in sys.modules if name.startswith("metarl.") and name not in _WITH_THREADS]
    return [*(name for name in _LIBRARIES if name in sys.modules), *own]


def _begin(environment: dict[str, str], target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """The new process: the server may be older than what its caller has set since."""
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started inside, and copies of a server started inside, do not hear Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
