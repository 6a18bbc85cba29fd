"""Films of an agent while it trains, which loggers show; without effect on the training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.agent import Agent
from metarl.envs.single import SingleTaskEnv
from metarl.experiments.video import FilmSettings, encode_gif, film_tasks
from metarl.loop import Progress, Report
from metarl.runs.loggers import Logger
from metarl.tasks import Task, TaskDistribution

NAME = "video/adaptation"
"""Name of the films in loggers."""
_MOST_PICTURES = 100
_WIDEST = 720  # pixels


def with_films(
    report: Report,
    agent: Agent[Any],
    tasks: TaskDistribution,
    task: Task,
    *,
    every: int,
    settings: FilmSettings,
    loggers: Sequence[Logger],
) -> Report:
    """A report of training that also logs a film of the agent on one task, before adaptation and after its steps.

    Args:
        report: Report that is made as well, after every iteration.
        agent: Agent in training; left as it is.
        tasks: Distribution of the task's family.
        task: Task to film.
        every: Number of iterations between two films.
        settings: Sizes of the adaptation.
        loggers: Receivers of the films.

    Raises:
        ValueError: if the environment cannot be drawn here; says what is missing.
    """
    check_drawn(tasks, task, settings.horizon)

    def reported(progress: Progress, metrics: Mapping[str, float]) -> None:
        report(progress, metrics)
        if progress.iteration % every == 0:
            _, pictures, fps = film_tasks(agent, tasks, [task], settings)
            small, fps = _smaller(pictures, fps)
            film = encode_gif(small, fps)
            for logger in loggers:
                logger.film(progress.env_steps, NAME, film, (small.shape[1], small.shape[2]))

    return reported


def check_drawn(tasks: TaskDistribution, task: Task, horizon: int | None) -> None:
    """Raise a ValueError unless the environment of a task can be drawn here; says what is missing."""
    env = SingleTaskEnv(tasks, task, horizon=horizon, render_mode="rgb_array")
    try:
        env.reset(seed=0)
        env.render()
    finally:
        env.close()


def _smaller(pictures: np.ndarray, fps: float) -> tuple[np.ndarray, float]:
    """Pictures in a size and number that an event file can take every few iterations, and how many per second."""
    every = -(-len(pictures) // _MOST_PICTURES)
    stride = -(-pictures.shape[2] // _WIDEST)
    return pictures[::every, ::stride, ::stride], fps / every
