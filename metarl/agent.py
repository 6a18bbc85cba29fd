"""The interfaces of an algorithm: an Actor acts in many tasks at once, and an Agent trains it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.runs.configs import Configuration
from metarl.tasks import Benchmark, Task, TaskEnv
from metarl.trajectories import Observations, Trajectories

Experience = TypeVar("Experience")


class Actions(NamedTuple):
    """An actor's actions at one time step.

    Attributes:
        env_actions: Actions in the environment's action space, [task, parallel, *shape].
        actions: Actions as the policy put them out, to be stored, [task, parallel, ...].
        records: Numbers to be stored beside them, each [task, parallel, ...].
    """

    env_actions: np.ndarray
    actions: Tensor
    records: dict[str, Tensor]


class Outcome(NamedTuple):
    """Outcome of the actions of one time step; rows of ended episodes hold zeros.

    Attributes:
        observations: Observations after the step, before any reset, each part [task, parallel, *shape].
        rewards: Rewards, [task, parallel].
        terminated: True where the MDP ended, [task, parallel].
        truncated: True where the episode was cut, [task, parallel].
        alive: True where the episode was still running, so that the step took place, [task, parallel].
        infos: Numbers that the environment reported, each [task, parallel].
    """

    observations: Observations
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    alive: Tensor
    infos: dict[str, Tensor]


class Actor(Protocol):
    """Acts in all episodes of all tasks at once, and adapts. The same in training and evaluation.

    An actor is picklable, so that worker processes, and evaluations beside training, can act with a copy of it.

    Attributes:
        sequential: Whether the episodes of a task follow one another as one trial, and the actor adapts while it
            acts; otherwise they run in parallel and it adapts when `adapt` is called.
    """

    sequential: bool

    def select(self, tasks: slice) -> "Actor":
        """The part of this actor that acts for some of its tasks, or the actor itself if not adapted."""

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start on tasks of which nothing is known yet.

        Args:
            task_seeds: Seeds of each task's exploration noise, [task].
            num_parallel: Number of episodes of a task that run at the same time; 1 for a sequential actor.
        """

    def begin_episode(self) -> None:
        """The next episode starts, for all tasks at the same time."""

    def act(self, observations: Observations) -> Actions:
        """Actions at observations, each part [task, parallel, *shape]; those of ended episodes are zero."""

    def observe(self, outcome: Outcome) -> None:
        """Take the outcome of the last actions."""

    def adapt(self, trajectories: Trajectories) -> "Actor":
        """An actor that has learned from its tasks' trajectories; this one is left as it is."""


class Interface(NamedTuple):
    """The spaces that an actor was made for; a policy can be made for it as for an environment.

    Attributes:
        observation_space: Space of the observations that it reads.
        action_space: Space of the actions that environments get from it.
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]

    @property
    def single_observation_space(self) -> spaces.Space[Any]:
        """The observation space, under the name that vector environments have for it."""
        return self.observation_space

    @property
    def single_action_space(self) -> spaces.Space[Any]:
        """The action space, under the name that vector environments have for it."""
        return self.action_space


@runtime_checkable
class Deployable(Protocol):
    """An actor that can act in a single plain Gymnasium environment."""

    @property
    def interface(self) -> Interface:
        """The spaces that it was made for."""

    @property
    def reads_outcomes(self) -> bool:
        """Whether its next action depends on the last step's reward and flags, so that it must observe them."""

    def to_outputs(self, env_actions: np.ndarray) -> Tensor:
        """The policy's own form of environment actions [..., *shape], as `Trajectories.actions` holds it."""


@runtime_checkable
class ActsDeterministically(Protocol):
    """An actor that can act without sampling."""

    def deterministic(self) -> Actor:
        """The same actor, which takes the mode of its distribution instead of a sample."""


class SavedActor(NamedTuple):
    """The contents of an adapted actor as plain data, which a file can hold.

    Attributes:
        settings: Configuration of the networks and whatever else is no tensor, as JSON types.
        tensors: Weights and whatever the actor has learned of its task, by name.
    """

    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@runtime_checkable
class SavableActor(Protocol):
    """A deployable actor that can be saved and made again; `AdaptedPolicy.save` and `load_policy` use it.

    Attributes:
        saved_as: Name of this kind of actor in files; a class of your own has a name of its own.
    """

    saved_as: ClassVar[str]

    def saved(self) -> SavedActor:
        """The state that `begin` starts from, for an actor of one task."""

    @classmethod
    def from_saved(cls, interface: Interface, contents: SavedActor) -> Self:
        """The actor that `saved` described, which acts the same to the bit.

        Args:
            interface: Spaces that it was made for.
            contents: Settings and tensors of a file, which may have been tampered with.

        Raises:
            ValueError: if something is missing, unknown or of a wrong shape; one line.
        """


class Collector(Protocol):
    """Gathers experience; `metarl.workers.Workers` is one.

    Attributes:
        steps_collected: Number of environment steps simulated so far.
    """

    steps_collected: int

    def collect(
        self,
        actor: Actor,
        tasks: Sequence[Task],
        num_episodes: int,
        seed: int,
        *,
        places: Sequence[int] | None = None,
    ) -> Trajectories:
        """Trajectories of so many episodes of every task."""


@runtime_checkable
class Elsewhere(Protocol):
    """A collector whose workers may be outside this process, so that several threads can collect with them."""

    def beside(self) -> Collector | None:
        """The same workers with their own count of steps, for another thread; None where threads may not share."""


def beside(collector: Collector) -> Collector | None:
    """The same workers with their own count of steps, for another thread; None where threads may not share."""
    return collector.beside() if isinstance(collector, Elsewhere) else None


class Agent(Protocol[Experience]):
    """A meta-learner, as the training loop and the evaluation see it."""

    def actor(self) -> Actor:
        """An unadapted actor with the present meta-parameters."""

    def collect(self, collector: Collector, tasks: Sequence[Task], rng: np.random.Generator) -> Experience:
        """Everything that one update needs, from fresh episodes of the tasks."""

    def update(self, experience: Experience) -> dict[str, float]:
        """Take one outer step; returns metrics by name.

        Raises:
            FloatingPointError: if a loss is not finite, naming the task.
        """

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


@dataclass(frozen=True)
class AgentSetup:
    """Everything beside its own configuration that an agent is made from.

    Attributes:
        env: An environment of the family with any number of rows, read for its spaces and its time limit only.
        benchmark: Training and test tasks; an agent that stores data per task needs finitely many to train on.
        iterations: Number of outer updates of the whole run, for schedules.
        seed: Seed of the initial weights and of the agent's own random streams.
        device: Device of the networks and of the losses.
    """

    env: TaskEnv
    benchmark: Benchmark
    iterations: int
    seed: int
    device: torch.device


class AgentConfig(Configuration, ABC):
    """The hyperparameters of an algorithm: a frozen dataclass that makes its agent.

    A new algorithm is one file: a dataclass that derives from this, and the agent that `make` returns.
    """

    @abstractmethod
    def make(self, setup: AgentSetup) -> Agent[Any]:
        """The untrained agent; its initial weights follow from the seed.

        Raises:
            ValueError: if the agent cannot act in these spaces or learn from these tasks; says what it needs.
        """


@runtime_checkable
class KeepsData(Protocol):
    """An agent that stores more than a checkpoint should hold, in a file of its own."""

    def data_summary(self) -> str:
        """Sizes of the stored data and the memory that they take when full, in one line."""

    def save_data(self, folder: Path) -> None:
        """Write what is new into a run folder, before the checkpoint that `state_dict` goes to."""

    def load_data(self, folder: Path) -> None:
        """Read the data that the state of `load_state_dict` belongs to; needed to train on, not to act.

        Raises:
            CheckpointError: if they cannot be read.
        """
