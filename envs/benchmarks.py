"""The benchmarks by name: which tasks to train on, which to test on, and where they come from."""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metarl.envs.dynamics.benchmarks import dynamics_benchmark, dynamics_names
from metarl.envs.dynamics.files import file_benchmark, is_family_file
from metarl.envs.dynamics.rewards import Reward
from metarl.envs.mujoco.families import (
    AntDir,
    AntDir2D,
    AntGoal,
    AntGoalSquare,
    HalfCheetahDir,
    HalfCheetahVel,
    HumanoidDir,
)
from metarl.envs.toy.bandits import BanditFamily, BernoulliBandit, GaussianBandit
from metarl.envs.toy.gridnavi import GOALS, GridNavi
from metarl.envs.toy.point import Point, PointUniformStart, SparsePoint, SparsePoint100
from metarl.envs.toy.tabular import RandomMdps
from metarl.envs.toy.tmaze import TMaze
from metarl.tasks import Benchmark, FiniteTasks, Task, TaskDistribution, TaskFamily, Value

Draw = Callable[[np.random.Generator], Value]


@dataclass(frozen=True)
class ContinuousTasks(TaskDistribution):
    """Tasks with one parameter drawn independently from a continuous distribution.

    Train and test draw from the same distribution with independent generators, as in the literature; two
    draws coincide with probability zero.
    """

    family: TaskFamily
    parameter: str
    draw: Draw

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw tasks that are independent of each other."""
        return [Task(self.family.name, ((self.parameter, self.draw(rng)),)) for _ in range(num_tasks)]


def make_benchmark(name: str, reward: Reward | None = None) -> Benchmark:
    """The benchmark of a name, or of the path of a family file, which ends in .yaml or .yml.

    Args:
        name: Name or path.
        reward: Reward of a step instead of that of the family file; None for the file's.

    Raises:
        ValueError: if there is none; the message names those that exist.
    """
    if is_family_file(name):
        return file_benchmark(name, reward=reward)
    if reward is not None:
        raise ValueError(f"a reward of your own needs a YAML family as the benchmark, got {name}")
    if name.startswith("ml"):  # imported when it is needed: a simulator of its own
        metaworld = importlib.import_module("metarl.envs.metaworld.benchmarks")
        benchmark: Benchmark = metaworld.metaworld_benchmark(name)
        return benchmark
    if name.startswith(("minigrid-", "babyai-")):  # likewise
        minigrid = importlib.import_module("metarl.envs.minigrid.benchmarks")
        layouts: Benchmark = minigrid.minigrid_benchmark(name)
        return layouts
    if name.startswith("tmaze-"):
        return _tmaze(name)
    if name not in _MAKERS:
        patterns = (
            "tmaze-LENGTH, minigrid-ENVIRONMENT, babyai-ENVIRONMENT, Meta-World's ml1-ENVIRONMENT, ml10, ml25, "
            "ml45, and FILE.yaml"
        )
        known = f"{', '.join(sorted(_MAKERS))}, {patterns}"
        raise ValueError(f"unknown benchmark {name!r}; known: {known}")
    return _MAKERS[name](name)


def benchmark_names() -> list[str]:
    """The names that `make_benchmark` knows, sorted, without those of Meta-World."""
    return sorted(_MAKERS)


def _continuous(family: TaskFamily, parameter: str, draw: Draw, description: str) -> Callable[[str], Benchmark]:
    tasks = ContinuousTasks(family, parameter, draw)
    return lambda name: Benchmark(name, tasks, tasks, shared=False, description=description)


def _two(
    family: TaskFamily, parameter: str, values: tuple[float, float], description: str
) -> Callable[[str], Benchmark]:
    tasks = FiniteTasks(family, tuple(Task(family.name, ((parameter, value),)) for value in values))
    return lambda name: Benchmark(name, tasks, tasks, shared=True, description=description)


def _semicircle(name: str) -> Benchmark:
    """100 goals evenly on a semicircle of radius 1, 80 to train on and 20 to test on."""
    family = SparsePoint()
    order = np.random.default_rng(1337).permutation(100)  # one split for everyone, whatever a run's seed
    angles = np.linspace(0.0, math.pi, 100)[order]
    tasks = tuple(Task(family.name, (("goal", (math.cos(a), math.sin(a))),)) for a in angles)
    return Benchmark(
        name,
        FiniteTasks(family, tasks[:80]),
        FiniteTasks(family, tasks[80:]),
        shared=False,
        description="goals on a semicircle of radius 1, 20 steps (Rakelly et al. 2019); see sparse-point-100",
    )


def _bandit(family: BanditFamily, description: str) -> Callable[[str], Benchmark]:
    arms = family.parameters[0].name
    return _continuous(family, arms, lambda rng: tuple(rng.random(family.num_arms).tolist()), description)


def _gridnavi(name: str) -> Benchmark:
    """Every goal cell to train and to test on, as in the literature."""
    family = GridNavi()
    goals = FiniteTasks(family, tuple(Task(family.name, (("goal", goal),)) for goal in GOALS))
    return Benchmark(
        name, goals, goals, shared=True, description="one of 21 goal cells of a 5 x 5 grid (Zintgraf et al. 2020)"
    )


def _tmaze(name: str) -> Benchmark:
    """Both ways to train and to test on: what differs from episode to episode is the sign at the start."""
    length = name.removeprefix("tmaze-")
    if not (length.isascii() and length.isdigit() and len(length) <= 9):
        raise ValueError(f"expected a T-maze with its length, such as tmaze-100, got {name!r}")
    family = TMaze(int(length))
    ways = FiniteTasks(family, tuple(Task(family.name, (("way", way),)) for way in (-1.0, 1.0)))
    description = f"remember a sign along a corridor of {int(length)} steps (Bakker 2001, Ni et al. 2023)"
    return Benchmark(name, ways, ways, shared=True, description=description)


def _mdps(name: str) -> Benchmark:
    mdps = RandomMdps()
    return Benchmark(
        name, mdps, mdps, shared=False, description="random MDPs of 10 states and 5 actions (Duan et al. 2016)"
    )


def _half_circle(rng: np.random.Generator) -> Value:
    angle = rng.uniform(0.0, math.pi)
    return (math.cos(angle), math.sin(angle))


def _disk_goal(rng: np.random.Generator) -> Value:
    angle, radius = rng.uniform(0.0, 2 * math.pi), 3.0 * math.sqrt(rng.uniform())
    return (radius * math.cos(angle), radius * math.sin(angle))


def _square(extent: float) -> Draw:
    return lambda rng: tuple(float(x) for x in rng.uniform(-extent, extent, 2))


def _uniform(low: float, high: float) -> Draw:
    return lambda rng: float(rng.uniform(low, high))


_BANDIT_ARMS = (2, 5, 10, 50)
_BANDITS: dict[str, Callable[[str], Benchmark]] = {
    f"{kind}-k{arms}": _bandit(family(arms), f"{arms} arms, {what} uniform in [0, 1] (Duan et al. 2016)")
    for kind, family, what in (
        ("bernoulli-bandit", BernoulliBandit, "probabilities"),
        ("gaussian-bandit", GaussianBandit, "means"),
    )
    for arms in _BANDIT_ARMS
}

_MAKERS: dict[str, Callable[[str], Benchmark]] = {
    **_BANDITS,
    **dict.fromkeys(dynamics_names(), dynamics_benchmark),
    "tabular-mdp": _mdps,
    "gridnavi": _gridnavi,
    "tmaze-100": _tmaze,
    "point": _continuous(
        Point(), "goal", _square(0.5), "goal in [-0.5, 0.5]^2, reward -distance (Finn et al. 2017)"
    ),
    "point-uniform-start": _continuous(
        PointUniformStart(), "goal", _square(1.0), "goal and start in [-1, 1]^2, 20 steps (Rakelly et al. 2019)"
    ),
    "sparse-point": _semicircle,
    "half-cheetah-dir": _two(
        HalfCheetahDir(), "direction", (-1.0, 1.0), "run forward or backward, 100 steps (Rothfuss et al. 2019)"
    ),
    "half-cheetah-vel": _continuous(
        HalfCheetahVel(),
        "velocity",
        _uniform(0.0, 3.0),
        "target speed in [0, 3] m/s (Rothfuss 2019, Rakelly 2019, Zintgraf 2020); see half-cheetah-vel-2",
    ),
    "half-cheetah-vel-2": _continuous(
        HalfCheetahVel(), "velocity", _uniform(0.0, 2.0), "target speed in [0, 2] m/s (Finn et al. 2017)"
    ),
    "ant-dir": _two(
        AntDir(),
        "direction",
        (-1.0, 1.0),
        "walk forward or backward, 200 steps (Rothfuss et al. 2019); see ant-dir-2d",
    ),
    "ant-dir-2d": _continuous(
        AntDir2D(), "heading", _uniform(0.0, 2 * math.pi), "any heading, 200 steps (Rothfuss 2019, Rakelly 2019)"
    ),
    "ant-goal": _continuous(
        AntGoal(), "goal", _disk_goal, "goal in a disk of 3 m (Rothfuss 2019, Rakelly 2019); see ant-goal-square"
    ),
    "humanoid-dir": _continuous(
        HumanoidDir(),
        "heading",
        _uniform(0.0, 2 * math.pi),
        "any heading (Rakelly et al. 2019); see humanoid-dir-2",
    ),
    "humanoid-dir-2": _two(
        HumanoidDir(), "heading", (0.0, math.pi), "walk forward or backward (Rothfuss et al. 2019)"
    ),
    "ant-goal-square": _continuous(
        AntGoalSquare(), "goal", _square(3.0), "goal in [-3, 3]^2, ends when fallen (Finn et al. 2017)"
    ),
    "sparse-point-100": _continuous(
        SparsePoint100(), "goal", _half_circle, "any goal on the semicircle, 100 steps (Zintgraf et al. 2020)"
    ),
}
