"""RayActors: the executor whose workers are actors of a Ray cluster, on this machine or on many.

Any worker can collect any share. A worker that dies with its node, or is silent, is given up and replaced, and its
share goes to whichever worker is free next; an answer that comes later is not read. While nodes are missing the
others do the work, down to one. What is the same for several shares, as the weights of an unadapted actor, is put
into Ray's object store once, and Ray copies it to a node once.
"""

import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metarl.executors.ray_collector import RayCollector, Readiness, end_process, versions
from metarl.executors.ray_session import RaySession
from metarl.executors.shares import MOST_LOSSES, MakeEnv, Share, Traffic
from metarl.runs.cores import WorkerError
from metarl.runs.processes import check_timeout
from metarl.trajectories import Trajectories, TrajectoryArrays, from_arrays

_START_S = 300.0
"""Longest time in seconds until a worker is ready: it waits for CPUs, and imports a simulator."""
_HEAD_S = 10.0
"""Time without any worker in seconds after which the cluster's head is asked whether it is there."""
_BEAT_S = 1.0
"""Seconds between two looks for signs of life."""


@dataclass
class _Worker:
    """An actor, and what it is at.

    Attributes:
        name: Name for messages.
        handle: Ray's handle of the actor.
        ready: Reference of its answer that it is ready; None when it was.
        share: Number of the share that it collects; None if it is free.
        answer: Reference of the answer that is awaited.
        beat: Reference of the number of its signs of life that is awaited.
        beats: Number of its signs of life so far.
        silent_s: Time without one, in seconds.
        home: Where it runs; None until it is ready.
        has_answered: Whether it has answered once; its first share may take longer, as it imports a simulator.
    """

    name: str
    handle: Any
    ready: Any
    share: int | None = None
    answer: Any = None
    beat: Any = None
    beats: int = -1
    silent_s: float = 0.0
    home: Readiness | None = None
    has_answered: bool = False

    @property
    def title(self) -> str:
        """Its name, and where it runs."""
        return f"{self.name} on {self.home.node}" if self.home is not None else self.name


@dataclass
class _Batch:
    """The shares of one call: requests, answers, and what is still to do.

    Attributes:
        requests: Arguments of the call for each share.
        waiting: Numbers of the shares that nobody collects.
        answers: Answers by share.
        losses: Number of workers that were lost over each share.
    """

    requests: list[tuple[Any, bytes]]
    waiting: deque[int]
    answers: dict[int, TrajectoryArrays] = field(default_factory=dict)
    losses: dict[int, int] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether all shares are answered."""
        return len(self.answers) == len(self.requests)


class RayActors:
    """Collects in actors of a Ray cluster; for one thread after another.

    Args:
        make_env: Maker of the vector environments; picklable.
        address: Address of the cluster, or auto for the one of this machine; None starts a local session.
        num_workers: Number of actors.
        num_threads: Number of threads of each, for which Ray sets so many CPUs aside.
        timeout_s: Longest time in seconds that a worker may take over one step of its environments; None for no
            limit.
        contents: Cargo of the maker, for messages: "the task family 'walk'".

    Raises:
        ValueError: if Ray is not installed, nothing answers, versions differ, or something cannot be pickled.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        *,
        address: str | None,
        num_workers: int,
        num_threads: int,
        timeout_s: float | None,
        contents: str,
    ) -> None:
        check_timeout(timeout_s)
        self.traffic = Traffic()
        self._turn, self._is_closed = threading.Lock(), False
        self._timeout_s = timeout_s
        self._num_threads = num_threads
        self._session = RaySession(address, num_workers * num_threads)
        self._ray = self._session.ray
        self._workers: list[_Worker] = []
        try:
            self._start = self._pickled(make_env, contents)
            self._check_room()
            options = {"num_cpus": num_threads, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 2}
            self._actor = self._ray.remote(scheduling_strategy="SPREAD", **options)(RayCollector)
            self._workers = [self._started(f"Ray worker {i}") for i in range(num_workers)]
        except BaseException:
            self.close()
            raise

    def _pickled(self, value: object, contents: str) -> bytes:
        """A value as bytes, with what a script or a notebook defines in them."""
        try:
            return bytes(self._ray.cloudpickle.dumps(value))
        except Exception as error:  # a user's objects may raise anything
            summary = " ".join(str(error).split())
            raise ValueError(f"{contents} must be picklable, to be sent to other machines: {summary}") from error

    def _check_room(self) -> None:
        """Raise a ValueError if no node could ever hold a worker."""
        most = max((node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]), default=0)
        if most < self._num_threads:
            raise ValueError(
                f"a worker needs {self._num_threads} CPUs, the largest node of the Ray cluster has {most:g}; "
                "give more workers fewer threads with --num-workers and --num-threads"
            )

    def _started(self, name: str) -> _Worker:
        """A new actor, which is asked to say when it is ready."""
        handle = self._actor.remote()
        return _Worker(name, handle, handle.prepare.remote(sys.path, self._start, self._num_threads))

    def collect(self, shares: Sequence[Share]) -> Trajectories:
        """The episodes of all shares, joined in the order of the shares."""
        with self._turn:
            self._check_open()
            answers = self._answers(shares)
        tasks = tuple(task for share in shares for task in share.tasks)
        return from_arrays(tasks, answers)

    def _answers(self, shares: Sequence[Share]) -> list[TrajectoryArrays]:
        """The arrays of every share."""
        batch = _Batch(self._requests(shares), deque(range(len(shares))))
        for worker in self._workers:
            worker.silent_s = 0.0
        try:
            while not batch.is_done:
                self._hand_out(batch)
                self._wait(batch)
        finally:  # after an error, or Ctrl-C: nobody is left at work that nobody waits for
            for number, worker in enumerate(self._workers):
                if worker.share is not None:
                    self._replace(number)
        answers = [batch.answers[number] for number in range(len(shares))]
        self.traffic.received += sum(map(_size, answers))
        return answers

    def _requests(self, shares: Sequence[Share]) -> list[tuple[Any, bytes]]:
        """Each share as a reference to its actor in the object store, and the rest as bytes."""
        stored: dict[bytes, Any] = {}
        requests = []
        for share in shares:
            actor = self._pickled(share.actor, "the actor")
            if actor not in stored:
                stored[actor] = self._ray.put(np.frombuffer(actor, np.uint8))
                self.traffic.sent += len(actor)
            rest = self._pickled((share.tasks, share.env_seeds, share.noise_seeds), "a task")
            self.traffic.sent += len(rest)
            requests.append((stored[actor], rest))
        return requests

    def _hand_out(self, batch: _Batch) -> None:
        """Give shares that wait to workers that are free."""
        for worker in self._workers:
            if worker.ready is None and worker.share is None and batch.waiting:
                worker.share = batch.waiting.popleft()
                worker.answer = worker.handle.collect.remote(*batch.requests[worker.share])
                worker.silent_s = 0.0

    def _wait(self, batch: _Batch) -> None:
        """Wait for something to happen, for one beat at most, and take it in."""
        self._check_open()
        began = time.monotonic()
        awaited = [worker.answer if worker.ready is None else worker.ready for worker in self._workers]
        done, _ = self._ray.wait([ref for ref in awaited if ref is not None], timeout=_BEAT_S)
        # Time in which this process was stopped itself does not count.
        passed = min(time.monotonic() - began, 2 * _BEAT_S)
        for number, (worker, ref) in enumerate(zip(list(self._workers), awaited, strict=True)):
            if ref in done:
                self._take(number, worker, ref, batch)
            else:
                worker.silent_s += passed
                self._look_after(number, worker, batch)
        silent_s = min(0.0 if worker.ready is None else worker.silent_s for worker in self._workers)
        if silent_s > _HEAD_S and self._session.is_lost():
            self._workers = []  # there is nobody to end them
            raise WorkerError(
                "the head of the Ray cluster is lost, and its workers with it; checkpoints are as they were: "
                "start the cluster again and continue with metarl resume"
            )
        if silent_s > _START_S:
            free = self._ray.available_resources().get("CPU", 0)
            raise WorkerError(
                f"no Ray worker was ready within {_START_S:g} s: each needs {self._num_threads} CPUs, "
                f"and {free:g} of the cluster's are free"
            )

    def _check_open(self) -> None:
        """Raise a WorkerError if another thread has closed the workers."""
        if self._is_closed:
            raise WorkerError("the workers on Ray were closed")

    def _take(self, number: int, worker: _Worker, ref: Any, batch: _Batch) -> None:
        """Take what has come from a worker: that it is ready, an answer, or an error."""
        try:
            value = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, BaseException) else error
            worker.share = worker.answer = None
            raise _failure(worker, cause, str(error)) from None
        except self._ray.exceptions.RayError as error:
            self._lose(number, _reason(error), batch)
            return
        worker.silent_s = 0.0
        if worker.ready is not None:
            _check_versions(value)
            worker.home, worker.ready = value, None
            return
        assert worker.share is not None
        batch.answers[worker.share] = value
        worker.share, worker.answer, worker.beat, worker.beats = None, None, None, -1
        worker.has_answered = True

    def _look_after(self, number: int, worker: _Worker, batch: _Batch) -> None:
        """See whether a worker that is at work gives signs of life; give it up if it has not for too long."""
        if worker.share is None:
            return
        if worker.beat is not None and self._ray.wait([worker.beat], timeout=0)[0]:
            try:
                beats = self._ray.get(worker.beat)
            except self._ray.exceptions.RayError:  # its answer will say the same
                beats = worker.beats
            if beats != worker.beats:
                worker.beats, worker.silent_s = beats, 0.0
            worker.beat = None
        if worker.beat is None:
            worker.beat = worker.handle.count_beats.remote()
        if self._timeout_s is None:
            return
        if worker.silent_s >= (self._timeout_s if worker.has_answered else max(self._timeout_s, _START_S)):
            self._end_by_force(worker)
            self._lose(number, f"has not answered for {worker.silent_s:.0f} s", batch)

    def _lose(self, number: int, reason: str, batch: _Batch) -> None:
        """Replace a worker; its share is collected again, unless too many were lost over it."""
        worker = self._workers[number]
        self._replace(number)
        if worker.share is None:  # it was not ready yet
            batch.losses[-1] = batch.losses.get(-1, 0) + 1
            if batch.losses[-1] >= MOST_LOSSES * len(self._workers):
                raise WorkerError(f"{worker.title} {reason}, and so did the others before they were ready")
            return
        losses = batch.losses[worker.share] = batch.losses.get(worker.share, 0) + 1
        if losses >= MOST_LOSSES:
            raise WorkerError(
                f"{worker.title} {reason}; its share of the tasks was lost {losses} times and is not tried again"
            )
        batch.waiting.appendleft(worker.share)
        text = f"{worker.title} {reason}; it is replaced and its share is collected once more"
        warnings.warn(text, RuntimeWarning, stacklevel=2)

    def _end_by_force(self, worker: _Worker) -> None:
        """Have a process on a silent worker's node kill it: one that is stopped would keep its CPUs."""
        assert worker.home is not None
        place = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            worker.home.ray_node, soft=False
        )
        self._ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=place)(end_process).remote(worker.home.pid)

    def _replace(self, number: int) -> None:
        """End a worker, whatever it is doing, and start another."""
        worker = self._workers[number]
        self._ray.kill(worker.handle)
        if not self._is_closed:
            self._workers[number] = self._started(worker.name)

    def pids(self) -> list[int]:
        """Process numbers of the workers that are ready, each on its node."""
        return [worker.home.pid for worker in self._workers if worker.home is not None]

    def close(self) -> None:
        """End the actors, and a local session; safe to call twice.

        Another thread that collects leaves first: what it asked of Ray then would start another session.
        """
        self._is_closed = True
        if self._turn.acquire(timeout=5 * _BEAT_S):
            self._turn.release()
        workers, self._workers = self._workers, []
        if self._ray.is_initialized():
            for worker in workers:
                self._ray.kill(worker.handle)
        self._session.close()


def _size(arrays: TrajectoryArrays) -> int:
    """Bytes of the arrays of trajectories."""
    parts = [part.values() if isinstance(part, dict) else [part] for part in arrays.values()]
    return sum(array.nbytes for part in parts for array in part)


def _reason(error: Exception) -> str:
    """What happened to an actor, in a few words of ours: Ray's own fill a screen."""
    text = " ".join(str(error).split())
    return "died with its node" if "its node has died" in text else "died"


def _failure(worker: _Worker, cause: BaseException, trace: str) -> WorkerError:
    """The error of a worker, with a hint where something is missing on its node."""
    summary = f"{type(cause).__name__}: {cause}"
    hint = ""
    if isinstance(cause, FileNotFoundError | ModuleNotFoundError):
        hint = "; every node needs the same packages and files, as on shared storage"
    failure = WorkerError(f"{worker.title} failed: {' '.join(summary.split())}{hint}")
    failure.add_note(trace)
    return failure


def _check_versions(home: Readiness) -> None:
    """Raise a ValueError if a node has other versions of what results depend on."""
    ours = versions()
    differing = [name for name in ours if home.versions.get(name) != ours[name]]
    if differing:
        pairs = ", ".join(f"{name} {home.versions.get(name)} instead of {ours[name]}" for name in differing)
        raise ValueError(f"the Ray node {home.node} has {pairs}; install the same versions on all nodes")
