"""LocalProcesses: the executor whose workers are processes of this machine.

A process that dies or hangs is started again and collects its share once more.
"""

import pickle
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from metarl.executors.shares import MOST_LOSSES, MakeEnv, Share, Traffic, pickled
from metarl.executors.simulator import Simulator
from metarl.runs.cores import WorkerError
from metarl.runs.processes import Alive, ProcessLost, WorkerProcess
from metarl.trajectories import Trajectories, from_arrays, to_arrays


class LocalProcesses:
    """Collects in processes of their own, one share in each; for one thread after another.

    Args:
        make_env: Maker of the vector environments; picklable.
        num_workers: Number of processes.
        num_threads: Number of threads of each process.
        timeout_s: Longest time in seconds that a process may take over one step of its environments; None for no
            limit.
        contents: Cargo of the maker, for messages: "the task family 'walk'".
    """

    def __init__(
        self, make_env: MakeEnv, *, num_workers: int, num_threads: int, timeout_s: float | None, contents: str
    ) -> None:
        self.traffic = Traffic()
        self._turn, self._is_closed = threading.Lock(), False
        start = _StartCollector(make_env, num_threads)
        self._processes = [
            WorkerProcess(f"worker {i}", start, timeout_s=timeout_s, contents=contents) for i in range(num_workers)
        ]

    def collect(self, shares: Sequence[Share]) -> Trajectories:
        """The episodes of all shares, joined in the order of the shares."""
        with self._turn:
            if self._is_closed:
                raise WorkerError("the worker processes were closed")
            answers = self._answers(shares)
        tasks = tuple(task for share in shares for task in share.tasks)
        return from_arrays(tasks, [pickle.loads(answer) for answer in answers])

    def _answers(self, shares: Sequence[Share]) -> list[bytes]:
        """The answers of the processes, each the pickled arrays of a share."""
        answers: list[bytes] = []
        failure: WorkerError | None = None
        requests = [pickled(share, "the actor and its tasks") for share in shares]
        busy = [_Errand(process, request) for process, request in zip(self._processes, requests, strict=False)]
        # All answers are awaited before an error is raised, so that no process is left at work.
        for errand in busy:
            self.traffic.sent += len(errand.request)
            try:
                answers.append(errand.answer())
            except WorkerError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        self.traffic.received += sum(map(len, answers))
        return answers

    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [process.pid for process in self._processes]

    def close(self) -> None:
        """End the processes; safe to call twice. Another thread that collects gets an error."""
        self._is_closed = True
        deadline = time.monotonic() + 5
        for process in self._processes:
            process.stop()
        for process in self._processes:
            process.end(deadline)
        if self._turn.acquire(timeout=5):  # the other thread has left
            self._turn.release()
        for process in self._processes:
            process.close(deadline)
        self._processes = []


class _Errand:
    """One share at one process, which has begun with it."""

    def __init__(self, process: WorkerProcess, request: bytes) -> None:
        self.request = request
        self._process = process
        self._losses: list[ProcessLost] = []
        self._ask()

    def _ask(self) -> None:
        """Ask until the process takes it, or has been lost too often."""
        while len(self._losses) < MOST_LOSSES:
            try:
                return self._process.ask(self.request)
            except ProcessLost as lost:
                self._lose(lost)
        return None

    def answer(self) -> bytes:
        """The process's answer; a lost process is started again and asked once more."""
        while len(self._losses) < MOST_LOSSES:
            try:
                answer: bytes = self._process.answer()
                return answer
            except ProcessLost as lost:
                self._lose(lost)
                self._ask()
        raise WorkerError(
            f"{self._losses[-1]}; its share of the tasks was lost {len(self._losses)} times and is not tried again"
        ) from self._losses[-1]

    def _lose(self, lost: ProcessLost) -> None:
        self._losses.append(lost)
        self._process.restart()
        if len(self._losses) < MOST_LOSSES:
            text = f"{lost}; it was started again and collects its share once more"
            warnings.warn(text, RuntimeWarning, stacklevel=2)


@dataclass(frozen=True)
class _StartCollector:
    """Makes what answers in a worker process, in that process.

    Attributes:
        make_env: Maker of the vector environments.
        num_threads: Number of threads that simulate and compute.
    """

    make_env: MakeEnv
    num_threads: int

    def __call__(self, alive: Alive) -> "_Collector":
        torch.set_num_threads(self.num_threads)
        return _Collector(Simulator(self.make_env, self.num_threads, alive))


class _Collector:
    """What answers in a worker process: it collects the shares that it is asked for."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def answer(self, request: bytes) -> bytes:
        return pickle.dumps(to_arrays(self._simulator.collect(pickle.loads(request))))

    def close(self) -> None:
        self._simulator.close()
