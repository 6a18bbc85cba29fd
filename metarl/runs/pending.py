"""Pending: work whose result is waited for when it is needed, done in a thread of its own meanwhile."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Pending(Generic[Result]):
    """Some work, and its result when it is asked for.

    Args:
        work: Function that does it; it must read nothing that the threads beside it write.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._future: Future[Result] | None = None

    @property
    def is_done(self) -> bool:
        """Whether the result, or an error, is there."""
        return self._future is not None and self._future.done()

    def begin(self, *, beside: bool) -> None:
        """Do the work, unless it has begun.

        Args:
            beside: Whether a thread does it; otherwise it is done, or its error raised, when this returns.
        """
        if self._future is not None:
            return
        future: Future[Result] = Future()
        if beside:
            # A program that is stopped at once does not wait for it.
            threading.Thread(target=self._run, args=(future,), daemon=True).start()
        else:
            future.set_result(self._work())
        self._future = future

    def result(self) -> Result:
        """Wait for the result; an error of the work is raised here."""
        self.begin(beside=True)
        assert self._future is not None
        return self._future.result()

    def wait(self) -> None:
        """Wait for the end of what has begun, whatever it is."""
        if self._future is not None:
            self._future.exception()

    def _run(self, future: Future[Result]) -> None:
        try:
            future.set_result(self._work())
        except BaseException as error:  # it is raised where the result is asked for
            future.set_exception(error)
