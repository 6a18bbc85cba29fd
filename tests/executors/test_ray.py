"""Ray: actors give the same bits as this process, whatever is killed, and errors are one line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from metarl.executors import ray_actors
from metarl.executors.ray_actors import RayActors
from metarl.executors.ray_session import _own_token
from metarl.experiments.cli import main
from metarl.experiments.loading import open_run
from metarl.runs.cores import WorkerError
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers
from tests.executors.test_local_processes import POINT, ROOT, TASKS, actor, equal

TRAINING = [
    "--training.iterations", "3",
    "--training.meta-batch-size", "4",
    "--training.evaluate-every", "0",
    "--agent.adaptation.num-episodes", "2",
    "--evaluation.num-tasks", "2",
    "--evaluation.num-steps", "1",
    "--evaluation.num-episodes", "2",
    "--num-workers", "2",
]  # fmt: skip


def test_without_ray_one_line_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["train", "point-promp", "--workers", "ray", "--out", str(tmp_path / "run"), *TRAINING]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "metarl: error: workers on Ray need the package ray; run pip install 'metarl-toolkit[ray]'"
    )


def test_an_address_without_ray_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "point-promp", "--ray-address", "auto"]) == 2
    assert "ray_address needs workers ray, got processes; add --workers ray" in capsys.readouterr().err


class FailingRay(ModuleType):
    """Stands for the package ray where it cannot start or connect."""

    def __init__(self, error: Exception) -> None:
        super().__init__("ray")
        self.error = error
        self.folder = Path()

    def is_initialized(self) -> bool:
        return False

    def init(self, _temp_dir: str = "", **options: Any) -> None:
        self.folder = Path(_temp_dir)
        assert not _temp_dir or self.folder.is_dir()
        raise self.error


def test_a_session_that_does_not_start_is_one_line_and_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ray = FailingRay(Exception("The current node timed out\nduring startup."))
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert main(["train", "point-promp", "--workers", "ray", "--out", str(tmp_path / "run"), *TRAINING]) == 1
    error = capsys.readouterr().err
    assert "Ray's session on this machine did not start: The current node timed out during startup." in error
    assert ray.folder.name.startswith(f"metarl-ray-{os.getpid()}-")
    assert not ray.folder.exists()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("Version mismatch: Ray: 2.1"), "the cluster at auto has other versions than this machine"),
        (ConnectionError("Could not find any running Ray instance."), "no Ray cluster runs here; start one with"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_one_line(
    error: Exception, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FailingRay(error))
    with pytest.raises(ValueError, match=f"^{text}"):
        Workers(EnvMaker(POINT.family, 5), kind="ray", ray_address="auto")


def test_a_token_of_ours_is_the_same_for_all_sessions_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray reads it once per process, and says in the environment that there is one."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    tokens = []
    for _ in range(2):
        with _own_token():
            tokens.append(os.environ["RAY_AUTH_TOKEN"])
            os.environ["RAY_AUTH_MODE"] = "token"  # as Ray does
        assert not [name for name in os.environ if name.startswith("RAY_AUTH")]
    assert tokens[0] == tokens[1]
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with _own_token():
        assert "RAY_AUTH_TOKEN" not in os.environ
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.slow
def test_a_command_trains_and_evaluates_on_sessions_of_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = ["train", "point-promp", "--workers", "ray", "--out", str(tmp_path / "run"), *TRAINING]
    done = subprocess.run(
        [sys.executable, "-m", "metarl.experiments.cli", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "evaluation.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("127.0.0.1:1", "nobody answers at the Ray address 127.0.0.1:1"),
        ("nowhere", "--ray-address must be auto or HOST:PORT, such as 10.0.0.1:6379; got 'nowhere'"),
        ("auto", "no Ray cluster runs here; start one with `ray start --head`"),
    ],
)
def test_an_address_that_nobody_answers_is_one_line(address: str, text: str) -> None:
    pytest.importorskip("ray")
    began = time.monotonic()
    with pytest.raises(ValueError, match=f"^{text}") as error:
        Workers(EnvMaker(POINT.family, 5), kind="ray", ray_address=address)
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 60


class _TaskError(Exception):
    cause = RuntimeError("no such weights")


class _Answering:
    """A cluster of workers that are ready and have answered what they are asked: b"bad" with an error."""

    exceptions = SimpleNamespace(RayTaskError=_TaskError, RayError=LookupError)

    def wait(self, answers: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return answers, []

    def get(self, answer: Any) -> Any:
        if answer == b"bad":
            raise _TaskError
        return answer

    def worker(self, name: str) -> ray_actors._Worker:
        collect = SimpleNamespace(remote=lambda _, rest: rest)
        return ray_actors._Worker(name, SimpleNamespace(collect=collect), None)


def test_an_error_of_one_call_is_not_raised_again_by_the_next() -> None:
    executor: Any = RayActors.__new__(RayActors)
    executor._ray, executor._is_closed = _Answering(), False
    executor._workers = [executor._ray.worker("first"), executor._ray.worker("second")]

    def collected(rests: list[bytes]) -> dict[int, Any]:
        batch = ray_actors._Batch([(None, rest) for rest in rests], deque(range(len(rests))))
        executor._hand_out(batch)
        executor._wait(batch)
        return batch.answers

    with pytest.raises(WorkerError, match=r"^second failed: RuntimeError: no such weights"):
        collected([b"good", b"bad"])
    assert [worker.share for worker in executor._workers] == [None, None]
    assert collected([b"good"]) == {0: b"good"}  # the first worker's; the second one is free


@pytest.fixture(scope="module")
def expected() -> Trajectories:
    with Workers(EnvMaker(POINT.family, 5), kind="local", num_workers=2, num_threads=1) as local:
        return local.collect(actor(), TASKS, 2, seed=3)


@pytest.fixture
def workers(cluster: Any) -> Iterator[Workers]:
    with Workers(EnvMaker(POINT.family, 5), kind="ray", num_workers=2, ray_address=cluster.address) as made:
        yield made


def _pids(workers: Workers) -> list[int]:
    executor: Any = workers.executor
    assert all(worker.home is not None for worker in executor._workers)
    return [worker.home.pid for worker in executor._workers]


@pytest.mark.slow
def test_actors_give_the_bits_of_this_process(workers: Workers, expected: Trajectories) -> None:
    assert equal(workers.collect(actor(), TASKS, 2, seed=3), expected)
    adapted = actor().adapt(expected)
    with Workers(EnvMaker(POINT.family, 5), kind="local", num_workers=2, num_threads=1) as local:
        assert equal(workers.collect(adapted, TASKS, 2, seed=4), local.collect(adapted, TASKS, 2, seed=4))


@pytest.mark.slow
def test_the_weights_of_an_unadapted_actor_are_sent_once(workers: Workers) -> None:
    traffic = workers.executor.traffic
    workers.collect(actor(), TASKS, 2, seed=3)
    weights = sum(4 * p.numel() for p in actor()._learner.params().values())
    assert weights < traffic.sent < 2 * weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "text"),
    [(signal.SIGKILL, "died"), (signal.SIGSTOP, "has not answered for")],
    ids=["dies", "hangs"],
)
def test_a_lost_actor_is_replaced_and_changes_nothing(
    by: signal.Signals, text: str, workers: Workers, expected: Trajectories
) -> None:
    workers.collect(actor(), TASKS, 2, seed=3)
    executor: Any = workers.executor
    while not all(worker.has_answered for worker in executor._workers):
        workers.collect(actor(), TASKS, 2, seed=3)
    executor._timeout_s = 5.0
    os.kill(_pids(workers)[1], by)
    with pytest.warns(RuntimeWarning, match=f"^Ray worker 1 on .* {text}.*; it is replaced and its share is col"):
        assert equal(workers.collect(actor(), TASKS, 2, seed=3), expected)
    executor._timeout_s = 60.0
    assert equal(workers.collect(actor(), TASKS, 2, seed=3), expected)


@pytest.mark.slow
def test_an_error_in_an_actor_is_named_and_not_tried_again(workers: Workers, expected: Trajectories) -> None:
    sound = actor()
    one_task = {name: p.detach()[None] for name, p in sound._learner.params().items()}
    with pytest.raises(WorkerError, match=r"^Ray worker \d on .* failed: RuntimeError"):
        workers.collect(type(sound)(sound._learner, one_task), TASKS[:2], 1, seed=0)
    assert equal(workers.collect(actor(), TASKS, 2, seed=3), expected)


@pytest.mark.slow
def test_a_family_that_cannot_be_pickled_is_named(cluster: Any) -> None:
    family = type(POINT.family)()
    object.__setattr__(family, "stream", sys.stdout)
    with pytest.raises(ValueError, match=r"^the task family 'point' must be picklable, to be sent to other machi"):
        Workers(EnvMaker(family, 5), kind="ray", ray_address=cluster.address)


@pytest.mark.slow
def test_other_versions_on_a_node_are_named(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.executors.ray_actors.versions", lambda: {"torch": "0.1"})
    with (
        Workers(EnvMaker(POINT.family, 5), kind="ray", ray_address=cluster.address) as workers,
        pytest.raises(
            ValueError, match=r"^the Ray node .* has torch .* instead of 0\.1; install the same versions"
        ),
    ):
        workers.collect(actor(), TASKS, 2, seed=3)


@pytest.mark.slow
def test_more_threads_than_any_node_has_are_refused(cluster: Any) -> None:
    with pytest.raises(
        ValueError, match="a worker needs 64 CPUs, the largest node of the Ray cluster has 2; give"
    ):
        Workers(EnvMaker(POINT.family, 5), kind="ray", num_threads=64, ray_address=cluster.address)


def _metrics(folder: Path) -> list[str]:
    """The rows of the metrics without the columns of times."""
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    kept = [place for place, name in enumerate(rows[0]) if not name.startswith("time/")]
    assert len(rows) > 3
    return [",".join(row[place] for place in kept) for row in rows]


@pytest.mark.slow
def test_a_training_that_loses_a_node_has_the_metrics_of_one_process(cluster: Any, tmp_path: Path) -> None:
    import ray

    here, there = tmp_path / "here", tmp_path / "there"
    assert main(["train", "point-promp", "--out", str(here), "--workers", "local", *TRAINING]) == 0
    words = ["--workers", "ray", "--ray-address", cluster.address, "--training.iterations", "3"]
    killed: list[str] = []
    original = Workers.collect

    def collect(self: Workers, *arguments: Any, **named: Any) -> Trajectories:
        executor: Any = self.executor
        homes = [worker.home for worker in executor._workers]
        if len(killed) == 0 and executor.traffic.received > 0 and all(home is not None for home in homes):
            nodes = {node["NodeID"]: node for node in ray.nodes()}
            assert len({home.ray_node for home in homes}) == 2  # the premise: the workers are on two nodes
            name = nodes[homes[1].ray_node]["NodeName"]
            lost = [node for node in cluster.worker_nodes if node.node_id == homes[1].ray_node]
            assert len(lost) == 1
            killed.append(name)
            os.kill(homes[1].pid, signal.SIGSTOP)  # so that its share is under way when the node goes
            import threading

            threading.Timer(1.0, lambda: cluster.remove_node(lost[0], allow_graceful=False)).start()
        return original(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workers, "collect", collect)
        with pytest.warns(
            RuntimeWarning, match=r"Ray worker 1 on .* it is replaced and its share is collected once"
        ):
            assert main(["train", "point-promp", "--out", str(there), *TRAINING, *words]) == 0
    assert len(killed) == 1
    assert _metrics(there) == _metrics(here)
    first, second = (json.loads((folder / "evaluation.json").read_text()) for folder in (here, there))
    assert first["adaptation"] == second["adaptation"]


_LOSES_ITS_HEAD = """
import os, threading
from ray.cluster_utils import Cluster
from metarl.experiments.cli import main
import sys
node = {"num_cpus": 2, "num_gpus": 0, "object_store_memory": 80 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args=node)

def kill() -> None:
    while not os.path.exists(os.path.join(sys.argv[1], "checkpoint.pt")):
        threading.Event().wait(0.1)
    for processes in cluster.head_node.all_processes.values():
        for info in processes:
            info.process.kill()

threading.Thread(target=kill, daemon=True).start()
words = ["--workers", "ray", "--ray-address", cluster.address, "--out", sys.argv[1], *sys.argv[2:]]
status = main(["train", "point-promp", *words])
sys.stderr.flush()
os._exit(status)
"""


@pytest.mark.slow
def test_a_lost_head_ends_the_run_in_one_line_with_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    folder = tmp_path / "run"
    words = [*TRAINING, "--training.iterations", "100000", "--training.checkpoint-every", "1"]
    command = [sys.executable, "-c", _LOSES_ITS_HEAD, str(folder), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("metarl: error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("metarl: error: the head of the Ray cluster is lost")
    assert (folder / "checkpoint.pt").exists()
    assert open_run(folder).restored()[1].iteration >= 1


def _parents() -> dict[int, int]:
    """The parent of every process that is no zombie."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,stat"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()[1:]]
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def _below(pid: int) -> set[int]:
    """The processes that a process has started, and those that they have."""
    parents = _parents()
    below, front = set(), {pid}
    while front:
        front = {child for child, parent in parents.items() if parent in front}
        below |= front
    return below


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_local_session(by: signal.Signals, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    folder = tmp_path / "run"
    words = [*TRAINING, "--training.iterations", "100000", "--workers", "ray", "--out", str(folder)]
    command = [sys.executable, "-m", "metarl.experiments.cli", "train", "point-promp", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        deadline = time.monotonic() + 240
        while not (folder / "metrics.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        session = _below(driver.pid)
        assert len(session) > 4  # the premise: Ray's servers and two actors
        driver.send_signal(by)
        driver.wait(timeout=60)
    if by != signal.SIGKILL:
        assert driver.returncode == 130
        assert (folder / "checkpoint.pt").exists()
        assert not list(Path("/tmp").glob(f"metarl-ray-{driver.pid}-*"))
    deadline = time.monotonic() + 120  # one of Ray's servers waits for a minute until it ends
    while session & _parents().keys() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not session & _parents().keys()
