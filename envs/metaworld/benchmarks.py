"""ML1, ML10, ML25, ML45 and custom splits of Meta-World, by name (Yu et al. 2019, arXiv:1910.10897).

    ml1-ENVIRONMENT     other goals of one environment, e.g. ml1-reach
    ml10, ml25, ml45    other environments
    ml:A,B/C,D          train on environments A and B, test on C and D

Options follow a name: with +goal-observed, as in ml1-reach+goal-observed, the agent observes the goal; +reward-v1
has the older rewards; +package-step steps with the package's own code. Every environment has 50 goals to train on
and 50 others to test on, the same for every run. ML1 tests on other goals of its environment. The others test on
other environments, except that the package's ML25 has basketball in both.

Fifty goals can be learned by heart: the object's position, which is drawn with the goal and observed, reveals the
goal, even if the task is to reach and the object is of no use. An agent then needs no adaptation in training and
shows none in the test. With +fresh-goals every training batch draws new goals; the test goals stay the same.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from metarl.envs.metaworld import DESCRIPTIONS
from metarl.envs.metaworld.family import FAMILY, VECTOR, MetaWorld, environment
from metarl.envs.metaworld.vectors import VECTORS, unknown_environment
from metarl.tasks import Benchmark, FiniteTasks, Task, TaskDistribution

NUM_GOALS = 50

_ML10 = (
    "reach push pick-place door-open drawer-close button-press-topdown peg-insert-side window-open sweep "
    "basketball",
    "drawer-open door-close shelf-place sweep-into lever-pull",
)
_ML25 = (
    "reach push pick-place door-open drawer-open drawer-close button-press-topdown peg-insert-side window-open "
    "window-close coffee-pull pick-out-of-hole disassemble pick-place-wall basketball stick-pull "
    "button-press-wall faucet-open door-lock lever-pull sweep-into faucet-close coffee-button "
    "button-press-topdown-wall dial-turn",
    "basketball door-close shelf-place sweep button-press",
)
_ML45 = (
    "assembly basketball button-press-topdown button-press-topdown-wall button-press button-press-wall "
    "coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-open drawer-close drawer-open "
    "faucet-open faucet-close hammer handle-press-side handle-press handle-pull-side handle-pull lever-pull "
    "pick-place-wall pick-out-of-hole push-back pick-place plate-slide plate-slide-side plate-slide-back "
    "plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push stick-pull push-wall push reach-wall "
    "reach shelf-place sweep-into sweep window-open window-close",
    "bin-picking box-close hand-insert door-lock door-unlock",
)
_SPLITS = {"ml10": _ML10, "ml25": _ML25, "ml45": _ML45}


@dataclass(frozen=True)
class TasksByEnvironment(FiniteTasks):
    """A uniform distribution over environments, and over the tasks of each; both stratified."""

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw tasks: the numbers per environment differ by one at most, and so do those per task of each."""
        groups: dict[str, list[Task]] = {}
        for task in self.tasks:
            groups.setdefault(environment(task), []).append(task)
        tasks: list[Task] = []
        for number, count in Counter(_stratified(len(groups), num_tasks, rng).tolist()).items():
            tasks += FiniteTasks(self.family, tuple(list(groups.values())[number])).sample(count, rng)
        return [tasks[i] for i in rng.permutation(len(tasks))]


@dataclass(frozen=True)
class FreshTasks(TaskDistribution):
    """A uniform distribution over environments, stratified, and over all goals of each.

    Attributes:
        family: Family of all tasks.
        environments: Names of the environments, e.g. "reach-v3".
    """

    family: MetaWorld
    environments: tuple[str, ...]

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw tasks: the numbers per environment differ by one at most; goals are drawn independently."""
        return [
            _task(self.environments[number], VECTORS[self.environments[number]].draw(rng))
            for number in _stratified(len(self.environments), num_tasks, rng)
        ]


def metaworld_benchmark(name: str) -> Benchmark:
    """The benchmark with a name such as ml10 or ml1-reach+goal-observed; see the start of this file.

    Raises:
        ValueError: If there is none; the message lists the known names or options.
    """
    plain, *options = name.split("+")
    family = MetaWorld(
        reward_version="v1" if "reward-v1" in options else "v2",
        goal_observed="goal-observed" in options,
        fast_step="package-step" not in options,
    )
    known = {"reward-v1", "goal-observed", "package-step", "fresh-goals"}
    if not known.issuperset(options):
        raise ValueError(f"unknown options in {name!r}; Meta-World's benchmarks take +{', +'.join(sorted(known))}")
    if plain in _SPLITS:
        train, test = (part.split() for part in _SPLITS[plain])
        described = DESCRIPTIONS[plain]
    elif plain.startswith("ml1-"):
        train = test = [plain.removeprefix("ml1-")]
        described = f"50 goals of Meta-World's {train[0]} to train on, 50 others to test on (Yu et al. 2019)"
    elif plain.startswith("ml:") and plain.count("/") == 1:
        train, test = (part.split(",") for part in plain.removeprefix("ml:").split("/"))
        described = f"Meta-World: train on {', '.join(train)}; test on {', '.join(test)}"
    else:
        raise ValueError(f"unknown benchmark {name!r}; Meta-World's are: {', '.join(DESCRIPTIONS)}")
    benchmark = custom_benchmark(train, test, family=family, name=name, description=described)
    if "fresh-goals" not in options:
        return benchmark
    fresh = FreshTasks(family, tuple(_full_names(train)))
    return replace(benchmark, train=fresh, description=f"{described}; trained on any goals but those of the test")


def custom_benchmark(
    train: Sequence[str],
    test: Sequence[str],
    *,
    family: MetaWorld | None = None,
    name: str = "custom",
    description: str = "a custom split of Meta-World",
    num_goals: int = NUM_GOALS,
    seed: int = 0,
) -> Benchmark:
    """A benchmark that trains on tasks of some environments and tests on tasks of others.

    Goals are drawn independently for every environment, and for training and testing. An environment that is in
    both therefore has different goals in each, whatever the seed.

    Args:
        train: Names of the environments to train on, with or without Meta-World's "-v3".
        test: Names of the environments to test on, with or without "-v3".
        family: Family that runs the environments; by default one with rewards v2, hidden goals and the fast step.
        name: Name of the benchmark.
        description: One line about the benchmark for lists.
        num_goals: Number of goals per environment, for training and for testing each.
        seed: Seed of the goals.

    Raises:
        ValueError: If an environment is unknown; the message names the nearest.
    """
    family = family or MetaWorld()
    to_train, to_test = (
        TasksByEnvironment(family, tuple(_tasks(_full_names(names), split, num_goals, seed)))
        for split, names in (("train", train), ("test", test))
    )
    return Benchmark(name, to_train, to_test, shared=False, description=description)


def _stratified(kinds: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of kinds in random order, int [count]; how often each kind occurs differs by one at most."""
    if count < 1:
        raise ValueError(f"expected at least one task to draw, got {count}")
    return np.concatenate([rng.permutation(kinds) for _ in range(-(-count // kinds))])[:count]


def _task(name: str, vector: tuple[float, ...]) -> Task:
    return Task(f"{FAMILY}/{name}", ((VECTOR, vector),))


def _tasks(names: Sequence[str], split: str, num_goals: int, seed: int) -> list[Task]:
    tasks = []
    for name in names:
        rng = np.random.default_rng([seed, zlib.crc32(f"{split} {name}".encode())])
        tasks += [_task(name, VECTORS[name].draw(rng)) for _ in range(num_goals)]
    return tasks


def _full_names(names: Sequence[str]) -> list[str]:
    full = [name if name.endswith("-v3") else f"{name}-v3" for name in names]
    unknown = [short for short, name in zip(names, full, strict=True) if name not in VECTORS]
    if unknown:
        raise ValueError(unknown_environment(unknown[0]))
    if len(set(full)) < len(full):
        raise ValueError(f"an environment must be given once, got {', '.join(names)}")
    return full
