"""DividedCollector: collects a batch with all processes of a data-parallel training."""

from collections.abc import Sequence

from metarl.agent import Actor, Collector
from metarl.runs import parallel
from metarl.tasks import Task
from metarl.trajectories import Trajectories, from_arrays, to_arrays


class DividedCollector:
    """Has each process collect its share of the tasks and gives all of them the whole; alone it changes nothing.

    Args:
        collector: Collector of this process.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    @property
    def steps_collected(self) -> int:
        """Number of environment steps that this process simulated so far."""
        return self._collector.steps_collected

    @steps_collected.setter
    def steps_collected(self, steps: int) -> None:
        self._collector.steps_collected = steps

    def collect(
        self,
        actor: Actor,
        tasks: Sequence[Task],
        num_episodes: int,
        seed: int,
        *,
        places: Sequence[int] | None = None,
    ) -> Trajectories:
        """Trajectories of so many episodes of every task; see `metarl.workers.Workers.collect`."""
        if parallel.count() == 1:
            return self._collector.collect(actor, tasks, num_episodes, seed, places=places)
        own = parallel.share(len(tasks))
        numbers = range(len(tasks)) if places is None else places
        arrays = None
        if tasks[own]:
            part = actor.select(own)
            arrays = to_arrays(
                self._collector.collect(part, tasks[own], num_episodes, seed, places=list(numbers[own]))
            )
        parts = [part for part in parallel.gathered_objects(arrays) if part is not None]
        return from_arrays(tuple(tasks), parts)
