"""Local executors: what they collect is the same to the bit, and what dies or hangs is collected again."""

import json
import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.agents.maml import AdaptationConfig, AdaptivePolicy, GradientActor, PolicyConfig
from metarl.envs import make_benchmark
from metarl.executors.local_processes import LocalProcesses
from metarl.experiments.bench import executor_peers, executors
from metarl.experiments.cli import main
from metarl.runs.cores import WorkerError
from metarl.trajectories import Trajectories, from_arrays, to_arrays
from metarl.workers import EnvMaker, Workers

ROOT = Path(__file__).resolve().parents[2]
POINT = make_benchmark("point")
TASKS = POINT.train.sample(5, np.random.default_rng(0))


def actor() -> GradientActor:
    config = AdaptationConfig(num_episodes=2)
    env = POINT.family.make_env(1)
    return GradientActor(AdaptivePolicy(env, PolicyConfig(), config, seed=0, device=torch.device("cpu")), None)


def equal(first: Trajectories, second: Trajectories) -> bool:
    """Whether two trajectories are the same to the bit."""
    for field in fields(Trajectories):
        a, b = getattr(first, field.name), getattr(second, field.name)
        pairs = [(a[name], b[name]) for name in a] if isinstance(a, dict) else [(a, b)]
        if field.name != "tasks" and not all(torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs):
            return False
    return first.tasks == second.tasks


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(EnvMaker(POINT.family, 5), num_workers=2, num_threads=2, timeout_s=60) as made:
        made.collect(actor(), TASKS, 2, seed=0)
        yield made


@pytest.fixture(scope="module")
def expected() -> Trajectories:
    with Workers(EnvMaker(POINT.family, 5), kind="local", num_workers=2, num_threads=1) as local:
        return local.collect(actor(), TASKS, 2, seed=3)


def _processes(workers: Workers) -> LocalProcesses:
    assert isinstance(workers.executor, LocalProcesses)
    return workers.executor


def test_shares_in_processes_equal_shares_in_this_one_to_the_bit(workers: Workers, expected: Trajectories) -> None:
    assert expected.num_steps > len(TASKS)
    assert equal(workers.collect(actor(), TASKS, 2, seed=3), expected)
    adapted = actor().adapt(expected)
    with Workers(EnvMaker(POINT.family, 5), kind="local", num_workers=2, num_threads=1) as local:
        assert equal(workers.collect(adapted, TASKS, 2, seed=4), local.collect(adapted, TASKS, 2, seed=4))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("by", "text"),
    [(signal.SIGKILL, "worker 1 died with exit code -9"), (signal.SIGSTOP, "worker 1 has not answered for 1 s")],
)
def test_a_lost_process_is_started_again_and_changes_nothing(
    by: signal.Signals,
    text: str,
    workers: Workers,
    expected: Trajectories,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = _processes(workers)._processes[1]
    monkeypatch.setattr(lost, "_timeout_s", 1.0)
    workers.collect(actor(), TASKS, 2, seed=0)  # the first answer may take longer than that
    pid = lost.pid
    os.kill(pid, by)
    with pytest.warns(RuntimeWarning, match=f"^{text}; it was started again and collects its share once more$"):
        again = workers.collect(actor(), TASKS, 2, seed=3)
    assert equal(again, expected)
    assert lost.pid != pid


class Deadly(GradientActor):
    """Ends the process in which it acts for the task at the end."""

    def select(self, tasks: slice) -> "GradientActor":
        return Deadly(self._learner, None) if tasks.stop == len(TASKS) else super().select(tasks)

    def begin_episode(self) -> None:
        os._exit(7)


@pytest.mark.thorough
def test_a_share_that_ends_every_process_is_an_error(workers: Workers, expected: Trajectories) -> None:
    error = "worker 1 died with exit code 7; its share of the tasks was lost 3 times and is not tried again"
    with (
        pytest.raises(WorkerError, match=f"^{error}$"),
        pytest.warns(RuntimeWarning, match="exit code 7; it was started again"),
    ):
        workers.collect(Deadly(actor()._learner, None), TASKS, 2, seed=3)
    assert equal(workers.collect(actor(), TASKS, 2, seed=3), expected)


def test_an_error_in_a_worker_is_named_and_not_tried_again(workers: Workers, expected: Trajectories) -> None:
    # Adapted to one task and asked to act for more: the second worker gets parameters of no task at all.
    sound = actor()
    one_task = {name: p.detach()[None] for name, p in sound._learner.params().items()}
    with pytest.raises(WorkerError, match=r"^worker 1 failed: RuntimeError"):
        workers.collect(GradientActor(sound._learner, one_task), TASKS[:2], 1, seed=0)
    assert equal(workers.collect(actor(), TASKS, 2, seed=3), expected)


def test_fewer_tasks_than_workers_leave_workers_idle(workers: Workers) -> None:
    with Workers(EnvMaker(POINT.family, 5), num_threads=1) as one:
        expected = one.collect(actor(), TASKS[:1], 2, seed=3)
    assert equal(workers.collect(actor(), TASKS[:1], 2, seed=3), expected)


def test_arrays_are_copied_when_they_become_trajectories(expected: Trajectories) -> None:
    arrays = to_arrays(expected)
    again = from_arrays(expected.tasks, [arrays])
    assert equal(again, expected)
    again.rewards.add_(1)
    assert not torch.equal(again.rewards, expected.rewards)
    assert isinstance(arrays["rewards"], np.ndarray)
    assert arrays["rewards"].dtype == np.float32


def test_traffic_counts_the_bytes_of_actors_and_of_trajectories(workers: Workers) -> None:
    traffic = _processes(workers).traffic
    sent, received = traffic.sent, traffic.received
    small = workers.collect(actor(), TASKS, 2, seed=3)
    first = traffic.received - received
    weights = sum(4 * p.numel() for p in actor()._learner.params().values())
    assert traffic.sent - sent > 2 * weights
    arrays = [
        a for part in to_arrays(small).values() for a in (part.values() if isinstance(part, dict) else [part])
    ]
    assert sum(a.nbytes for a in arrays) < first < sum(a.nbytes for a in arrays) + 10_000


def test_a_family_that_cannot_be_pickled_is_named() -> None:
    class Hidden(type(POINT.family)):  # type: ignore[misc]
        pass

    family = Hidden()
    assert isinstance(family.name, str)
    with pytest.raises(ValueError, match=r"^the task family 'point' must be picklable, its functions at the top"):
        Workers(EnvMaker(family, 5), num_workers=2)


def test_an_actor_that_cannot_be_pickled_is_named(workers: Workers, expected: Trajectories) -> None:
    hidden = actor()
    hidden.act = lambda observations: None  # type: ignore[assignment, method-assign]
    hidden.select = lambda tasks: hidden  # type: ignore[assignment, method-assign]
    with pytest.raises(
        ValueError, match=r"^the actor and its tasks must be picklable, its functions at the top of"
    ):
        workers.collect(hidden, TASKS, 2, seed=3)
    assert equal(workers.collect(actor(), TASKS, 2, seed=3), expected)


def test_on_the_command_line_a_warning_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def show(words: list[str]) -> int:
        message = RuntimeWarning("worker 1 died;\nit was started again")
        print(warnings.formatwarning(message, RuntimeWarning, "local_processes.py", 7), end="")
        return 0

    monkeypatch.setattr("metarl.experiments.cli._run", show)
    before = warnings.formatwarning
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "metarl: warning: worker 1 died; it was started again\n"
    assert warnings.formatwarning is before


def test_the_executors_bench_counts_bytes_and_compares_with_this_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    installed = {"stable-baselines3": executor_peers.stable_baselines}
    monkeypatch.setattr("metarl.experiments.bench.executors.peers", lambda: installed)
    sizes = executors.Sizes(num_tasks=3, num_episodes=2, horizon=4, peer_steps=16)
    measured = executors.bench(1, {"point": sizes}, ("local", "processes"))["benchmarks"]["point"]
    json.dumps(measured)
    local, processes = measured["costs"]["local"], measured["costs"]["processes"]
    assert (local["bytes_sent_per_step"], local["bytes_received_per_step"], local["worker_memory_mb"]) == (0, 0, 0)
    # Two observations, two actions, two moments of the policy, a reward and three flags: 4 * 7 + 3 at least.
    assert processes["bytes_received_per_step"] > 4 * 7 + 3
    assert processes["worker_memory_mb"] > 50
    assert measured["costs"]["stable-baselines3"]["worker_memory_mb"] > 50
    assert measured["over_this_process"].keys() == {"processes", "stable-baselines3"}
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    speeds = measured["steps_per_s"]
    assert measured["over_this_process"]["processes"]["median"] == pytest.approx(
        speeds["processes"] / speeds["local"]
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torchrl's own import
def test_torchrl_collects_the_steps_that_are_asked_for_and_ends() -> None:
    pytest.importorskip("torchrl")
    cheetah = make_benchmark("half-cheetah-dir").train
    with executor_peers.torchrl_collector(cheetah, horizon=4, num_steps=16, processes=2) as peer:
        assert peer.speed() > 0
        assert len(peer.pids) == 2
        assert all(Path(f"/proc/{pid}").exists() for pid in peer.pids)
    assert not any(Path(f"/proc/{pid}").exists() for pid in peer.pids)
