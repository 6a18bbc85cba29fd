"""Worker processes: a dead, silent or failing one is a clear error within its time limit."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metarl.runs.cores import WorkerError
from metarl.runs.processes import Alive, ProcessLost, WorkerProcess

ROOT = Path(__file__).resolve().parents[2]


class Echo:
    """Answers with what it is asked, or goes wrong in the way it is asked to."""

    def __init__(self, alive: Alive) -> None:
        self._alive = alive
        self._count = 0

    def answer(self, request: Any) -> Any:
        self._count += 1
        if request == "fail":
            raise ArithmeticError("one line\nand another")
        if request == "exit":
            os._exit(5)
        if request == "work":  # for longer than the time limit, with signs of life
            for _ in range(6):
                time.sleep(0.4)
                self._alive()
        if request == "pid":
            return os.getpid()
        return request, self._count

    def close(self) -> None:
        pass


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcess]:
    monkeypatch.syspath_prepend(str(ROOT))
    started = WorkerProcess("echo 0", Echo, timeout_s=1.5, contents="the echo")
    yield started
    started.stop()
    started.close(time.monotonic() + 5)


def ask(process: WorkerProcess, request: Any) -> Any:
    process.ask(request)
    return process.answer()


def test_requests_are_answered_in_turn_however_large(process: WorkerProcess) -> None:
    assert ask(process, "a") == ("a", 1)
    large = "x" * 1_000_000
    assert ask(process, large) == (large, 2)
    process.ask("left behind")
    assert ask(process, "b") == ("b", 4)


def test_an_exception_is_one_line_and_the_process_goes_on(process: WorkerProcess) -> None:
    with pytest.raises(WorkerError, match=r"^echo 0 failed: ArithmeticError: one line and another") as error:
        ask(process, "fail")
    assert "in answer" in error.value.__notes__[0]
    assert ask(process, "a") == ("a", 2)


@pytest.mark.thorough
def test_a_dead_process_is_told_and_can_be_started_again(process: WorkerProcess) -> None:
    with pytest.raises(ProcessLost, match=r"^echo 0 died with exit code 5$"):
        ask(process, "exit")
    process.restart()
    assert ask(process, "a") == ("a", 1)


def test_a_process_that_was_told_to_end_is_not_started_again(process: WorkerProcess) -> None:
    assert ask(process, "hello")
    process.stop()  # as another thread may, which closes the workers while this one waits for an answer
    with pytest.raises(WorkerError, match="echo 0 was stopped"):
        process.restart()


@pytest.mark.slow
def test_work_with_signs_of_life_may_take_longer_than_the_limit(process: WorkerProcess) -> None:
    assert ask(process, "a") == ("a", 1)
    began = time.monotonic()
    assert ask(process, "work") == ("work", 2)
    assert time.monotonic() - began > 1.5


@pytest.mark.thorough
def test_a_stopped_process_is_lost_after_the_time_limit(process: WorkerProcess) -> None:
    os.kill(ask(process, "pid"), signal.SIGSTOP)
    with pytest.raises(ProcessLost, match=r"^echo 0 has not answered for 1\.5 s$"):
        ask(process, "a")


def test_what_cannot_be_pickled_is_told() -> None:
    with pytest.raises(ValueError, match=r"^the echo must be picklable, its functions at the top of a module"):
        WorkerProcess("echo 0", lambda alive: None, timeout_s=None, contents="the echo")


@pytest.mark.parametrize("limit", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_limit_that_is_none_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="timeout_s must be positive, or None for no limit"):
        WorkerProcess("echo 0", Echo, timeout_s=limit, contents="the echo")
