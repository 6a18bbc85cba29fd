"""The cost of dynamics that differ between tasks: steps per second of CPU time, and the time to change tasks.

Five contenders step the half-cheetah with the same random actions, all environments at once:

    plain       `RunForward`: no dynamics randomised, one model for all environments
    one model   the dynamics family, one task: its control loop, still one model
    batch       the dynamics family, one model for all episodes of a task, as in training
    copies      the dynamics family, as many models as environments with the same numbers in them: the same
                physics as one model, so that the ratio is what the memory of many models costs
    different   the dynamics family, a task and so a model of its own for every environment

The time that `set_tasks` takes for a batch of fresh tasks is measured too. Time is that of the processor, summed
over all threads: other work on a shared machine disturbs wall-clock time by more than the contenders differ.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from metarl.envs.dynamics import DynamicsFamily, DynamicsTasks, dynamics_family
from metarl.envs.mujoco.families import RunForward
from metarl.envs.mujoco.locomotion import LocomotionEnv
from metarl.envs.mujoco.robots import HALF_CHEETAH
from metarl.experiments.bench.timing import interleave, machine, ratio, ratio_cells
from metarl.experiments.console import Waiting, say, show_table
from metarl.tasks import Task

BENCHMARK = "half-cheetah-mass-friction"
_LABELS = {
    "plain": "nothing randomised, one model",
    "one": "dynamics family, one task",
    "batch": "dynamics family, a meta-batch of tasks",
    "copies": "dynamics family, a copy of that model per environment",
    "different": "dynamics family, a task per environment",
}


@dataclass(frozen=True)
class DynamicsSizes:
    """Sizes of the simulation in one measurement.

    Attributes:
        num_envs: Number of environments that step at once.
        num_steps: Steps of each environment in one measurement.
        num_tasks: Number of tasks in the batch whose tasks change.
        num_episodes: Number of environments per task of that batch.
    """

    num_envs: int = 800
    num_steps: int = 20
    num_tasks: int = 40
    num_episodes: int = 20


def bench(repeats: int, sizes: DynamicsSizes = DynamicsSizes()) -> dict[str, Any]:
    """Measure all contenders, show a table and return the same as JSON types."""
    family = dynamics_family(BENCHMARK)
    envs = make_contenders(family, sizes)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (sizes.num_steps, sizes.num_envs, 6)).astype(np.float32)
    contenders: dict[str, Callable[[], float]] = {name: _speed(env, actions) for name, env in envs.items()}
    with Waiting(f"{BENCHMARK}: measurement") as waiting:
        for run in contenders.values():
            run()  # the first pass of a contender warms it up
        speeds = interleave(contenders, repeats, waiting.progress)
    for env in envs.values():
        env.close()
    changes = change_times(family, sizes, repeats)
    result = {
        "bench": "dynamics",
        "repeats": repeats,
        "machine": machine(),
        "environments": sizes.num_envs,
        "models": {
            "plain": 1,
            "one": 1,
            "batch": min(sizes.num_tasks, sizes.num_envs),
            "copies": sizes.num_envs,
            "different": sizes.num_envs,
        },
        "steps_per_cpu_s": {name: median(values) for name, values in speeds.items()},
        "over_one": {name: ratio(values, speeds["one"]) for name, values in speeds.items() if name != "one"},
        "set_tasks_cpu_ms": {"median": median(changes), "low": min(changes), "high": max(changes)},
    }
    _show(result, sizes)
    return result


def make_contenders(family: DynamicsFamily, sizes: DynamicsSizes) -> dict[str, LocomotionEnv]:
    """The environments, with their tasks set."""
    plain = RunForward(HALF_CHEETAH)
    nominal = Task(family.name, tuple((p.name, (1.0,) * p.size if p.size else 1.0) for p in family.parameters))
    tasks = DynamicsTasks(family).sample(sizes.num_envs, np.random.default_rng(0))
    envs: dict[str, LocomotionEnv] = {"plain": plain.make_env(sizes.num_envs)}
    envs |= {name: family.make_env(sizes.num_envs) for name in ("one", "batch", "copies", "different")}
    envs["plain"].set_tasks([Task(plain.name, ())] * sizes.num_envs)
    for name in ("one", "copies"):
        envs[name].set_tasks([nominal] * sizes.num_envs)
    model = envs["copies"].physics.model_of(0)
    envs["copies"].physics.set_models([copy.copy(model) for _ in range(sizes.num_envs)])
    envs["different"].set_tasks(tasks)
    envs["batch"].set_tasks([tasks[row * sizes.num_tasks // sizes.num_envs] for row in range(sizes.num_envs)])
    return envs


def change_times(family: DynamicsFamily, sizes: DynamicsSizes, repeats: int) -> list[float]:
    """Milliseconds of CPU time of `set_tasks` with a batch of fresh tasks, the first time left out."""
    env = family.make_env(sizes.num_tasks * sizes.num_episodes)
    rng = np.random.default_rng(1)
    times = []
    for _ in range(repeats + 1):
        tasks = DynamicsTasks(family).sample(sizes.num_tasks, rng)
        batch = [task for task in tasks for _ in range(sizes.num_episodes)]
        began = time.process_time()
        env.set_tasks(batch)
        times.append(1000 * (time.process_time() - began))
    env.close()
    return times[1:]


def _speed(env: LocomotionEnv, actions: np.ndarray) -> Callable[[], float]:
    """Environment steps per second of CPU time, from a reset with the same seeds."""

    def speed() -> float:
        env.reset(seed=0)
        began = time.process_time()
        for action in actions:
            env.advance(action)
        return float(actions.shape[0] * actions.shape[1]) / (time.process_time() - began)

    return speed


def _show(result: dict[str, Any], sizes: DynamicsSizes) -> None:
    lines = []
    for name, label in _LABELS.items():
        speed, models = f"{result['steps_per_cpu_s'][name]:,.0f}", f"{result['models'][name]:,}"
        lines.append([label, models, speed, *ratio_cells(result["over_one"].get(name))])
    columns = ["contender", "models", "steps per CPU second", "over one task", "lowest, highest"]
    show_table(f"{BENCHMARK}: {sizes.num_envs} environments", columns, lines)
    low, middle, high = (result["set_tasks_cpu_ms"][name] for name in ("low", "median", "high"))
    batch = f"{sizes.num_tasks} tasks x {sizes.num_episodes} environments"
    say(f"a batch of {batch} takes {middle:.1f} ms of CPU time to change [{low:.1f}, {high:.1f}]")
