"""Environment steps per second with a policy in the loop: our collector, the physics alone, and Gymnasium.

The contenders per robot, each with the same policy parameters of 40 tasks where a policy acts:

    metarl      `Workers.collect` with an adapted actor: policy, physics, observations, rewards, recording, resets
    rollout     `mujoco.rollout` alone, one control step per call: the ceiling. It replays the actions of our
                collection from the same initial states with as many threads, so it simulates the very same steps
    batch       `mujoco.batch` alone, likewise, where the installed MuJoCo has it
    sync        Gymnasium's SyncVectorEnv of the v5 environment, the same actor for all of them in one batch
    async       Gymnasium's AsyncVectorEnv, one process per environment, likewise

Only real steps count: neither those after an episode's end, nor the calls in which Gymnasium resets one. The
contenders that Gymnasium steps have fewer environments, since their speed does not depend on the number.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv

from metarl.agent import Actor
from metarl.agents.maml import AdaptationConfig, AdaptivePolicy, GradientActor, PolicyConfig
from metarl.envs.benchmarks import make_benchmark
from metarl.envs.mujoco.backends import has_batch, new_backend
from metarl.envs.mujoco.locomotion import LocomotionEnv
from metarl.experiments.bench.timing import interleave, machine, ratio, ratio_cells
from metarl.experiments.console import Waiting, show_table
from metarl.runs.cores import usable_cores
from metarl.runs.seeding import episode_seeds, task_seeds
from metarl.tasks import Benchmark, Task
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers

_LABELS = {
    "metarl": "metarl, whole collector",
    "rollout": "mujoco.rollout, physics only",
    "batch": "mujoco.batch, physics only",
    "sync": "gymnasium SyncVectorEnv",
    "async": "gymnasium AsyncVectorEnv",
}


PeerEnv = VectorEnv[Any, Any, Any]


@dataclass(frozen=True)
class Robot:
    """A benchmark, and Gymnasium's environment of the same robot, observation and physics."""

    benchmark: str
    peer: str
    peer_arguments: tuple[tuple[str, Any], ...] = ()


ROBOTS = (
    Robot("half-cheetah-dir", "HalfCheetah-v5"),
    Robot("ant-dir", "Ant-v5", (("include_cfrc_ext_in_observation", False),)),
)


@dataclass(frozen=True)
class Sizes:
    """Sizes of the simulation in one measurement.

    Attributes:
        num_tasks: Number of tasks, each with its own policy parameters.
        num_episodes: Number of episodes per task, for our collector and for the physics.
        sync_episodes: Number of environments per task in the SyncVectorEnv.
        async_episodes: Number of environments, and so of processes, per task in the AsyncVectorEnv.
        horizon: Steps per episode, the same for all contenders.
    """

    num_tasks: int = 40
    num_episodes: int = 20
    sync_episodes: int = 20
    async_episodes: int = 1
    horizon: int = 100


def bench(repeats: int, sizes: Sizes = Sizes()) -> dict[str, Any]:
    """Measure all contenders, show a table per robot and return the same as JSON types."""
    result: dict[str, Any] = {"bench": "rollout", "repeats": repeats, "machine": machine(), "robots": {}}
    for robot in ROBOTS:
        with Waiting(f"{robot.benchmark}: measurement") as waiting:
            measured = measure_robot(robot, sizes, repeats, waiting.progress)
        _show(robot, measured)
        result["robots"][robot.benchmark] = measured
    return result


def measure_robot(
    robot: Robot, sizes: Sizes, repeats: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Steps per second of all contenders on one robot, and our ratio to each."""
    benchmark = make_benchmark(robot.benchmark)
    tasks = benchmark.train.sample(sizes.num_tasks, np.random.default_rng(0))
    peers: dict[str, PeerEnv] = {}
    with contextlib.ExitStack() as stack:
        # The peers' processes are forked before this one has simulation threads.
        for mode, episodes in (("async", sizes.async_episodes), ("sync", sizes.sync_episodes)):
            peers[mode] = make_peer(robot, mode, sizes.num_tasks * episodes, sizes.horizon)  # type: ignore[arg-type]
            stack.callback(peers[mode].close)
        workers = stack.enter_context(Workers(EnvMaker(benchmark.family, sizes.horizon)))
        actor, learner = adapted_actor(benchmark, workers, tasks)
        recorded = workers.collect(actor, tasks, sizes.num_episodes, seed=0)
        replays: dict[str, Replay] = {}
        for backend in ("rollout", *(("batch",) if has_batch() else ())):
            replays[backend] = Replay(benchmark, recorded, learner, backend, seed=0, num_threads=usable_cores())
            stack.callback(replays[backend].close)
            replays[backend].run()  # the first pass of a contender warms it up
            replays[backend].check()
        contenders: dict[str, Callable[[], tuple[int, float]]] = {
            "metarl": lambda: _collect(workers, actor, tasks, sizes.num_episodes),
            **{backend: replay.run for backend, replay in replays.items()},
            "sync": lambda: step_peer(peers["sync"], actor, sizes.num_tasks, sizes.horizon),
            "async": lambda: step_peer(peers["async"], actor, sizes.num_tasks, sizes.horizon),
        }
        steps = {name: run()[0] for name, run in contenders.items() if name in peers}
        speeds = interleave({name: _speed(run) for name, run in contenders.items()}, repeats, progress)
    ours = ("metarl", *replays)
    environments = dict.fromkeys(ours, sizes.num_tasks * sizes.num_episodes)
    environments |= {mode: env.num_envs for mode, env in peers.items()}
    return {
        "tasks": sizes.num_tasks,
        "horizon": sizes.horizon,
        "environments": environments,
        "steps": {**dict.fromkeys(ours, recorded.num_steps), **steps},
        "steps_per_s": {name: median(values) for name, values in speeds.items()},
        "metarl_over": {
            name: ratio(speeds["metarl"], values) for name, values in speeds.items() if name != "metarl"
        },
    }


def adapted_actor(
    benchmark: Benchmark, workers: Workers, tasks: Sequence[Task]
) -> tuple[GradientActor, AdaptivePolicy]:
    """An actor with its own parameters for each task, after one inner step, and the policy behind it."""
    env = benchmark.family.make_env(1, num_threads=1)
    config = AdaptationConfig(num_episodes=2)
    learner = AdaptivePolicy(env, PolicyConfig(), config, seed=0, device=torch.device("cpu"))
    env.close()
    actor = GradientActor(learner, None)
    return actor.adapt(workers.collect(actor, tasks, config.num_episodes, seed=1)), learner


class Replay:
    """The physics of recorded trajectories, and nothing else.

    Args:
        benchmark: Benchmark of the trajectories.
        recorded: Trajectories to simulate again.
        learner: Policy that maps the recorded outputs to actions.
        backend: MuJoCo's module that steps.
        seed: Seed with which the trajectories were collected.
        num_threads: Number of threads in the pool.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        recorded: Trajectories,
        learner: AdaptivePolicy,
        backend: str,
        *,
        seed: int,
        num_threads: int,
    ) -> None:
        num_tasks, num_episodes, horizon = recorded.mask.shape
        num_rows = num_tasks * num_episodes
        env = benchmark.family.make_env(num_rows, horizon=horizon, num_threads=1)
        assert isinstance(env, LocomotionEnv)
        env.set_tasks([task for task in recorded.tasks for _ in range(num_episodes)])
        env.reset(seed=[int(s) for s in episode_seeds(seed, num_tasks, num_episodes).flat])
        self._env, self._recorded = env, recorded
        self._frame_skip = env.family.frame_skip
        self._initial = env.physics.states.copy()
        self._states = self._initial.copy()
        alive = recorded.mask.flatten(0, 1).numpy()
        self._steps: list[tuple[np.ndarray | None, np.ndarray]] = []
        for t in range(horizon):
            rows = np.flatnonzero(alive[:, t])
            actions = learner.actions.to_env(recorded.actions[:, :, t]).reshape(num_rows, -1)
            if len(rows):
                self._steps.append((None if len(rows) == num_rows else rows, actions[rows].astype(np.float64)))
        self._backend = new_backend(env.physics.model, num_threads, backend)
        self._backend.set_models([env.physics.model_of(row) for row in range(num_rows)])

    def run(self) -> tuple[int, float]:
        """Simulate everything once: environment steps, and seconds."""
        began = time.perf_counter()
        self._states[:] = self._initial
        steps = 0
        for rows, controls in self._steps:
            self._backend.step(self._states, controls, rows, self._frame_skip)
            steps += len(controls)
        return steps, time.perf_counter() - began

    def check(self) -> None:
        """Raise a RuntimeError unless the last run ended where the recorded trajectories did."""
        nq, nv = self._env.physics.model.nq, self._env.physics.model.nv
        qpos, qvel = self._states[:, 1 : 1 + nq], self._states[:, 1 + nq : 1 + nq + nv]
        observed = self._env.robot.observe(qpos, qvel).astype(np.float32)
        expected = self._recorded.last_observations.flatten(0, 1).numpy()
        if not np.array_equal(observed, expected):
            difference = np.abs(observed - expected).max()
            raise RuntimeError(f"the replay does not end where the collection did, but {difference:.3g} away")

    def close(self) -> None:
        """Stop the threads of the engine and of the environment."""
        self._backend.close()
        self._env.close()


def make_peer(robot: Robot, mode: Literal["sync", "async"], num_envs: int, horizon: int) -> PeerEnv:
    """Gymnasium's own vector environment of the robot, without its checks."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside torch's threads; the processes never use torch.
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        return gymnasium.make_vec(
            robot.peer,
            num_envs,
            vectorization_mode=mode,
            max_episode_steps=horizon,
            disable_env_checker=True,
            **dict(robot.peer_arguments),
        )


def step_peer(env: PeerEnv, actor: Actor, num_tasks: int, num_steps: int) -> tuple[int, float]:
    """Reset and step a Gymnasium vector environment with the actor: environment steps, and seconds."""
    per_task = env.num_envs // num_tasks
    resetting = np.zeros(env.num_envs, dtype=np.bool_)
    steps, threads = 0, torch.get_num_threads()
    began = time.perf_counter()
    torch.set_num_threads(1)  # as in our collector: torch's threads would spin on the cores that simulate
    try:
        observations, _ = env.reset(seed=0)
        actor.begin(task_seeds(0, num_tasks), per_task)
        with torch.no_grad():
            for _ in range(num_steps):
                observed = torch.from_numpy(observations.astype(np.float32)).view(num_tasks, per_task, -1)
                actions = actor.act(observed).env_actions.reshape(env.num_envs, -1)
                observations, _, terminated, truncated, _ = env.step(actions)
                steps += env.num_envs - int(resetting.sum())
                resetting = terminated | truncated
    finally:
        torch.set_num_threads(threads)
    return steps, time.perf_counter() - began


def _collect(workers: Workers, actor: Actor, tasks: Sequence[Task], num_episodes: int) -> tuple[int, float]:
    began = time.perf_counter()
    trajectories = workers.collect(actor, tasks, num_episodes, seed=0)
    elapsed = time.perf_counter() - began
    return trajectories.num_steps, elapsed


def _speed(run: Callable[[], tuple[int, float]]) -> Callable[[], float]:
    def speed() -> float:
        steps, seconds = run()
        return steps / seconds

    return speed


def _show(robot: Robot, measured: dict[str, Any]) -> None:
    lines = []
    for name in measured["steps_per_s"]:
        counts = [f"{measured[what][name]:,}" for what in ("environments", "steps")]
        speed = f"{measured['steps_per_s'][name]:,.0f}"
        lines.append([_LABELS[name], *counts, speed, *ratio_cells(measured["metarl_over"].get(name))])
    title = f"{robot.benchmark}: {measured['tasks']} policies, episodes of {measured['horizon']} steps"
    columns = ["contender", "environments", "steps", "steps/s", "metarl over it", "lowest, highest"]
    show_table(title, columns, lines)
