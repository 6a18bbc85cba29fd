"""Executors: environment steps per second in this process, in local processes, and in actors of a Ray session.

The same actor collects the same episodes with each. In this process the engine's threads, or its own processes for
plain Gymnasium environments as Meta-World's, use all cores; processes and Ray have one worker per core with one
thread each. Beside them Stable-Baselines3's collector, and torchrl's where it is installed, step the same
environments, one in a process per core, with a policy of the same size. Besides speed: the time until the first
episodes are there, the bytes that go to workers and come back per environment step, and the greatest memory of a
worker's process.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from metarl.agents.maml import AdaptationConfig, AdaptivePolicy, GradientActor, PolicyConfig
from metarl.envs.benchmarks import make_benchmark
from metarl.executors.local_processes import LocalProcesses
from metarl.executors.ray_actors import RayActors
from metarl.experiments.bench.executor_peers import peers
from metarl.experiments.bench.timing import interleave, machine, ratio, ratio_cells
from metarl.experiments.console import Waiting, show_table
from metarl.runs.cores import usable_cores
from metarl.tasks import Benchmark, Task
from metarl.workers import EnvMaker, WorkerKind, Workers

KINDS: tuple[WorkerKind, ...] = ("local", "processes", "ray")
_LABELS = {
    "local": "this process",
    "processes": "local processes",
    "ray": "Ray actors",
    "stable-baselines3": "SB3 SubprocVecEnv",
    "torchrl": "torchrl MultiSyncCollector",
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the collection in one measurement.

    Attributes:
        num_tasks: Number of tasks.
        num_episodes: Number of episodes per task.
        horizon: Steps per episode.
        peer_steps: Number of steps of a collection by other libraries, whose speed hardly depends on it; 0 where
            the environments cannot be had one by one.
    """

    num_tasks: int = 40
    num_episodes: int = 20
    horizon: int = 100
    peer_steps: int = 4000


BENCHMARKS = {
    "half-cheetah-dir": Sizes(),
    "ant-dir": Sizes(),
    "ml1-reach": Sizes(num_tasks=10, num_episodes=4, peer_steps=0),
}


def bench(
    repeats: int, sizes: dict[str, Sizes] = BENCHMARKS, kinds: Sequence[WorkerKind] = KINDS
) -> dict[str, Any]:
    """Measure all executors, show a table per benchmark and return the same as JSON types."""
    result: dict[str, Any] = {"bench": "executors", "repeats": repeats, "machine": machine(), "benchmarks": {}}
    for name, size in sizes.items():
        with Waiting(f"{name}: measurement") as waiting:
            measured = measure_benchmark(name, size, kinds, repeats, waiting.progress)
        _show(name, measured)
        result["benchmarks"][name] = measured
    return result


def measure_benchmark(
    name: str,
    sizes: Sizes,
    kinds: Sequence[WorkerKind],
    repeats: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Speeds and costs of the executors on one benchmark, and the ratio of each to this process."""
    benchmark = make_benchmark(name)
    tasks = benchmark.train.sample(sizes.num_tasks, np.random.default_rng(0))
    actor = _actor(benchmark)
    costs: dict[str, dict[str, float]] = {}
    with contextlib.ExitStack() as stack:
        contenders: dict[str, Callable[[], float]] = {}
        for kind in kinds:
            began = time.perf_counter()
            workers = stack.enter_context(_workers(benchmark, kind, sizes.horizon))
            steps = workers.collect(actor, tasks, sizes.num_episodes, seed=0).num_steps
            started_s = time.perf_counter() - began
            traffic = workers.executor.traffic
            costs[kind] = {
                "first_episodes_s": started_s,
                "bytes_sent_per_step": traffic.sent / steps,
                "bytes_received_per_step": traffic.received / steps,
                "worker_memory_mb": max(map(_memory_mb, _pids(workers)), default=0.0),
            }
            contenders[kind] = _speed(workers, actor, tasks, sizes.num_episodes)
            contenders[kind]()  # with every worker warm
        for package, make in peers().items() if sizes.peer_steps else ():
            began = time.perf_counter()
            peer = stack.enter_context(
                make(benchmark.train, horizon=sizes.horizon, num_steps=sizes.peer_steps, processes=usable_cores())
            )
            contenders[package] = peer.speed
            peer.speed()
            first_s = time.perf_counter() - began
            costs[package] = {"first_episodes_s": first_s, "worker_memory_mb": max(map(_memory_mb, peer.pids))}
        speeds = interleave(contenders, repeats, progress)
    return {
        "workers": usable_cores(),
        "tasks": sizes.num_tasks,
        "episodes": sizes.num_episodes,
        "horizon": sizes.horizon,
        "steps_per_s": {kind: median(values) for kind, values in speeds.items()},
        "over_this_process": {
            kind: ratio(own, speeds[kinds[0]]) for kind, own in speeds.items() if kind != kinds[0]
        },
        "costs": costs,
    }


def _workers(benchmark: Benchmark, kind: WorkerKind, horizon: int) -> Workers:
    """One worker of all cores in this process, or one per core elsewhere."""
    cores = usable_cores()
    maker = EnvMaker(benchmark.family, horizon)
    return Workers(maker, kind=kind, num_workers=1 if kind == "local" else cores, num_threads=cores)


def _actor(benchmark: Benchmark) -> GradientActor:
    """An unadapted actor of two layers of 64 units, as in training."""
    env = benchmark.family.make_env(1, num_threads=1)
    try:
        learner = AdaptivePolicy(env, PolicyConfig(), AdaptationConfig(), seed=0, device=torch.device("cpu"))
    finally:
        env.close()
    return GradientActor(learner, None)


def _speed(
    workers: Workers, actor: GradientActor, tasks: Sequence[Task], num_episodes: int
) -> Callable[[], float]:
    """A function that collects once and returns environment steps per second."""

    def speed() -> float:
        began = time.perf_counter()
        steps = workers.collect(actor, tasks, num_episodes, seed=0).num_steps
        return steps / (time.perf_counter() - began)

    return speed


def _pids(workers: Workers) -> list[int]:
    """The processes of workers elsewhere on this machine."""
    executor = workers.executor
    return executor.pids() if isinstance(executor, LocalProcesses | RayActors) else []


def _memory_mb(pid: int) -> float:
    """Resident memory of a process in megabytes; 0 where the system does not say."""
    path = Path(f"/proc/{pid}/status")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((float(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS")), 0.0)


def _show(name: str, measured: dict[str, Any]) -> None:
    rows = []
    for kind, speed in measured["steps_per_s"].items():
        costs = measured["costs"][kind]
        rows.append(
            [
                _LABELS[kind],
                f"{speed:,.0f}",
                *ratio_cells(measured["over_this_process"].get(kind)),
                f"{costs['first_episodes_s']:.1f}",
                f"{costs['bytes_sent_per_step']:.1f}" if "bytes_sent_per_step" in costs else "",
                f"{costs['bytes_received_per_step']:.0f}" if "bytes_received_per_step" in costs else "",
                f"{costs['worker_memory_mb']:.0f}",
            ]
        )
    title = f"{name}: {measured['tasks']} tasks, {measured['episodes']} episodes of {measured['horizon']} steps"
    columns = ["executor", "steps/s", "over this process", "lowest, highest", "first episodes s"]
    show_table(title, [*columns, "bytes sent/step", "bytes received/step", "memory MB"], rows)
