"""Where plain Gymnasium environments live: in the caller's process, or in a spawned one.

A host steps the environments of some rows. What goes in and out lies in memory that all share, so that a step
costs one short message, however many environments it steps. Environments are kept and given new tasks; none is
built twice.

A process that dies or hangs is started again, its environments are reset with the seeds that they had and go
through the actions of their episodes once more. Where that leads to the same observations, the run goes on, with a
warning; otherwise, or if it happens again at the same step, the error names the process. Environments whose resets
follow their seeds, and whose steps are deterministic, repeat exactly.
"""

import contextlib
import itertools
import multiprocessing
import pickle
import signal
import traceback
import warnings
from collections import defaultdict
from collections.abc import Sequence
from ctypes import c_byte
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl.cores import WorkerError
from metarl.tasks import Task

Env = gymnasium.Env[np.ndarray, Any]
Rows = np.ndarray | None
"""Some environments of a host, by number; None for all."""


class Provider(Protocol):
    """Makes environments and gives them tasks; picklable."""

    name: str
    info_names: tuple[str, ...]

    def new_environment(self, kind: str) -> Env:
        """An environment of a kind, to be given one task after another."""

    def give_task(self, env: Env, task: Task) -> None:
        """Set the task of an environment; takes effect at its next reset."""

    def kind(self, task: Task) -> str:
        """Which environments can be given this task: those that were made for its kind."""


@dataclass(frozen=True)
class Arrays:
    """What processes share, by row."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    infos: np.ndarray

    def rows(self, rows: slice) -> "Arrays":
        """Views of some rows."""
        return Arrays(**{name: array[rows] for name, array in vars(self).items()})


@dataclass(frozen=True)
class Layout:
    """Where the arrays lie in shared memory: one after the other."""

    num_rows: int
    observations: spaces.Box
    actions: spaces.Space[Any]
    num_infos: int

    def _fields(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        shape = self.actions.shape
        if shape is None:
            raise ValueError(f"actions must be arrays or numbers, got {self.actions}")
        return {
            "observations": (self.observations.shape, self.observations.dtype),
            "actions": (shape, self.actions.dtype),
            "rewards": ((), np.dtype(np.float64)),
            "infos": ((self.num_infos,), np.dtype(np.float64)),
            "terminated": ((), np.dtype(np.bool_)),
            "truncated": ((), np.dtype(np.bool_)),
        }

    def memory(self) -> Any:
        """Room for the arrays, without a name: it goes when its last user does, however that ends."""
        return multiprocessing.get_context("spawn").RawArray(c_byte, self._num_bytes())

    def _num_bytes(self) -> int:
        return sum(self._size(*field) for field in self._fields().values())

    def arrays(self, memory: Any) -> Arrays:
        """The arrays in some memory."""
        found, offset = {}, 0
        for name, (shape, dtype) in self._fields().items():
            count = self.num_rows * int(np.prod(shape))
            found[name] = np.frombuffer(memory, dtype, count, offset).reshape(self.num_rows, *shape)
            offset += self._size(shape, dtype)
        return Arrays(**found)

    def _size(self, shape: tuple[int, ...], dtype: Any) -> int:
        size = self.num_rows * int(np.prod(shape)) * int(np.dtype(dtype).itemsize)
        return -(-size // 8) * 8


class _Environments:
    """The environments of some rows, in the process that steps them."""

    def __init__(self, provider: Provider, arrays: Arrays) -> None:
        self._provider, self._arrays = provider, arrays
        self._kept: dict[str, list[Env]] = defaultdict(list)
        self._envs: list[Env] = []

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Give every row an environment of its task's kind, and the task."""
        used: dict[str, int] = defaultdict(int)
        self._envs = []
        for task in tasks:
            kind = self._provider.kind(task)
            if used[kind] == len(self._kept[kind]):
                self._kept[kind].append(self._provider.new_environment(kind))
            env = self._kept[kind][used[kind]]
            used[kind] += 1
            self._provider.give_task(env, task)
            self._envs.append(env)

    def reset(self, rows: Rows, seeds: Sequence[int]) -> None:
        """Start an episode in rows."""
        for row, seed in zip(self._numbers(rows), seeds, strict=True):
            self._arrays.observations[row] = self._envs[row].reset(seed=seed)[0]

    def step(self, rows: Rows) -> None:
        """One step of rows, with the actions in the shared array."""
        arrays, names = self._arrays, self._provider.info_names
        discrete = arrays.actions.ndim == 1
        for row in self._numbers(rows):
            action = arrays.actions[row] if discrete else arrays.actions[row].copy()
            observation, reward, terminated, truncated, info = self._envs[row].step(action)
            arrays.observations[row] = observation
            arrays.rewards[row], arrays.terminated[row], arrays.truncated[row] = reward, terminated, truncated
            for column, name in enumerate(names):
                if name not in info:
                    raise ValueError(f"expected the info {name!r}, the environment reports {sorted(info)}")
                arrays.infos[row, column] = info[name]

    def close(self) -> None:
        """Close all environments that were made."""
        for env in itertools.chain.from_iterable(self._kept.values()):
            env.close()
        self._kept.clear()

    def _numbers(self, rows: Rows) -> Sequence[int]:
        return range(len(self._envs)) if rows is None else [int(row) for row in rows]


@dataclass(frozen=True)
class Call:
    """One thing that a process is asked to do.

    Attributes:
        method: of `_Environments`.
        arguments: for it.
        actions: that the step of these rows takes; put into the shared array first.
    """

    method: str
    arguments: tuple[Any, ...]
    actions: np.ndarray | None = None


class _Lost(Exception):
    """A process died or hung; says which and how."""


@dataclass(frozen=True)
class Settings:
    """What a host has.

    Attributes:
        provider: makes the environments.
        layout: of the shared memory.
        memory: shared.
        rows: of the vector environment that are this host's.
    """

    provider: Provider
    layout: Layout
    memory: Any
    rows: slice

    def arrays(self) -> Arrays:
        """Of this host's rows."""
        return self.layout.arrays(self.memory).rows(self.rows)


class HostProcess:
    """A spawned process with the environments of every n-th row."""

    def __init__(self, number: int, settings: "Settings", timeout_s: float) -> None:
        self.rows = settings.rows
        self.arrays = settings.arrays()
        self._number, self._timeout_s = number, timeout_s
        self._settings = settings
        self._log: list[Call] = []
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        arguments = (remote, self._settings)
        self._process = context.Process(target=_serve, args=arguments, daemon=True, name=f"envs-{self._number}")
        try:
            self._process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            name = self._settings.provider.name
            raise ValueError(
                f"the task family {name!r} must be picklable, its functions at the top of a module: {error}"
            ) from error
        finally:
            remote.close()

    def ask(self, call: Call) -> None:
        """Have the process begin with something; `answer` waits for it."""
        if call.method == "set_tasks":
            self._log = []
        elif call.method == "reset" and call.arguments[0] is None:
            self._log = self._log[:1]
        self._log.append(call)
        self._send(call)

    def answer(self, seen: np.ndarray) -> None:
        """Wait until what was asked is done; if the process is lost, start it again and make up for it.

        Args:
            seen: the last observations that the caller has of the process's rows, [row, ...].
        """
        try:
            self._receive()
        except _Lost as lost:
            try:
                self._make_up(seen)
            except _Lost as again:
                raise WorkerError(f"{lost}; started again, {again}") from again
            warnings.warn(f"{lost}; it was started again and the run goes on", RuntimeWarning, stacklevel=2)

    def _make_up(self, seen: np.ndarray) -> None:
        """Start again, and repeat what was done since the last reset of all rows."""
        self.kill()
        self._start()
        *done, last = self._log
        for call in done:
            self._send(call)
            self._receive()
        if last.method == "step" and not np.array_equal(self.arrays.observations, seen, equal_nan=True):
            raise _Lost("its environments did not repeat their episodes, so they cannot go on")
        self._send(last)
        self._receive()

    def _send(self, call: Call) -> None:
        if call.actions is not None:
            rows = call.arguments[0]
            self.arrays.actions[slice(None) if rows is None else rows] = call.actions
        with contextlib.suppress(OSError):  # a dead process is reported where its answer is awaited
            self._connection.send_bytes(pickle.dumps((call.method, call.arguments)))

    def _receive(self) -> None:
        name = f"environment process {self._number}"
        try:
            if not self._connection.poll(self._timeout_s):
                raise _Lost(f"{name} has not answered for {self._timeout_s:g} s")
            answer = pickle.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionResetError) as error:
            self._process.join(timeout=5)
            code = self._process.exitcode
            hint = ' (a script that starts processes needs `if __name__ == "__main__":`)' if code == 1 else ""
            raise _Lost(f"{name} died with exit code {code}{hint}") from error
        if answer is not None:
            failure = WorkerError(f"{name} failed: {answer.strip().splitlines()[-1]}")
            failure.add_note(answer)
            raise failure

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def close(self) -> None:
        """Have the process close its environments and end."""
        with contextlib.suppress(OSError):  # it may be gone already
            self._connection.send_bytes(pickle.dumps(None))
        self._process.join(timeout=5)
        self.kill()


def _serve(connection: Connection, settings: Settings) -> None:
    """A worker process: do what is asked until told to stop or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all; the parent decides
    environments = _Environments(settings.provider, settings.arrays())
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has stopped
        while (asked := pickle.loads(connection.recv_bytes())) is not None:
            method, arguments = asked
            try:
                getattr(environments, method)(*arguments)
                answer = None
            except Exception:
                answer = traceback.format_exc()
            connection.send_bytes(pickle.dumps(answer))
    environments.close()


class InlineHost:
    """The same in the calling process."""

    def __init__(self, settings: Settings) -> None:
        self.rows = settings.rows
        self.arrays = settings.arrays()
        self._environments = _Environments(settings.provider, self.arrays)

    def ask(self, call: Call) -> None:
        """Do it."""
        if call.actions is not None:
            rows = call.arguments[0]
            self.arrays.actions[slice(None) if rows is None else rows] = call.actions
        getattr(self._environments, call.method)(*call.arguments)

    def answer(self, seen: np.ndarray) -> None:
        """Nothing is left to wait for."""

    def close(self) -> None:
        """Close the environments."""
        self._environments.close()
