"""The experience that PEARL collects: trials of enough steps, and their transitions for the replay."""

import warnings
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import torch

from metarl.agent import Collector, beside
from metarl.agents.pearl.actor import LatentActor
from metarl.executors.divided import DividedCollector
from metarl.learning.adaptation_metrics import adaptation_metrics
from metarl.learning.replay import Transitions, concatenate_transitions
from metarl.runs.pending import Pending
from metarl.runs.seeding import draw_seed
from metarl.tasks import Task
from metarl.trajectories import Trajectories, observation_parts


class Collection(NamedTuple):
    """The trials of one collection, with the number of their context episodes.

    Attributes:
        rounds: Trajectories of each round. If episodes ended early there are several; later ones hold the tasks
            that lacked steps.
        num_context: Number of episodes at the start of each trial that are context.
    """

    rounds: list[Trajectories]
    num_context: int


def collect_whole(
    collector: Collector,
    actor: LatentActor,
    tasks: Sequence[Task],
    rng: np.random.Generator,
    *,
    num_episodes: int,
    horizon: int,
) -> Collection:
    """Trials of the tasks, again and again until each has the steps of episodes that end at the horizon.

    Args:
        collector: Collector that runs the episodes.
        actor: Actor of the trials; the episodes that it reads are context.
        tasks: Tasks of the trials, one trial each.
        rng: Generator that draws the seeds of the trials.
        num_episodes: Number of episodes in a trial.
        horizon: Steps of a full episode.
    """
    together = DividedCollector(collector)
    missing = np.full(len(tasks), num_episodes * horizon)
    rounds = []
    while len(rows := np.flatnonzero(missing > 0)):
        lacking = [tasks[int(row)] for row in rows]
        rounds.append(together.collect(actor, lacking, num_episodes, draw_seed(rng), places=rows.tolist()))
        missing[rows] -= rounds[-1].mask.sum((1, 2)).numpy()
    return Collection(rounds, num_episodes if actor.num_context is None else actor.num_context)


def begin_trials(collector: Collector, collect: Callable[[], Collection]) -> Pending[Collection]:
    """Begin to collect: beside the calling thread if the collector's workers are elsewhere, otherwise at once."""
    is_elsewhere = beside(collector) is not None
    if not is_elsewhere:
        text = (
            "collect_while_updating saves no time with workers in this process or under torchrun; "
            "give --workers processes or ray, and --num-workers 2 or more"
        )
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    trials = Pending(collect)
    trials.begin(beside=is_elsewhere)
    return trials


def as_transitions(trajectories: Trajectories, learned_reward: str | None) -> Transitions:
    """All steps as transitions, [task, episode, time, ...], padding included.

    Args:
        trajectories: Trajectories to convert.
        learned_reward: Name of the info to learn from instead of the reward; None for the reward.

    Raises:
        ValueError: if the environment does not report that info.
        FloatingPointError: if a reward or an observation is not finite, naming the task.
    """
    rewards = trajectories.rewards
    if learned_reward is not None:
        if learned_reward not in trajectories.infos:
            known = ", ".join(sorted(trajectories.infos)) or "none"
            raise ValueError(f"the environment has no info {learned_reward!r}; it has: {known}")
        rewards = trajectories.infos[learned_reward]
    observed = [("an observation", part) for part in observation_parts(trajectories.observations)]
    for name, values in (("a reward", rewards + trajectories.rewards), *observed):
        finite = torch.isfinite(values).flatten(1).all(1)
        if not finite.all():
            index = int((~finite).nonzero()[0])
            raise FloatingPointError(f"{name} of task {index}, {trajectories.tasks[index]}, is not finite")
    return Transitions(
        observations=trajectories.observations,
        actions=trajectories.actions,
        rewards=rewards,
        context_rewards=trajectories.rewards,
        terminated=trajectories.terminated.float(),
        next_observations=trajectories.next_observations(),
    )


def transitions_by_task(collection: Collection, learned_reward: str | None) -> dict[Task, tuple[Transitions, int]]:
    """Every task's transitions, those of its context first, and how many of them are context.

    Args:
        collection: Trials of the tasks.
        learned_reward: Name of the info to learn from instead of the reward; None for the reward.
    """
    contexts: dict[Task, list[Transitions]] = {}
    extras: dict[Task, list[Transitions]] = {}
    for trajectories in collection.rounds:
        transitions = as_transitions(trajectories, learned_reward)
        mask, split = trajectories.mask, collection.num_context
        for row, task in enumerate(trajectories.tasks):
            for parts, episodes in ((contexts, slice(0, split)), (extras, slice(split, None))):
                real = mask[row, episodes]
                steps = transitions.map(itemgetter((row, episodes))).map(itemgetter(real))
                parts.setdefault(task, []).append(steps)
    return {
        task: (concatenate_transitions([*context, *extras[task]]), sum(len(part.rewards) for part in context))
        for task, context in contexts.items()
    }


def return_metrics(collection: Collection, num_prior: int) -> dict[str, float]:
    """Mean returns of the first `num_prior` episodes, acted on the prior, and of the trials' last episodes."""
    first = collection.rounds[0]
    return adaptation_metrics(first, first, before=slice(num_prior), after=slice(-1, None))
