"""Entries of an exported policy's card: ranges that were met in training tasks, and measured returns."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from metarl.agent import Actor, Collector
from metarl.deploy.histories import value_range
from metarl.evaluation import adaptation_curve
from metarl.experiments.agent_run import AgentRun
from metarl.experiments.comparison.records import METRICS, read_metrics
from metarl.experiments.configuration import make_workers
from metarl.runs import seeding
from metarl.tasks import Task
from metarl.trajectories import Trajectories


def last_evaluation(run: AgentRun) -> dict[str, float]:
    """The last evaluation that training logged, and the number of environment steps before it; empty if none."""
    path = run.folder / METRICS
    columns = read_metrics(path) if path.exists() else {}
    tested = {name: values for name, values in columns.items() if name.startswith("test/")}
    if not np.isfinite(list(tested.values())).any():
        return {}
    rows = np.flatnonzero(np.any([np.isfinite(values) for values in tested.values()], 0))
    measured = {name: float(values[rows[-1]]) for name, values in tested.items()}
    finite = {name: value for name, value in measured.items() if math.isfinite(value)}
    return {"env_steps": float(columns["env_steps"][rows[-1]]), **finite}


def met_in_training(run: AgentRun, agent: Any, num_tasks: int) -> dict[str, Any]:
    """Ranges of observations and rewards that the trained agent meets in training tasks, and its mean returns.

    Args:
        run: Run of the agent.
        agent: Trained agent; left as it is.
        num_tasks: Number of training tasks to draw.
    """
    tasks = run.benchmark.train.sample(num_tasks, seeding.streams(run.experiment.seed)["fresh_tasks"])
    settings = run.experiment.evaluation
    with make_workers(run.experiment, run.benchmark) as workers:
        ranging = _Ranging(workers)
        curve = adaptation_curve(
            agent.actor(),
            ranging,
            tasks,
            np.random.default_rng(run.experiment.seed),
            num_steps=settings.num_steps,
            num_episodes=settings.num_episodes,
            deterministic=settings.deterministic,
        )
    return {
        "tasks": num_tasks,
        "env_steps": curve.num_steps,
        "returns_by_adaptation_step": [row["return_mean"] for row in curve.summary()],
        **ranging.ranges(),
    }


class _Ranging:
    """Collects, and keeps the least and greatest observations and rewards.

    Args:
        collector: Collector that does the work.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self.steps_collected = 0
        self._bounds: dict[str, np.ndarray] = {}

    def collect(
        self,
        actor: Actor,
        tasks: Sequence[Task],
        num_episodes: int,
        seed: int,
        *,
        places: Sequence[int] | None = None,
    ) -> Trajectories:
        trajectories = self._collector.collect(actor, tasks, num_episodes, seed, places=places)
        self.steps_collected = self._collector.steps_collected
        real, observed = trajectories.mask, trajectories.observations
        parts = observed if isinstance(observed, dict) else {"": observed}
        for name, part in parts.items():
            self._take(f"observation.{name}", part[real].numpy())
        self._take("reward", trajectories.rewards[real].numpy())
        return trajectories

    def _take(self, name: str, values: np.ndarray) -> None:
        before = self._bounds.get(name, values[:0])
        rows = np.concatenate((before, values))
        self._bounds[name] = np.stack((rows.min(0), rows.max(0)))

    def ranges(self) -> dict[str, Any]:
        """The ranges as JSON types; of a whole image one of all its pixels."""
        ranges = {name: value_range(bounds) for name, bounds in self._bounds.items()}
        reward = ranges.pop("reward")
        return {"observations": {name.partition(".")[2]: part for name, part in ranges.items()}, "rewards": reward}
