"""The lock of a run folder: one process at a time trains in it.

The operating system holds the lock and drops it with the process, however that ends. The file says who holds it.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from metarl.runs.cores import is_first
from metarl.runs.files import lock_file, remove_all_leftovers

LOCK = "run.lock"
_LOG = logging.getLogger(__name__)
_HOLDERS: dict[Path, int] = {}
"""Thread by folder, of the locks that this process holds."""


class LockedError(ValueError):
    """Another process, or another thread of this one, works in the run folder."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder; a thread that holds it may take it again.

    Of processes that train together the first holds it for all. What processes that were killed left behind of the
    folder's files is removed first.

    Raises:
        LockedError: if somebody else holds it; says who, where and since when.
        OSError: if the lock's file cannot be made.
    """
    place = folder.resolve()
    if not is_first() or _HOLDERS.get(place) == threading.get_ident():
        yield
        return
    descriptor = _acquire(folder)
    _HOLDERS[place] = threading.get_ident()
    try:
        remove_all_leftovers(folder)
        yield
    finally:
        del _HOLDERS[place]
        with contextlib.suppress(OSError):  # the folder may be gone
            (folder / LOCK).unlink()
        os.close(descriptor)


def _acquire(folder: Path) -> int:
    """The descriptor of the folder's locked file."""
    path = folder / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            if not lock_file(descriptor, wait=False):
                _LOG.warning("%s has no locks: take care that one process alone trains in this folder", folder)
            elif not _is(descriptor, path):  # its holder ended and removed it before we had it
                os.close(descriptor)
                continue
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_ourselves()).encode(), 0)
        except BlockingIOError as error:
            holder = _described(os.pread(descriptor, 1000, 0))
            os.close(descriptor)
            raise LockedError(
                f"{folder} is in use by {holder}; wait until it ends, or stop it (kill writes a checkpoint)"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _is(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at the path."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _ourselves() -> dict[str, object]:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def _described(content: bytes) -> str:
    """Who holds a lock, by its file's content."""
    try:
        holder = json.loads(content)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # its holder has not written it yet
        return "another process"
