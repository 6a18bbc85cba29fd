"""Whole runs on the nodes of a Ray cluster: `--seeds N --workers ray`, and sweeps, lists and studies.

Each run is an actor for which Ray sets cores and a share of a GPU aside. The run folder is made here. A node that
has it too, on shared storage, trains in it; another trains in a copy, which is fetched when the run ends or stops.
A run whose node is lost starts again elsewhere, from its checkpoint if that is on shared storage.
"""

import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.executors.ray_collector import Readiness, versions
from metarl.executors.ray_session import RaySession
from metarl.executors.shares import MOST_LOSSES
from metarl.experiments.arguments import UsageError, take_option
from metarl.experiments.places import Job
from metarl.experiments.run_host import MARK, News, RunHost, pack, unpack
from metarl.experiments.run_process import Message, RunWords
from metarl.runs.configs import MOST_PROCESSES
from metarl.runs.cores import usable_cores

_BEAT_S = 0.25
"""Longest time in seconds that messages are waited for."""
_LOCK_S = 90.0
"""Longest time in seconds for the process of a lost actor to leave the run folder."""


@dataclass(frozen=True)
class Placement:
    """Place and resources of whole runs on a Ray cluster.

    Attributes:
        address: Address of the cluster, HOST:PORT, or auto for the one of this machine; None for a session on this
            machine that ends with the command.
        cores: Number of cores of each run, of its simulation and of torch.
        gpus: Number of GPUs of each run, a fraction for several runs on one.
    """

    address: str | None
    cores: int = 1
    gpus: float = 0.0


def take_placement(words: list[str]) -> tuple[Placement | None, list[str]]:
    """The placement that a command's words ask for with `--workers ray`, if they do, and the other words.

    Raises:
        UsageError: if a number is none, or there is a number without `--workers ray`.
    """
    workers, rest = take_option(words, "--workers")
    cores, rest = take_option(rest, "--run-cores")
    gpus, rest = take_option(rest, "--run-gpus")
    if workers != "ray":
        if cores is not None or gpus is not None:
            raise UsageError("--run-cores and --run-gpus are of whole runs on Ray; add --workers ray")
        return None, words
    address, rest = take_option(rest, "--ray-address")
    number = 1 if cores is None else int(cores) if cores.isascii() and cores.isdigit() else 0
    if not 1 <= number <= MOST_PROCESSES:
        raise UsageError(f"--run-cores must be a whole number between 1 and {MOST_PROCESSES:,}, got {cores!r}")
    try:
        share = 0.0 if gpus is None else float(gpus)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1000:
        raise UsageError(f"--run-gpus must be a number of GPUs of a run, such as 0.5, got {gpus!r}")
    return Placement(address, number, share), rest


class RayPlace:
    """The nodes of a Ray cluster; a `metarl.experiments.places.Place`.

    Args:
        placement: Address of the cluster, and resources of every run.

    Raises:
        ValueError: if Ray is not installed, nothing answers, or no node has room for a run.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self.mark = f"{MARK}{secrets.token_hex(8)}"
        self._jobs: list[RayJob] = []
        self._session = RaySession(placement.address, usable_cores())
        self.ray = self._session.ray
        if not self.slots:
            self._session.close()
            gpus = f" and {placement.gpus:g} GPUs" if placement.gpus else ""
            raise ValueError(
                f"a run needs {placement.cores} CPUs{gpus}, and no node of the Ray cluster has so many; "
                "give fewer with --run-cores and --run-gpus"
            )
        resources = {"num_cpus": placement.cores, "num_gpus": placement.gpus}
        options = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 2, "scheduling_strategy": "SPREAD"}
        self._host = self.ray.remote(**resources, **options)(RunHost)

    @property
    def slots(self) -> int:
        """Number of runs that the nodes which are there have room for."""
        cores, gpus = self._placement.cores, self._placement.gpus
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        rooms = [(node.get("CPU", 0) // cores, node.get("GPU", 0) // gpus if gpus else None) for node in nodes]
        return int(sum(cpus if there is None else min(cpus, there) for cpus, there in rooms))

    def start(self, number: int, words: RunWords) -> Job:
        """Start a run on a node that has room."""
        job = RayJob(self, number, words)
        self._jobs.append(job)
        return job

    def send(self, number: int, words: RunWords, *, again: bool) -> tuple[Any, Any]:
        """A new actor that a run was given to, perhaps once more, and the reference of its answer."""
        host = self._host.remote()
        answer = host.start.remote(
            number,
            words,
            path=sys.path,
            mark=self.mark,
            files=[self.ray.put(pack(Path(words[0])))],
            cores=self._placement.cores,
            patience_s=_LOCK_S if again else 0.0,
        )
        return host, answer

    def messages(self) -> list[Message]:
        """The messages since the last call; waits a little for the first."""
        going = {job.answer: job for job in self._jobs if job.exitcode is None}
        if not going:
            time.sleep(_BEAT_S)
            return []
        done, _ = self.ray.wait(list(going), num_returns=1, timeout=_BEAT_S)
        return [message for answer in done for message in going[answer].take()]

    def close(self) -> None:
        """End the runs that still go on, and the session if it is ours; safe to call twice."""
        for job in self._jobs:
            job.kill()
        self._jobs = []
        self._session.close()


@contextmanager
def placed(placement: Placement | None) -> Iterator[RayPlace | None]:
    """The place of a placement while the block lasts; None without one, for this machine."""
    if placement is None:
        yield None
        return
    with closing(RayPlace(placement)) as place:
        yield place


class RayJob:
    """One run on a node; a `metarl.experiments.places.Job`.

    Args:
        place: The cluster.
        number: Number that the run's messages bear.
        words: Words of the run.
    """

    def __init__(self, place: RayPlace, number: int, words: RunWords) -> None:
        self._place, self._number, self._folder = place, number, Path(words[0]).resolve()
        self._words: RunWords = (str(self._folder), words[1], words[2])
        self.exitcode: int | None = None
        self.home: Readiness | None = None
        self._losses = 0
        self._stopping = False
        (self._folder / place.mark).touch()
        self._host, self.answer = place.send(number, self._words, again=False)

    def is_alive(self) -> bool:
        """Whether it goes on."""
        return self.exitcode is None

    def terminate(self) -> None:
        """Stop it after its iteration; one that waits for a node ends at once."""
        if self.exitcode is None and self.home is None:
            self._end(-signal.SIGTERM)
        elif self.exitcode is None:
            self._host.stop.remote()
        self._stopping = True

    def join(self) -> None:
        """Wait for its end."""
        while self.exitcode is None:
            self._place.messages()

    def kill(self) -> None:
        """End it at once; its process stops after the iteration, with a checkpoint."""
        if self.exitcode is None:
            self._end(-signal.SIGKILL)

    def take(self) -> list[Message]:
        """Take in the answer that is there."""
        try:
            answer = self._place.ray.get(self.answer)
        except self._place.ray.exceptions.RayTaskError as error:
            self._end(1)
            return [self._say("failed", f"{type(error.cause).__name__}: {error.cause}")]
        except self._place.ray.exceptions.RayError:
            return self._lost()
        if isinstance(answer, Readiness):
            return self._ready(answer)
        return self._heard(answer)

    def _ready(self, readiness: Readiness) -> list[Message]:
        """The run was started on a node of the same versions, or ends."""
        ours = versions()
        for name, there in readiness.versions.items():
            if there != ours.get(name):
                self._end(1)
                text = f"the Ray node {readiness.node} has {name} {there} instead of {ours.get(name)}"
                return [self._say("failed", f"{text}; install the same versions on all nodes")]
        self.home, self.answer = readiness, self._host.poll.remote()
        if self._stopping:
            self._host.stop.remote()
        return [self._say("training", f"starting on {readiness.node}")]

    def _heard(self, news: News) -> list[Message]:
        """The run's messages, and its files after its end."""
        if news.files is not None:
            unpack(news.files, self._folder)
        if news.exitcode is None:
            self.answer = self._host.poll.remote()
        else:
            self._end(news.exitcode)
        return news.messages

    def _lost(self) -> list[Message]:
        """The node or the actor is gone: the run starts again, unless that happened too often."""
        self._losses += 1
        lost = f"its node {self.home.node} was lost" if self.home is not None else "its node was lost"
        if self._stopping or self._losses == MOST_LOSSES:
            self._end(1)
            return [self._say("failed", f"{lost} {self._losses} times; its checkpoint here is as it was")]
        self.home = None
        self._host, self.answer = self._place.send(self._number, self._words, again=True)
        return [self._say("training", f"{lost}; it starts again elsewhere")]

    def _end(self, exitcode: int) -> None:
        self.exitcode = exitcode
        (self._folder / self._place.mark).unlink(missing_ok=True)
        self._place.ray.kill(self._host)

    def _say(self, state: str, line: str) -> Message:
        return self._number, state, " ".join(line.split())
