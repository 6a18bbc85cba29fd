"""begin_work(): work beside the thread that began it, whose result is waited for when it is needed."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def begin_work(work: Callable[[], Result], *, beside: bool) -> Future[Result]:
    """Begin some work, in a thread of its own or at once; the future's `result` waits for it and raises its error.

    Args:
        work: Function that does it; in a thread it must read nothing that the calling thread writes meanwhile.
        beside: Whether to use a thread; otherwise the work is done, or its error raised, before this returns.
    """
    future: Future[Result] = Future()
    if not beside:
        future.set_result(work())
        return future

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # it is raised where the result is asked for
            future.set_exception(error)

    # A program that is stopped at once does not wait for it.
    threading.Thread(target=run, daemon=True).start()
    return future
