"""What an algorithm fills in: an Actor that acts on many tasks at once, and an Agent that trains it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor

from metarl.tasks import Task
from metarl.trajectories import Trajectories

Experience = TypeVar("Experience")


class Actions(NamedTuple):
    """What an actor does at one time step.

    Attributes:
        env_actions: what the environment gets, [task, episode, act].
        actions: what the policy put out, to be stored, [task, episode, act].
        records: what to store beside them, each [task, episode, ...].
    """

    env_actions: np.ndarray
    actions: Tensor
    records: dict[str, Tensor]


class Actor(Protocol):
    """Acts in all episodes of all tasks at once, and adapts. The same in training and evaluation.

    An actor is picklable, so that worker processes can act with a copy of it.
    """

    def select(self, tasks: slice) -> "Actor":
        """The part of this actor that acts for some of its tasks, or the actor itself if not adapted."""

    def begin_episodes(self, task_seeds: np.ndarray, num_episodes: int) -> None:
        """Start `num_episodes` parallel episodes per task; the seeds [task] are for exploration noise."""

    def act(self, observations: Tensor) -> Actions:
        """Actions at observations [task, episode, obs]."""

    def adapt(self, trajectories: Trajectories) -> "Actor":
        """An actor that has learned from its tasks' trajectories; this one is left as it is."""


class Collector(Protocol):
    """Gathers experience; `metarl.workers.Workers` is one.

    Attributes:
        steps_collected: environment steps simulated so far.
    """

    steps_collected: int

    def collect(self, actor: Actor, tasks: Sequence[Task], num_episodes: int, seed: int) -> Trajectories:
        """Run episodes of every task."""


class Agent(Protocol[Experience]):
    """A meta-learner, as the training loop and the evaluation see it."""

    def actor(self) -> Actor:
        """An actor with the present meta-parameters, not adapted to anything."""

    def collect(self, collector: Collector, tasks: Sequence[Task], rng: np.random.Generator) -> Experience:
        """Everything one update needs, from fresh episodes of the tasks."""

    def update(self, experience: Experience) -> dict[str, float]:
        """One outer step; metrics by name.

        Raises:
            FloatingPointError: if a loss is not finite, naming the task.
        """

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
