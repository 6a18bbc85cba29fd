"""Hindsight: trials with the rewards that they would have had in another task (Andrychowicz et al. 2017).

Where tasks differ in their rewards alone, a trial that failed in its own task is an example of another one: of a
task that it reached (arXiv:1707.01495), or of any of the distribution (Dorfman et al. 2021, arXiv:2008.02598). A
family that knows the rewards of its other tasks says so by having the methods of `KnowsRewards`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from metarl.observations import Arrays, map_parts
from metarl.tasks import Task, TaskFamily
from metarl.trajectories import Trajectories


class RecordedSteps(NamedTuple):
    """Real steps of one trial in their order, as far as they were recorded.

    Attributes:
        next_observations: Observations after each step, each part [step, *shape].
        rewards: Rewards in the trial's own task, [step].
        infos: Numbers that the environment reported, by name, each [step].
    """

    next_observations: Arrays
    rewards: np.ndarray
    infos: dict[str, np.ndarray]


@runtime_checkable
class KnowsRewards(Protocol):
    """A family whose tasks differ in their rewards alone, and which can tell these from recorded steps."""

    def task_reached(self, steps: RecordedSteps, rng: np.random.Generator) -> Task:
        """A task in which the steps, or one of them, did well."""

    def rewards_in(self, task: Task, steps: RecordedSteps) -> np.ndarray:
        """Rewards that the steps would have had in a task of the family, [step]."""


TaskChooser = Callable[[KnowsRewards, RecordedSteps, np.random.Generator], Task]
"""Chooses the task that a trial is to be relabelled with."""


def relabelled(
    trajectories: Trajectories, family: KnowsRewards, choose: TaskChooser, rng: np.random.Generator
) -> Trajectories:
    """The same steps, each trial with the rewards of another task.

    Args:
        trajectories: Trials in their own tasks.
        family: Family of the tasks.
        choose: Choice of the other task.
        rng: Source of the choices.
    """
    after = map_parts(lambda part: part.numpy(), trajectories.next_observations())
    rewards, tasks = trajectories.rewards.clone(), []
    for trial, mask in enumerate(trajectories.mask):
        real = mask.numpy()
        steps = RecordedSteps(
            map_parts(lambda part, at=(trial, real): part[at[0]][at[1]], after),
            trajectories.rewards[trial][mask].numpy(),
            {name: values[trial][mask].numpy() for name, values in trajectories.infos.items()},
        )
        task = choose(family, steps, rng)
        tasks.append(task)
        rewards[trial][mask] = torch.as_tensor(family.rewards_in(task, steps), dtype=rewards.dtype)
    return replace(trajectories, tasks=tuple(tasks), rewards=rewards)


def check_known(family: TaskFamily) -> KnowsRewards:
    """The family, as one that knows the rewards of its other tasks.

    Raises:
        ValueError: if it does not; says what to do.
    """
    if not isinstance(family, KnowsRewards):
        raise ValueError(
            f"relabelled trials need a family that knows the rewards of its other tasks, and {family.name!r} has "
            "no task_reached and rewards_in; set num_relabelled to 0"
        )
    return family
