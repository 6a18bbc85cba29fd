"""Meta-World's steps per second with random actions: our batch, its peers, and the physics alone.

    batch          all environments as one batch in threads
    package step   our processes, one per core, with the package's own step
    async          gymnasium.make_vec of the package's environments, one process per environment
    EnvPool        the rewrite in C++ (package envpool), if it is installed; its goals are its own random ones
    physics        MuJoCo's steps alone on the package's models, in as many threads as there are cores. It replays
                   the controls of our episodes from the same states, and is checked to end in the same states

All take the same actions from the start of an episode; resets are not measured. Twenty environments are compared
with all; two hundred, and a mixture of classes, with the peers that run them: the batch simulates models without
what only a camera sees, and so can be faster than the physics.
"""

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from statistics import median
from typing import Any

import gymnasium
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
BENCHMARKS = ("reach", "push", "drawer-open", "pick-place", "door-close", "sweep-into", "ml10")
_LABELS = {
    "batch": "metarl, one batch",
    "package step": "metarl, package's step",
    "async": "gymnasium.make_vec, async",
    "envpool": "EnvPool",
    "physics": "physics only",
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the simulation in one measurement.

    Attributes:
        num_envs: Numbers of environments of each contender; the package's processes run the first one alone, which
            must be a divisor of 40.
        num_steps: Steps of each environment.
        benchmarks: Names of the environments, e.g. "reach", or of mixtures, e.g. "ml10".
    """

    num_envs: tuple[int, ...] = (20, 200)
    num_steps: int = 100
    benchmarks: tuple[str, ...] = BENCHMARKS


def bench(repeats: int, sizes: Sizes = Sizes()) -> dict[str, Any]:
    """Measure all contenders on all environments, show a table of each and return the same as JSON types."""
    result: dict[str, Any] = {"bench": "metaworld", "repeats": repeats, "machine": machine(), "environments": {}}
    for package in ("metaworld", "envpool"):
        if find_spec(package) is not None:
            result["machine"][package] = version(package)
    for name in sizes.benchmarks:
        for number, num_envs in enumerate(sizes.num_envs):
            with Waiting(f"{name}, {num_envs} environments: measurement") as waiting:
                measured = measure(
                    name, num_envs, sizes.num_steps, repeats, waiting.progress, processes=number == 0
                )
            _show(name, measured)
            result["environments"][f"{name}, {num_envs}"] = measured
    return result


def measure(
    name: str,
    num_envs: int,
    num_steps: int,
    repeats: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    processes: bool = True,
) -> dict[str, Any]:
    """Steps per second of all contenders on one environment or a mixture, and our ratio to each."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (num_steps, num_envs, 4)).astype(np.float32)
    mixed = name.startswith("ml")
    contenders: dict[str, Callable[[], float]] = {}
    with ExitStack() as stack:
        if processes and not mixed:
            # The peer's processes are forked before this one has threads.
            peer = make_peer(name, num_envs)
            stack.callback(peer.close)
            contenders["async"] = partial(_step_peer, peer, actions)
        for label, option in (("batch", ""), ("package step", "+package-step")):
            if option and not processes:
                continue
            benchmark = metaworld_benchmark(f"{name if mixed else f'ml1-{name}'}{option}")
            tasks = benchmark.train.sample(num_envs, np.random.default_rng(0))
            env = benchmark.family.make_env(num_envs)
            assert isinstance(env, TaskVectorEnv)
            env.set_tasks(tasks)
            stack.callback(env.close)
            contenders[label] = partial(_step_ours, env, actions)
        if not mixed and find_spec("envpool") is not None:
            contenders["envpool"] = partial(_step_peer, make_envpool(name, num_envs), actions)
        physics = Physics(tasks, actions)
        stack.callback(physics.close)
        contenders["physics"] = physics.run
        for run in contenders.values():
            run()
        physics.check()
        speeds = interleave(contenders, repeats, progress)
    return {
        "num_envs": num_envs,
        "num_steps": num_steps,
        "steps_per_s": {label: median(values) for label, values in speeds.items()},
        "batch_over": {label: ratio(speeds["batch"], speeds[label]) for label in speeds if label != "batch"},
    }


def make_envpool(name: str, num_envs: int) -> Any:
    """EnvPool's environments of one class, in as many threads as there are cores."""
    import envpool  # noqa: PLC0415  # one of the peers that need not be installed

    title = "".join(word.capitalize() for word in name.split("-"))
    threads = usable_cores()
    return envpool.make_gymnasium(f"MetaWorld/{title}-v3", num_envs=num_envs, num_threads=threads, seed=0)


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


class Physics:
    """The physics of episodes of our environments, and nothing else.

    Args:
        tasks: Tasks of the environments, one each.
        actions: Actions of the episodes, [time, env, act].
    """

    def __init__(self, tasks: Sequence[Task], actions: np.ndarray) -> None:
        threads = usable_cores()
        self._pool = ThreadPoolExecutor(threads)
        self._episodes = [_Episode(task, actions[:, row]) for row, task in enumerate(tasks)]
        self._steps: int = actions.shape[0] * actions.shape[1]
        self._shares = [self._episodes[number::threads] for number in range(threads)]
        nominal = {episode.name: episode.model for episode in self._episodes}
        self._models = [
            {name: (own := copy.copy(model), mujoco.MjData(own)) for name, model in nominal.items()}
            for _ in self._shares
        ]

    def run(self) -> float:
        """Simulate all episodes once and return the steps per second."""
        began = time.perf_counter()
        list(self._pool.map(self._simulate, self._shares, self._models))
        return self._steps / float(time.perf_counter() - began)

    @staticmethod
    def _simulate(share: list["_Episode"], models: dict[str, tuple[mujoco.MjModel, mujoco.MjData]]) -> None:
        for episode in share:
            episode.simulate(*models[episode.name])

    def check(self) -> None:
        """Raise a RuntimeError unless the last run ended where our episodes did."""
        for episode in self._episodes:
            if not np.array_equal(episode.qpos, episode.last_qpos):
                difference = np.abs(episode.qpos - episode.last_qpos).max()
                raise RuntimeError(f"the physics does not end where the episode did, but {difference:.3g} away")

    def close(self) -> None:
        """Stop the threads of the pool."""
        self._pool.shutdown()


class _Episode:
    """An episode's controls, and what is needed to simulate it again."""

    def __init__(self, task: Task, actions: np.ndarray) -> None:
        self.name = task.family.partition("/")[2]
        env = new_environment(self.name)
        assert isinstance(env, FastStep)
        env.give(np.array(task["rand_vec"]), goal_observed=False)
        env.reset()
        self.model, simulated = env.model, env._named.data
        self._body_pos = self.model.body_pos.copy()
        self._start = np.zeros(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(env.model, simulated, self._start, _STATE)
        self._frame_skip = env.frame_skip
        self._controls = []
        for action in actions:
            env.step(action)
            self._controls.append((simulated.mocap_pos.copy(), simulated.ctrl.copy()))
        self.last_qpos, self.qpos = simulated.qpos.copy(), simulated.qpos.copy()

    def simulate(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Simulate all steps, each followed by the forward pass that an observation needs."""
        model.body_pos[:] = self._body_pos
        mujoco.mj_setState(model, data, self._start, _STATE)
        for mocap, control in self._controls:
            data.mocap_pos[:], data.ctrl[:] = mocap, control
            data.mocap_quat[:] = (1, 0, 1, 0)
            mujoco.mj_step(model, data, nstep=self._frame_skip)
            mujoco.mj_forward(model, data)
        self.qpos = data.qpos.copy()


def _step_ours(env: TaskVectorEnv, actions: np.ndarray) -> float:
    env.reset(seed=0)
    began = time.perf_counter()
    for action in actions:
        env.advance(action)
    return len(actions) * env.num_envs / (time.perf_counter() - began)


def _step_peer(env: Any, actions: np.ndarray) -> float:
    env.reset()
    began = time.perf_counter()
    for action in actions:
        env.step(action)
    steps: int = actions.shape[0] * actions.shape[1]
    return steps / (time.perf_counter() - began)


def _show(name: str, measured: dict[str, Any]) -> None:
    lines = [
        [label, f"{measured['steps_per_s'][key]:,.0f}", *ratio_cells(measured["batch_over"].get(key))]
        for key, label in _LABELS.items()
        if key in measured["steps_per_s"]
    ]
    title = f"{name}: {measured['num_envs']} environments, {measured['num_steps']} steps each"
    show_table(title, ("contender", "steps/s", "batch over it", "lowest, highest"), lines)
