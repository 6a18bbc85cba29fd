"""The held-out tasks of a study, and the check that nobody was trained on them."""

from dataclasses import dataclass

from metarl.envs import make_benchmark
from metarl.envs.dynamics import DynamicsTasks, region_of, split
from metarl.experiments.study.configuration import Study
from metarl.runs import seeding
from metarl.tasks import Benchmark, FiniteTasks, Task, TaskFamily

INTERPOLATION, EXTRAPOLATION, GAP, TEST = "interpolation", "extrapolation", "gap", "test"


@dataclass(frozen=True)
class HeldOut:
    """One set of held-out tasks.

    Attributes:
        family: Family that runs the tasks; that of the gap runs them in another simulator.
        tasks: Tasks that nobody trained on.
        meaning: One line on how these tasks differ from those of training.
        exhaustive: True where the tasks are the whole test distribution; intervals are then over repetitions.
    """

    family: TaskFamily
    tasks: tuple[Task, ...]
    meaning: str
    exhaustive: bool = False


def held_out_sets(study: Study) -> dict[str, HeldOut]:
    """The sets of a study, drawn by its seed; the gap has the interpolation tasks.

    Raises:
        ValueError: If the study has a gap but its benchmark no simulator to change, or tasks are trained on.
    """
    benchmark, rng = make_benchmark(study.benchmark), seeding.streams(study.seed)["test_tasks"]
    if not isinstance(benchmark.train, DynamicsTasks):
        if study.gap is not None:
            raise ValueError(f"a simulator gap needs a dynamics benchmark, got {study.benchmark}")
        tasks = tuple(benchmark.test.sample(study.num_tasks, rng))
        whole = benchmark.test.exhausted_by(tasks)
        sets = {TEST: HeldOut(benchmark.family, tasks, "the benchmark's test tasks", whole)}
        check_disjoint(benchmark, sets)
        return sets
    if benchmark.train.region != "train":
        raise ValueError(
            f"{study.benchmark} trains on all of its ranges, so that no combination of values is new; "
            "a study needs a benchmark that holds some out, as half-cheetah-dynamics does"
        )
    family = benchmark.train.family
    distributions = split(family)
    inside = tuple(distributions.interpolation.sample(study.num_tasks, rng))
    outside = tuple(distributions.extrapolation.sample(study.num_tasks, rng))
    sets = {
        INTERPOLATION: HeldOut(family, inside, "new combinations of values inside the training ranges"),
        EXTRAPOLATION: HeldOut(family, outside, "values outside the training ranges"),
    }
    if study.gap is not None:
        other = family.with_simulator(study.gap)
        sets[GAP] = HeldOut(other, inside, "the interpolation tasks in another simulator")
    check_disjoint(benchmark, sets)
    return sets


def check_disjoint(benchmark: Benchmark, sets: dict[str, HeldOut]) -> None:
    """Raise a ValueError if a held-out task can have been trained on, or is in two sets of the same simulator."""
    if benchmark.shared:
        raise ValueError(f"{benchmark.name} tests on its training tasks; a study needs a benchmark that does not")
    sets_of: dict[Task, str] = {}
    for name, held_out in sets.items():
        for task in set(held_out.tasks):
            if _trained_on(benchmark, task):
                raise ValueError(f"{task} of {name} is a training task of {benchmark.name}")
            if name != GAP and sets_of.setdefault(task, name) != name:
                raise ValueError(f"{task} is in {sets_of[task]} and in {name}")


def _trained_on(benchmark: Benchmark, task: Task) -> bool:
    """Whether training can have drawn the task; of a continuous distribution two draws are never the same."""
    if isinstance(benchmark.train, FiniteTasks):
        return task in benchmark.train.tasks
    if isinstance(benchmark.train, DynamicsTasks):
        where, drawn = region_of(benchmark.train.family, task), benchmark.train.region
        return where == drawn or (drawn == "range" and where != "extrapolation")
    return False
