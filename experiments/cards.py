"""The card of a trained agent: what it was trained on and for, as JSON, to go with every policy made from it."""

from typing import Any

import numpy as np

from metarl.experiments.configuration import Experiment
from metarl.loop import Progress
from metarl.runs import seeding
from metarl.tasks import Benchmark, Parameter, Task
from metarl.workers import EnvMaker

_NUM_TASKS = 200  # drawn to measure the ranges of training tasks


def run_card(name: str, experiment: Experiment, benchmark: Benchmark, progress: Progress) -> dict[str, Any]:
    """The card of a run's agent.

    Args:
        name: Name of the run.
        experiment: Configuration of the run.
        benchmark: Training and test tasks.
        progress: Amount of training.

    Returns:
        JSON types; the ranges of task parameters are those of training tasks that are drawn here.
    """
    env: Any = EnvMaker(benchmark.family, experiment.horizon)(1, 1)
    try:
        horizon, period_s = env.max_episode_steps, getattr(env, "control_period_s", None)
    finally:
        env.close()
    tasks = benchmark.train.sample(_NUM_TASKS, seeding.streams(experiment.seed)["fresh_tasks"])
    return {
        "run": name,
        "seed": experiment.seed,
        "agent": type(experiment.agent).__name__.removesuffix("Config"),
        "benchmark": benchmark.name,
        "description": benchmark.description,
        "horizon": horizon,
        "control_period_s": period_s,
        "task_parameters": [_trained_range(parameter, tasks) for parameter in benchmark.family.parameters],
        "iterations": progress.iteration,
        "train_env_steps": progress.env_steps,
    }


def _trained_range(parameter: Parameter, tasks: list[Task]) -> dict[str, Any]:
    """Name of a parameter, and the least and greatest of each of its numbers among the tasks that have it."""
    rows = [np.ravel(dict(task.params)[parameter.name]) for task in tasks]
    columns = [[row[place] for row in rows if place < len(row)] for place in range(max(map(len, rows)))]
    return {
        "name": parameter.name,
        "low": [float(min(column)) for column in columns],
        "high": [float(max(column)) for column in columns],
    }
