"""Meta-World's steps per second with random actions: our worker processes, the package's, and the physics alone.

    faster step    our processes, one per core, with our step
    package step   our processes with the package's own step
    package alone  the package's environments in plain loops, one process per core without communication: the
                   ceiling of whatever runs the package's step
    async          gymnasium.make_vec of the package's environments, one process per environment
    physics        MuJoCo's steps alone in as many threads as there are cores: the ceiling. It replays the controls
                   of our episodes from the same states, and is checked to end in the same states

All take the same actions from the start of an episode; resets are not measured.
"""

import copy
import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import gymnasium
import metaworld
import mujoco
import numpy as np
from gymnasium.vector import VectorEnv

from metarl.envs.metaworld.benchmarks import metaworld_benchmark
from metarl.envs.metaworld.sawyer import FastStep, new_environment
from metarl.envs.vector import TaskVectorEnv
from metarl.experiments.bench.timing import interleave, machine, ratio, ratio_cells
from metarl.experiments.console import Waiting, show_table
from metarl.runs.cores import usable_cores
from metarl.tasks import Task

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION.value
ENVIRONMENTS = ("reach", "push", "drawer-open")
_LABELS = {
    "faster step": "metarl, faster step",
    "package step": "metarl, package's step",
    "package alone": "package's step, no vector environment",
    "async": "gymnasium.make_vec, async",
    "physics": "physics only",
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the simulation in one measurement.

    Attributes:
        num_envs: Number of environments of each contender, a divisor of 40.
        num_steps: Steps of each environment.
    """

    num_envs: int = 20
    num_steps: int = 200


def bench(repeats: int, sizes: Sizes = Sizes()) -> dict[str, Any]:
    """Measure all contenders on all environments, show a table of each and return the same as JSON types."""
    result: dict[str, Any] = {"bench": "metaworld", "repeats": repeats, "machine": machine(), "environments": {}}
    result["machine"]["metaworld"] = version("metaworld")
    for name in ENVIRONMENTS:
        with Waiting(f"{name}: measurement") as waiting:
            measured = measure_environment(name, sizes, repeats, waiting.progress)
        _show(name, measured)
        result["environments"][name] = measured
    return result


def measure_environment(
    name: str, sizes: Sizes, repeats: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Steps per second of all contenders on one environment, and our ratio to each."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (sizes.num_steps, sizes.num_envs, 4)).astype(np.float32)
    with ExitStack() as stack:
        # The peer's processes are forked before this one has threads.
        peer = make_peer(name, sizes.num_envs)
        stack.callback(peer.close)
        ours: dict[str, TaskVectorEnv] = {}
        for label, option in (("faster step", ""), ("package step", "+package-step")):
            benchmark = metaworld_benchmark(f"ml1-{name}{option}")
            tasks = benchmark.train.sample(sizes.num_envs, np.random.default_rng(0))
            env = benchmark.family.make_env(sizes.num_envs)
            assert isinstance(env, TaskVectorEnv)
            env.set_tasks(tasks)
            stack.callback(env.close)
            ours[label] = env
        alone = PackageAlone(name, actions)
        stack.callback(alone.close)
        physics = Physics(tasks, actions)
        stack.callback(physics.close)
        contenders: dict[str, Callable[[], float]] = {
            "faster step": lambda: _step_ours(ours["faster step"], actions),
            "package step": lambda: _step_ours(ours["package step"], actions),
            "package alone": alone.run,
            "async": lambda: _step_peer(peer, actions),
            "physics": physics.run,
        }
        for run in contenders.values():
            run()
        physics.check()
        speeds = interleave(contenders, repeats, progress)
    return {
        "num_envs": sizes.num_envs,
        "num_steps": sizes.num_steps,
        "steps_per_s": {label: median(values) for label, values in speeds.items()},
        "over_async": {label: ratio(speeds[label], speeds["async"]) for label in speeds if label != "async"},
        "over_physics": {label: ratio(speeds[label], speeds["physics"]) for label in ours},
    }


def make_peer(name: str, num_envs: int) -> VectorEnv[Any, Any, Any]:
    """The package's environments of one class, one process each."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside torch's threads; the processes never use torch.
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        env = gymnasium.make_vec(
            "Meta-World/ML1-test",
            env_name=f"{name}-v3",
            vector_strategy="async",
            seed=0,
            meta_batch_size=num_envs,
            total_tasks_per_cls=40,
        )
    env.call("toggle_sample_tasks_on_reset", False)  # type: ignore[attr-defined]
    env.call("toggle_terminate_on_success", False)  # type: ignore[attr-defined]
    env.call("sample_tasks")  # type: ignore[attr-defined]
    return env


class PackageAlone:
    """The package's environments of one class, stepped in loops by one process per core.

    Args:
        name: Name of the environment, e.g. "reach".
        actions: Actions of the episodes, [time, env, act].
    """

    def __init__(self, name: str, actions: np.ndarray) -> None:
        self._steps: int = actions.shape[0] * actions.shape[1]
        spawn = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        for number in range(usable_cores()):
            ours, theirs = spawn.Pipe()
            share = actions[:, number :: usable_cores()]
            spawn.Process(target=_loop_package, args=(name, share, theirs), daemon=True).start()
            theirs.close()
            self._pipes.append(ours)

    def run(self) -> float:
        """Step through all episodes once and return the steps per second."""
        self._tell(True)  # to reset
        began = time.perf_counter()
        self._tell(True)  # to step
        return self._steps / (time.perf_counter() - began)

    def close(self) -> None:
        """Let the worker processes end."""
        for pipe in self._pipes:
            pipe.send(False)
            pipe.close()

    def _tell(self, message: bool) -> None:
        for pipe in self._pipes:
            pipe.send(message)
        for pipe in self._pipes:
            pipe.recv()


def _loop_package(name: str, actions: np.ndarray, pipe: Connection) -> None:
    """Reset, then step the package's environments at one message each, until a message says to stop."""
    benchmark = metaworld.ML1(f"{name}-v3", seed=0)  # type: ignore[no-untyped-call]
    envs = [benchmark.train_classes[f"{name}-v3"]() for _ in range(actions.shape[1])]
    for env, task in zip(envs, benchmark.train_tasks, strict=False):
        env.set_task(task)
    while pipe.recv():
        for env in envs:
            env.reset()
        pipe.send(True)
        pipe.recv()
        for step in actions:
            for env, action in zip(envs, step, strict=True):
                env.step(action)
        pipe.send(True)


class Physics:
    """The physics of episodes of our environments, and nothing else.

    Args:
        tasks: Tasks of the environments, one each.
        actions: Actions of the episodes, [time, env, act].
    """

    def __init__(self, tasks: Sequence[Task], actions: np.ndarray) -> None:
        self._threads = usable_cores()
        self._pool = ThreadPoolExecutor(self._threads)
        self._episodes = [_Episode(task, actions[:, row]) for row, task in enumerate(tasks)]
        self._steps: int = actions.shape[0] * actions.shape[1]

    def run(self) -> float:
        """Simulate all episodes once and return the steps per second."""
        for episode in self._episodes:
            episode.restore()
        shares = [self._episodes[number :: self._threads] for number in range(self._threads)]
        began = time.perf_counter()
        list(self._pool.map(lambda share: [episode.simulate() for episode in share], shares))
        return self._steps / float(time.perf_counter() - began)

    def check(self) -> None:
        """Raise a RuntimeError unless the last run ended where our episodes did."""
        for episode in self._episodes:
            if not np.array_equal(episode.data.qpos, episode.last_qpos):
                difference = np.abs(episode.data.qpos - episode.last_qpos).max()
                raise RuntimeError(f"the physics does not end where the episode did, but {difference:.3g} away")

    def close(self) -> None:
        """Stop the threads of the pool."""
        self._pool.shutdown()


class _Episode:
    """An episode's controls, with the model and the data to step through them again."""

    def __init__(self, task: Task, actions: np.ndarray) -> None:
        env = new_environment(task.family.partition("/")[2])
        assert isinstance(env, FastStep)
        env.give(np.array(task["rand_vec"]), goal_observed=False)
        env.reset()
        self.model, simulated = copy.copy(env.model), env._named.data
        self.data = mujoco.MjData(self.model)
        self._start = np.zeros(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(env.model, simulated, self._start, _STATE)
        self._frame_skip = env.frame_skip
        self._controls = []
        for action in actions:
            env.step(action)
            self._controls.append((simulated.mocap_pos.copy(), simulated.ctrl.copy()))
        self.last_qpos = simulated.qpos.copy()

    def restore(self) -> None:
        """Go back to the episode's beginning."""
        mujoco.mj_setState(self.model, self.data, self._start, _STATE)

    def simulate(self) -> None:
        """Simulate all steps, each followed by the forward pass that an observation needs."""
        model, data = self.model, self.data
        for mocap, control in self._controls:
            data.mocap_pos[:], data.ctrl[:] = mocap, control
            data.mocap_quat[:] = (1, 0, 1, 0)
            mujoco.mj_step(model, data, nstep=self._frame_skip)
            mujoco.mj_forward(model, data)


def _step_ours(env: TaskVectorEnv, actions: np.ndarray) -> float:
    env.reset(seed=0)
    began = time.perf_counter()
    for action in actions:
        env.advance(action)
    return len(actions) * env.num_envs / (time.perf_counter() - began)


def _step_peer(env: VectorEnv[Any, Any, Any], actions: np.ndarray) -> float:
    env.reset()
    began = time.perf_counter()
    for action in actions:
        env.step(action)
    return len(actions) * env.num_envs / (time.perf_counter() - began)


def _show(name: str, measured: dict[str, Any]) -> None:
    lines = [
        [label, f"{measured['steps_per_s'][key]:,.0f}", *ratio_cells(measured["over_async"].get(key))]
        for key, label in _LABELS.items()
    ]
    title = f"{name}-v3: {measured['num_envs']} environments, {measured['num_steps']} steps each"
    show_table(title, ("contender", "steps/s", "over async", "lowest, highest"), lines)
