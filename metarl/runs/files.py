"""Files that are written whole or not at all, by the one way in which this project replaces a file.

A new file is written beside the old one, under a name that nobody can predict and that never follows a symbolic
link, and takes the old one's name once it is complete on disk. The process that writes it holds a lock on it: a
temporary file of a dead process is not locked, and is removed by whoever writes the same file, or works in the
same run folder, next. Folders are made whole or not at all in the same way.
"""

import contextlib
import csv
import errno
import fcntl
import io
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


class WriteError(OSError):
    """A file could not be written; the message names it, the reason and the bytes that it needs."""


def write_error(path: Path, error: OSError, num_bytes: int | None = None) -> WriteError:
    """The error of a file that could not be written, as one line."""
    needed = "" if num_bytes is None else f"; {num_bytes:,} bytes are needed"
    return WriteError(f"cannot write {path}: {error.strerror or error}{needed}")


@contextlib.contextmanager
def atomic_file(path: Path, *, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """A binary file that takes the path's name when its block ends, complete on disk; or leaves no trace.

    Args:
        path: File to replace.
        previous: Second name for the file that is replaced; no moment passes without a file of either name.

    Raises:
        WriteError: if the file cannot be written; says how many bytes it needs.
    """
    remove_leftovers(path)
    try:
        temporary, descriptor = _make_temporary(path)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        with _Output(descriptor) as output:
            buffered = io.BufferedWriter(output)
            yield buffered
            buffered.flush()
            output.finish(path)
            try:
                if previous is not None and path.exists():
                    _rename_copy(path, previous)
                temporary.replace(path)  # under the lock: what is not locked is left behind by a dead process
            except OSError as error:
                raise write_error(path, error, output.num_bytes) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, content: bytes) -> None:
    """Replace a file by this content, so that a reader finds the old file or the whole new one."""
    with atomic_file(path) as file:
        file.write(content)


def write_json(path: Path, data: object) -> None:
    """Replace a file by this value as JSON."""
    atomic_write(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Replace a file by rows of these columns; what a row lacks stays empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue().encode())


def append(path: Path, content: bytes) -> None:
    """Append to a file that is not a symbolic link.

    Raises:
        WriteError: if the file cannot be written; it may end in a part of the content.
    """
    try:
        with _Output(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)) as output:
            output.write(content)
            output.finish(path, sync=False)
    except WriteError:
        raise
    except OSError as error:
        raise write_error(path, error, len(content)) from error


def open_in_place(path: Path) -> IO[bytes]:
    """A file opened for reading and writing, made if there is none; never the target of a symbolic link."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")


@contextlib.contextmanager
def unfinished_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside the one that it is to be renamed to when it is whole; none is left if the block fails.

    Raises:
        OSError: if it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    unfinished, descriptor = _make_unfinished(folder)
    try:
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Remove what dead processes left behind of this file, or of this folder, when they were killed."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp")
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(path.parent)):
            if pattern.fullmatch(entry.name):
                _remove_if_dead(path.parent / entry.name)


def remove_all_leftovers(folder: Path) -> None:
    """Remove the temporary files of dead processes from a folder and the folders within it."""
    for place, _, names in os.walk(folder):
        for name in names:
            if _LEFTOVER.fullmatch(name):
                _remove_if_dead(Path(place, name))


def _rename_copy(path: Path, name: Path) -> None:
    """Give a file a second name, in place of the file that has that name."""
    remove_leftovers(name)
    link = _temporary_name(name)
    try:
        os.link(path, link)
    except OSError:  # a file system without links
        with path.open("rb") as file, atomic_file(name) as copy:
            shutil.copyfileobj(file, copy, 2**20)
        return
    try:
        link.replace(name)
    finally:  # where both were the same file already, as after a failure of what followed, the link is still there
        link.unlink(missing_ok=True)


def _remove_if_dead(path: Path) -> None:
    with contextlib.suppress(OSError):  # locked: its writer lives; or it is gone, or cannot be locked here
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            kind = os.fstat(descriptor).st_mode
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISDIR(kind):
                shutil.rmtree(path)
            elif stat.S_ISREG(kind):
                path.unlink()
        finally:
            os.close(descriptor)


def _make_unfinished(folder: Path) -> tuple[Path, int]:
    """A new locked folder beside the given one, and its descriptor."""
    while True:
        unfinished = _temporary_name(folder)
        unfinished.mkdir()
        try:
            descriptor = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # taken for a leftover before it was locked
            continue
        with contextlib.suppress(OSError):  # a file system on which folders cannot be locked
            lock_file(descriptor)
        if unfinished.exists():
            return unfinished, descriptor
        os.close(descriptor)


def _make_temporary(path: Path) -> tuple[Path, int]:
    """A new locked file in the same folder, and its descriptor."""
    while True:
        temporary = _temporary_name(path)
        descriptor = os.open(temporary, _NEW, 0o666)
        lock_file(descriptor)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # taken for a leftover before it was locked


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def lock_file(descriptor: int, *, wait: bool = True) -> bool:
    """Lock an open file until it is closed or its process dies; whether the file system has locks.

    Raises:
        BlockingIOError: if it must not wait, and another process holds the lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return False
    return True


class _Output(io.RawIOBase):
    """A file that goes on counting when it cannot write any more, so that the error can say what is needed.

    Writers such as torch's replace an error that is raised in the middle of a file by one that names nothing.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._error: OSError | None = None
        self.num_bytes = 0

    def writable(self) -> bool:
        """Whether it can be written: always."""
        return True

    def write(self, content: object) -> int:
        """Write all of the content, or count it after an error."""
        view = memoryview(content).cast("B")  # type: ignore[arg-type]  # a buffer; there is no type for it in 3.11
        self.num_bytes += len(view)
        written = 0
        while self._error is None and written < len(view):
            try:
                written += os.write(self._descriptor, view[written:])
            except OSError as error:
                self._error = error
        return len(view)

    def finish(self, path: Path, *, sync: bool = True) -> None:
        """Wait until all is on the disk; raise what went wrong on the way, as an error of this path."""
        try:
            if self._error is not None:
                raise self._error
            if sync:
                os.fsync(self._descriptor)
        except OSError as error:
            raise write_error(path, error, self.num_bytes) from error

    def close(self) -> None:
        """Close the file, and give up its lock."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()
