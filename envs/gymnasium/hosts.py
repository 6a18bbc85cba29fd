"""Hosts of plain Gymnasium environments: in the caller's process, or in one of their own.

A host steps the environments of some rows. What goes in and out lies in memory that all share, so that a step
costs one short message, however many environments it steps. Environments are kept and given new tasks.

A process that dies or hangs is started again, its environments are reset with the seeds that they had and go
through the actions of their episodes once more. Where that leads to the same observations, the run goes on, with a
warning; otherwise, or if it happens again, the error names the process. Environments whose resets follow their
seeds, and whose steps are deterministic, repeat exactly. A process hangs if one environment takes longer than the
time limit over one thing: it tells of its life in between.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarl.envs.gymnasium.host_rows import Call, HostRows, HostSettings
from metarl.runs.cores import WorkerError
from metarl.runs.processes import Alive, ProcessLost, WorkerProcess
from metarl.tasks import Task


class _Past:
    """What is needed to bring rows to where they are: their tasks, and of each its reset and what it did since."""

    def __init__(self) -> None:
        self.tasks: Sequence[Task] | None = None
        self.episodes: dict[int, tuple[int, list[np.ndarray]]] = {}

    def note(self, call: Call) -> None:
        """The call was done."""
        if call.method == "set_tasks":
            self.tasks, self.episodes = call.arguments[0], {}
            return
        assert self.tasks is not None, "set_tasks comes first"
        rows = self.rows(call)
        if call.method == "reset":
            self.episodes |= {row: (seed, []) for row, seed in zip(rows, call.arguments[1], strict=True)}
        elif call.actions is not None:
            for row, action in zip(rows, call.actions, strict=True):
                self.episodes[row][1].append(action)

    def rows(self, call: Call) -> list[int]:
        """Those that a reset or a step is of."""
        rows = call.arguments[0]
        return list(range(len(self.tasks or ()))) if rows is None else [int(row) for row in rows]

    def going_on(self, call: Call) -> Iterator[tuple[int, int, list[np.ndarray]]]:
        """Row, seed and actions of every episode that the call does not begin anew."""
        anew = set(self.rows(call)) if call.method == "reset" else set()
        for row, (seed, actions) in self.episodes.items():
            if row not in anew:
                yield row, seed, actions


class HostProcess:
    """A process with the environments of every n-th row.

    Args:
        number: Number of the process, for messages.
        settings: Settings of the host.
        timeout_s: Longest time in seconds that one environment may take over one call; None for no limit.
    """

    def __init__(self, number: int, settings: HostSettings, timeout_s: float | None) -> None:
        self.rows = settings.rows
        self._arrays = settings.arrays()
        self._past = _Past()
        self._call: Call | None = None
        self._process = WorkerProcess(
            f"environment process {number}",
            _StartHost(settings),
            timeout_s=timeout_s,
            contents=f"the task family {settings.provider.name!r}",
        )

    def ask(self, call: Call) -> None:
        """Have the process begin with something; `answer` waits for it."""
        self._call = call
        with contextlib.suppress(ProcessLost):  # reported where the answer is awaited
            self._ask(call)

    def answer(self, last_observations: np.ndarray) -> None:
        """Wait until what was asked is done; if the process is lost, start it again and make up for it.

        Args:
            last_observations: Last observations that the caller has of the process's rows, [row, ...].

        Raises:
            WorkerError: if an environment failed, or the process could not be brought back to where it was.
        """
        call = self._call
        assert call is not None, "ask comes before answer"
        lost: ProcessLost | None = None
        try:
            _warn(self._process.answer())
        except ProcessLost as error:
            lost = error
            try:
                self._make_up(call, last_observations)
            except ProcessLost as again:
                raise WorkerError(f"{lost}; started again, {again}") from again
        self._past.note(call)
        if lost is not None:
            warnings.warn(f"{lost}; it was started again and the run goes on", RuntimeWarning, stacklevel=2)

    def _make_up(self, call: Call, last_observations: np.ndarray) -> None:
        """Start again, bring all rows to where they were, and do what was asked."""
        self._process.restart()
        if self._past.tasks is not None and call.method != "set_tasks":
            self._do(Call("set_tasks", (self._past.tasks,)))
            for row, seed, actions in self._past.going_on(call):
                self._do(Call("repeat", (row, seed, np.array(actions))))
                if self._arrays.observations[row].tobytes() != last_observations[row].tobytes():
                    raise ProcessLost("its environments did not repeat their episodes, so they cannot go on")
        self._do(call)

    def _do(self, call: Call) -> None:
        self._ask(call)
        self._process.answer()

    def _ask(self, call: Call) -> None:
        call.place_actions(self._arrays)
        self._process.ask((call.method, call.arguments))

    def stop(self) -> None:
        """Ask the process to close its environments and end; `close` waits for it."""
        self._process.stop()

    def close(self, deadline: float) -> None:
        """End the process: by itself, or by force when `time.monotonic` has come to the deadline."""
        self._process.close(deadline)


@dataclass(frozen=True)
class _StartHost:
    """Makes what answers in a host's process, in that process."""

    settings: HostSettings

    def __call__(self, alive: Alive) -> "_Host":
        return _Host(HostRows(self.settings.provider, self.settings.arrays(), alive))


class _Host:
    """What answers in a host's process: it has its rows do what is asked, and answers with warnings."""

    def __init__(self, rows: HostRows) -> None:
        self._rows = rows

    def answer(self, request: tuple[str, tuple[Any, ...]]) -> list[str]:
        method, arguments = request
        getattr(self._rows, method)(*arguments)
        return self._rows.take_warnings()

    def close(self) -> None:
        self._rows.close()


def _warn(messages: Sequence[str]) -> None:
    for message in messages:
        warnings.warn(message, RuntimeWarning, stacklevel=2)


class InlineHost:
    """The environments of every n-th row in the calling process.

    Args:
        settings: Settings of the host.
    """

    def __init__(self, settings: HostSettings) -> None:
        self.rows = settings.rows
        self._arrays = settings.arrays()
        self._rows = HostRows(settings.provider, self._arrays, lambda: None)
        self._failure: Exception | None = None

    def ask(self, call: Call) -> None:
        """Do it; an error is kept for `answer`, so that other hosts are heard before it is raised."""
        call.place_actions(self._arrays)
        self._failure = None
        try:
            getattr(self._rows, call.method)(*call.arguments)
        except Exception as error:
            self._failure = error

    def answer(self, last_observations: np.ndarray) -> None:
        """Raise the environment's error, if there was one."""
        _warn(self._rows.take_warnings())
        if self._failure is not None:
            raise self._failure

    def render(self, row: int) -> np.ndarray:
        """A picture of one of the environments, by its number here."""
        return self._rows.render(row)

    def stop(self) -> None:
        """Nothing runs beside the caller, so there is nothing to stop."""

    def close(self, deadline: float) -> None:
        """Close the environments that were made."""
        self._rows.close()
