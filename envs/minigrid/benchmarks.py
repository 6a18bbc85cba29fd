"""Benchmarks of MiniGrid's and BabyAI's environments.

minigrid-fourrooms                 a task is a layout, the same in every episode: explore it, then go
minigrid-memorys7+new-layouts      every episode has a new layout: memory within an episode
babyai-gotoredball+mission         the words of what is to be done are observed
minigrid-fourrooms+one-hot         pictures have a plane for every kind, colour and state
"""

from dataclasses import dataclass

import numpy as np

from metarl.envs.minigrid.family import LAYOUT, MOST_LAYOUTS, MiniGrid, environment_named
from metarl.tasks import Benchmark, FiniteTasks, Task, TaskDistribution

_OPTIONS = {"new-layouts", "mission", "one-hot"}
_HELD_OUT = 2**16  # layouts of the test tasks are the numbers below


@dataclass(frozen=True)
class Layouts(TaskDistribution):
    """A uniform distribution over the layouts of an environment whose numbers are in a range.

    Attributes:
        family: Family of the tasks.
        first: Least number of a layout.
        end: Number after the greatest.
    """

    family: MiniGrid
    first: int
    end: int

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw layouts, each independently of the others."""
        numbers = rng.integers(self.first, self.end, num_tasks).tolist()
        return [Task.of(self.family.name, **{LAYOUT: number}) for number in numbers]


def minigrid_benchmark(name: str) -> Benchmark:
    """The benchmark with a name such as minigrid-fourrooms; see the start of this file.

    Raises:
        ValueError: If there is none, with the nearest names or the known options; or the package is missing.
    """
    plain, *options = name.split("+")
    if not _OPTIONS.issuperset(options):
        known = ", +".join(sorted(_OPTIONS))
        raise ValueError(f"unknown options in {name!r}; MiniGrid's benchmarks take +{known}")
    family = MiniGrid(
        environment_named(plain),
        new_layouts="new-layouts" in options,
        mission="mission" in options,
        one_hot="one-hot" in options,
    )
    if family.new_layouts:
        only = FiniteTasks(family, (Task.of(family.name),))
        described = f"{family.environment}, a new layout in every episode (Chevalier-Boisvert et al. 2023)"
        return Benchmark(name, only, only, shared=True, description=described)
    train, test = Layouts(family, _HELD_OUT, MOST_LAYOUTS), Layouts(family, 0, _HELD_OUT)
    described = f"layouts of {family.environment} (Chevalier-Boisvert et al. 2023)"
    return Benchmark(name, train, test, shared=False, description=described)
