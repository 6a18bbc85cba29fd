"""Full disks, failing writes and locks: one line, and nothing is lost; `pytest -m chaos -n 0 -s tests/chaos`."""

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from metarl.experiments.study.command import run_study
from tests.chaos.families import FAMILIES, check_same_run, result, tiny_study, train_words
from tests.chaos.forked import Ended, check_one_line, command, fork, run_all, run_command

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
NUM_FAILURES = 12
_SIZES = {"promp": 12, "maml-trpo": 8, "rl2": 8, "pearl": 6, "meta-world": 4, "few-shot": 8}
"""Iterations of the runs of this file."""


def _words(family: str, folder: Path) -> list[str]:
    if (folder / "config.json").exists():
        return ["resume", str(folder)]
    return [*train_words(family, iterations=_SIZES[family]), "--out", str(folder)]


def _whole(family: str, folder: Path) -> None:
    log = folder.with_suffix(".log")
    assert fork(lambda: command(_words(family, folder)), log).wait(120) == 0, log.read_text()


@contextmanager
def _small_disk(place: Path, num_bytes: int) -> Iterator[Callable[[], None] | None]:
    """A file system of a size in a folder; gives what makes it large, or None where nothing can be mounted."""
    place.mkdir()
    size = ["-o", f"size={num_bytes}"]
    mount = ["mount", "-t", "tmpfs", *size, "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)  # type: ignore[return-value]
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _checked(call: Callable[[], int], log: Path) -> int:
    """The status of a call in a child, which ended well or with one line."""
    log.unlink(missing_ok=True)
    status = fork(call, log).wait(120)
    check_one_line(Ended(status, True, log.read_text()), [log.name])
    return status


@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(family: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    _whole(family, whole)
    used = sum(-(-path.stat().st_size // 4096) * 4096 for path in whole.rglob("*") if path.is_file())

    def run(number: int) -> dict[str, Any]:
        place = tmp_path / f"disk-{number}"
        with _small_disk(place, max(16384, int(SHARES[number] * used))) as enlarge:
            folder, log = place / "run", tmp_path / f"disk-{number}.log"

            def full() -> int:
                if enlarge is None:
                    most = int(SHARES[number] * max(p.stat().st_size for p in whole.rglob("*")))
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
                return command(_words(family, folder))

            status = _checked(full, log)
            line = log.read_text().strip().splitlines()[-1]
            if enlarge is not None:
                enlarge()
            assert _checked(lambda: command(_words(family, folder)), log) == 0
            check_same_run(whole, folder)
        return {"status": status, "named": str(place) in line, "mounted": enlarge is not None}

    done = run_all([lambda number=number: run(number) for number in range(len(SHARES))], limit_s=300)
    stopped = [one for one in done if one["status"] == 1]
    assert len(stopped) >= 3
    assert all(one["named"] for one in stopped), done
    how = "a tmpfs" if done[0]["mounted"] else "RLIMIT_FSIZE"
    print(f"\n{family}: {how} was full {len(stopped)} times of {len(done)}; the same bits {len(done)} times")


def _fail_at(number: int, error: int) -> None:
    """Have the number-th system call that writes a file fail; those after it too, if the disk is full."""
    count = 0

    def failing(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number or (count > number and error == errno.ENOSPC):
                raise OSError(error, os.strerror(error))
            return call(*arguments, **options)

        return called

    for name in ("write", "pwrite", "fsync", "link", "rename", "replace", "ftruncate", "mkdir"):
        setattr(os, name, failing(getattr(os, name)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_failing_write_is_one_line_and_loses_nothing(family: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    _whole(family, whole)

    def run(number: int) -> int:
        folder, log = tmp_path / f"failing-{number}", tmp_path / f"failing-{number}.log"
        rng = random.Random(f"{family} {number}")
        error = rng.choice([errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT])

        def failing() -> int:
            _fail_at(rng.randrange(1, 12 + 10 * _SIZES[family]), error)
            return command(_words(family, folder))

        status = _checked(failing, log)
        assert _checked(lambda: command(_words(family, folder)), log) == 0
        check_same_run(whole, folder)
        shutil.rmtree(folder)
        return status

    statuses = run_all([lambda number=number: run(number) for number in range(NUM_FAILURES)], limit_s=300)
    failed = sum(status != 0 for status in statuses)
    assert failed >= NUM_FAILURES // 2, statuses
    print(f"\n{family}: {failed} of {NUM_FAILURES} writes failed in one line; the same bits {NUM_FAILURES} times")


def _is_refused(words: list[str], place: Path, pid: int) -> None:
    place.mkdir(exist_ok=True)
    ended = run_command(words, place)
    check_one_line(ended, words)
    assert ended.status == 2, ended.log
    assert f"in use by process {pid} on" in ended.log, ended.log


@pytest.mark.parametrize("family", FAMILIES)
def test_every_command_that_writes_is_refused_while_a_run_is_trained(family: str, tmp_path: Path) -> None:
    whole, folder, log = tmp_path / "whole", tmp_path / "run", tmp_path / "log"
    assert fork(lambda: command([*train_words(family), "--out", str(whole)]), log).wait(120) == 0
    child = fork(lambda: command([*train_words(family), "--out", str(folder)]), log)
    deadline = time.monotonic() + 60
    while not (folder / "metrics.csv").exists():
        assert child.ended() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGSTOP)  # so that it holds the lock until all have asked
    for words in (
        ["resume", str(folder)],
        ["resume", str(folder), "--iterations", "999"],
        ["resume", str(folder), "--checkpoint", "checkpoint.previous.pt"],
    ):
        _is_refused(words, tmp_path / "other", child.pid)
    os.kill(child.pid, signal.SIGCONT)
    assert child.wait(120) == 0, log.read_text()
    check_same_run(whole, folder)
    print(f"\n{family}: 3 commands refused, the same bits")


def test_a_study_is_refused_while_it_runs(tmp_path: Path) -> None:
    folder, whole, log = tmp_path / "study", tmp_path / "whole", tmp_path / "log"

    def study(place: Path) -> Callable[[], int]:
        return lambda: run_study("tiny", tiny_study(), place, {})

    assert fork(study(whole), log).wait(120) == 0
    child = fork(study(folder), log)
    while not (folder / "runs" / "oracle" / "metrics.csv").exists():
        assert child.ended() is None, log.read_text()
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGSTOP)
    second = tmp_path / "second.log"
    status = fork(lambda: _as_command(study(folder)), second).wait(60)
    assert status == 2, second.read_text()
    assert f"in use by process {child.pid} on" in second.read_text()
    _is_refused(["resume", str(folder / "runs" / "oracle")], tmp_path / "other", child.pid)
    os.kill(child.pid, signal.SIGCONT)
    assert child.wait(120) == 0, log.read_text()
    assert result(whole / "results.json") == result(folder / "results.json")
    print("\nstudy: a second process and the resumption of its run refused, the same results")


def _as_command(call: Callable[[], int]) -> int:
    """The status of a call, with errors as `metarl` shows them."""
    try:
        return call()
    except ValueError as error:
        print(f"metarl: error: {error}")
        return 2
