"""Shares of a batch, and the executor that collects them.

A share is tasks with everything that their episodes depend on: the actor, which holds its weights, and the seeds.
Whoever collects it keeps nothing between shares, so that a share can be collected again, anywhere on machines of
the same kind, with the same result to the bit.
"""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from metarl.agent import Actor
from metarl.tasks import Task, TaskEnv
from metarl.trajectories import Trajectories

MakeEnv = Callable[[int, int], TaskEnv]
"""Makes a vector environment of (number of sub-environments, number of threads); picklable."""

MOST_LOSSES = 3
"""Number of workers that may be lost over one share before it is not given to another."""


@dataclass(frozen=True)
class Share:
    """Some tasks of a batch, with everything that their episodes depend on.

    Attributes:
        actor: Actor of these tasks.
        tasks: Tasks of the share.
        env_seeds: Seeds of the episodes, [task, episode].
        noise_seeds: Seeds of the actor's noise, [task].
    """

    actor: Actor
    tasks: Sequence[Task]
    env_seeds: np.ndarray
    noise_seeds: np.ndarray


@dataclass
class Traffic:
    """Bytes that went to workers and came from them.

    Attributes:
        sent: Bytes of actors, tasks and seeds.
        received: Bytes of trajectories.
    """

    sent: int = 0
    received: int = 0


class Executor(Protocol):
    """Collects the shares of a batch, somewhere.

    Attributes:
        traffic: Bytes between this process and the workers so far.
    """

    traffic: Traffic

    def collect(self, shares: Sequence[Share]) -> Trajectories:
        """The episodes of all shares, joined in the order of the shares.

        Raises:
            WorkerError: if a worker failed; the message names it and its cause.
        """

    def close(self) -> None:
        """Stop threads, processes and sessions; safe to call twice."""


def split(
    actor: Actor, tasks: Sequence[Task], env_seeds: np.ndarray, noise_seeds: np.ndarray, count: int
) -> list[Share]:
    """The shares of a batch, of equal size up to one task: so many, or one per task if there are fewer tasks."""
    if count == 1:
        return [Share(actor, tasks, env_seeds, noise_seeds)]
    bounds = np.linspace(0, len(tasks), count + 1).astype(int).tolist()
    parts = [slice(start, stop) for start, stop in pairwise(bounds) if start < stop]
    return [Share(actor.select(part), list(tasks[part]), env_seeds[part], noise_seeds[part]) for part in parts]


def pickled(value: object, contents: str) -> bytes:
    """A value as bytes, for another process.

    Raises:
        ValueError: if it cannot be pickled; names it.
    """
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"{contents} must be picklable, its functions at the top of a module: {error}") from error
