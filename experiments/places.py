"""Places of the processes of runs: this machine here; the nodes of a Ray cluster in `ray_runs`."""

import contextlib
import queue
from typing import Any, Protocol

from metarl.experiments.run_process import Message, RunWords, train_one
from metarl.runs.cores import usable_cores
from metarl.runs.starting import process_context, start_process

_BEAT_S = 0.25
"""Longest time in seconds that messages are waited for."""


class Job(Protocol):
    """A process that trains a run."""

    @property
    def exitcode(self) -> int | None:
        """Status that it ended with, minus the signal if by one; None while it goes on."""

    def is_alive(self) -> bool:
        """Whether it goes on."""

    def terminate(self) -> None:
        """Stop it after its iteration, with a checkpoint; at once if it was asked before."""

    def join(self) -> None:
        """Wait for its end."""


class Place(Protocol):
    """A place where processes train runs."""

    @property
    def slots(self) -> int:
        """Number of runs that it has room for at a time."""

    def start(self, number: int, words: RunWords) -> Job:
        """Start the process of a run, whose messages bear the number."""

    def messages(self) -> list[Message]:
        """The messages since the last call; waits a little for the first."""


class LocalPlace:
    """This machine, whose cores its runs share equally.

    Args:
        slots: Number of runs at a time.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._messages: Any = process_context().Queue()
        self._threads = max(1, usable_cores() // max(1, slots))

    def start(self, number: int, words: RunWords) -> Job:
        """Start the process of a run."""
        return start_process(train_one, (number, words, self._threads, self._messages), daemon=False)

    def messages(self) -> list[Message]:
        """The messages since the last call."""
        messages: list[Message] = []
        with contextlib.suppress(queue.Empty):
            while True:
                messages.append(self._messages.get(timeout=0 if messages else _BEAT_S))
        return messages
