"""RaySession: the connection to a Ray cluster, or a session of this machine that ends with this process.

A local session runs without a dashboard and without usage statistics. Its files lie in a folder of its own, which
is removed at the end; what a killed process left is removed when the next session starts.
"""

import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metarl.runs.cores import WorkerError

_PREFIX = "metarl-ray-"
_TOKEN_VARIABLES = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"}
_PATIENCE_S = 10.0
"""Longest time in seconds until something answers at the address of a cluster."""
_STORE = 2**30
"""Greatest number of bytes of a local session's object store."""


class RaySession:
    """A connection to Ray.

    Args:
        address: Address of a cluster, or auto for the one of this machine; None starts a local session.
        num_cpus: Number of CPUs of a local session, for which actors ask.

    Raises:
        ValueError: if Ray is not installed, nothing answers, or the cluster has other versions of Ray or Python.
        WorkerError: if a local session does not start.
    """

    def __init__(self, address: str | None, num_cpus: int) -> None:
        # Read when Ray is imported.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # The simulation is the run's own work: it does not give way to other processes.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Ray fills a screen about every process that dies; we say it in a line of ours.
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")
        self.ray = _import_ray()
        self._folder: Path | None = None
        self._is_ours = not self.ray.is_initialized()
        if not self._is_ours:
            return
        if address is not None:
            with _handlers_kept():
                self._connect(address)
            return
        _remove_stale_folders()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir="/tmp"))
        with _handlers_kept(), _own_token():
            self._start(num_cpus)

    def _start(self, num_cpus: int) -> None:
        free = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 2 * _STORE
        try:
            self.ray.init(
                num_cpus=num_cpus,
                num_gpus=0,
                object_store_memory=max(80 * 2**20, min(_STORE, free // 2)),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=str(self._folder),
            )
        except Exception as error:  # Ray raises a plain Exception where a server is not up within 30 s
            self.close()
            text = " ".join(str(error).split())
            raise WorkerError(
                f"Ray's session on this machine did not start: {text} Try again when the machine is less busy, "
                "or take --workers processes."
            ) from error

    def _connect(self, address: str) -> None:
        if address != "auto" and "://" not in address:
            _check_answers(address)
        try:
            self.ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())
            if "ersion mismatch" in text:
                text = f"the cluster at {address} has other versions than this machine; install the same: {text}"
            elif address == "auto":
                text = "no Ray cluster runs here; start one with `ray start --head`, or leave --ray-address away"
            else:
                text = f"no Ray cluster at {address}: {text}"
            raise ValueError(text) from error

    def is_lost(self) -> bool:
        """Whether the cluster's head no longer answers; then there is nothing left to close."""
        host, _, port = self.ray.get_runtime_context().gcs_address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S).close()
        except OSError:
            self._is_ours = False
            return True
        return False

    def close(self) -> None:
        """End the connection, and a local session with all its processes and files; safe to call twice."""
        if self._is_ours and self.ray.is_initialized():
            with _handlers_kept():
                self.ray.shutdown()
        self._is_ours = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _import_ray() -> Any:
    """Ray's module; not typed, because Ray is an extra."""
    try:
        # Imported here: Ray is an extra, and takes half a second.
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(
            "workers on Ray need the package ray; run pip install 'metarl-toolkit[ray]', or leave --workers away"
        ) from error
    return ray


def _check_answers(address: str) -> None:
    """Raise a ValueError unless something listens at HOST:PORT; Ray itself would wait for a minute."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        raise ValueError(f"--ray-address must be auto or HOST:PORT, such as 10.0.0.1:6379; got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"nobody answers at the Ray address {address} ({error}); start a cluster there with `ray start --head`"
        ) from error


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep the handlers of signals that Ray would replace: a first SIGTERM ends a training with a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@functools.cache
def _token() -> str:
    """The token of all local sessions of this process: Ray reads a process's token once."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _own_token() -> Iterator[None]:
    """Give local sessions a token of their own; Ray would write one into the home folder."""
    if _TOKEN_VARIABLES & os.environ.keys():
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = _token()
    try:
        yield
    finally:
        for name in _TOKEN_VARIABLES:  # Ray sets its mode itself, which would pass for the user's the next time
            os.environ.pop(name, None)


def _remove_stale_folders() -> None:
    """Remove the folders of sessions whose process is gone."""
    for folder in Path("/tmp").glob(f"{_PREFIX}*"):
        number = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if number.isdigit() and not _is_alive(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
