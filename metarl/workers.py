"""Workers: the one collector of experience, for training and evaluation.

A worker runs all episodes of its tasks as one vector environment: all in parallel, or, for an actor that learns
from episode to episode, one after the other. The tasks of a batch are split into one share per worker. An executor
collects the shares: in this process, in processes of this machine, or in actors of a Ray cluster. The
batched engines use threads and need no more than this process on one machine.

Every episode and every task's noise is seeded by its place in the batch. The result is the same to the bit for any
number of threads and for any executor; a worker that is lost changes nothing. For another number of workers it is
the same up to rounding: on some processors a row of a matrix product depends in its last bit on where in memory
the batch puts it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from metarl.agent import Actor
from metarl.executors.local_processes import LocalProcesses
from metarl.executors.shares import Executor, MakeEnv, split
from metarl.executors.this_process import ThisProcess
from metarl.runs import parallel
from metarl.runs.cores import usable_cores
from metarl.runs.seeding import episode_seeds, task_seeds
from metarl.tasks import Task, TaskEnv, TaskFamily
from metarl.trajectories import Trajectories

WorkerKind = Literal["local", "processes", "ray"]


@dataclass(frozen=True)
class EnvMaker:
    """Makes the vector environments of a task family for `Workers`; picklable, for worker processes.

    Attributes:
        family: Task family whose environments are made.
        horizon: Steps per episode; None for the family's own.
    """

    family: TaskFamily
    horizon: int | None = None

    def __call__(self, num_envs: int, num_threads: int) -> TaskEnv:
        """A vector environment of so many sub-environments, simulated by so many threads."""
        return self.family.make_env(num_envs, horizon=self.horizon, num_threads=num_threads)


class Workers:
    """Collects episodes of many tasks at once.

    Args:
        make_env: Maker of the vector environments.
        kind: Place of the workers: local for this process, one share after another; processes for
            processes of this machine, or this process if there is one worker; ray for actors of a Ray cluster.
        num_workers: Number of workers, and of shares that the tasks of a batch are split into.
        num_threads: Number of simulation threads of all workers together; by default one per usable core, or one
            per Ray actor.
        timeout_s: Longest time in seconds that a worker may take over one step of its environments; None for no
            limit.
        ray_address: Address of a Ray cluster, or auto for the one of this machine; None starts a local session.

    Raises:
        ValueError: if the workers cannot be had: Ray is not installed, nothing answers at the address, or the
            environments' maker cannot be pickled.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        *,
        kind: WorkerKind = "processes",
        num_workers: int = 1,
        num_threads: int | None = None,
        timeout_s: float | None = 120.0,
        ray_address: str | None = None,
    ) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {num_workers}")
        self.steps_collected = 0
        self._num_shares = num_workers
        threads = usable_cores() if num_threads is None else num_threads
        share = max(1, threads // num_workers)
        self.executor: Executor
        if kind == "ray":
            # Imported here: Ray is an extra.
            from metarl.executors.ray_actors import RayActors  # noqa: PLC0415

            self.executor = RayActors(
                make_env,
                address=ray_address,
                num_workers=num_workers,
                num_threads=1 if num_threads is None else share,
                timeout_s=timeout_s,
                contents=_contents(make_env),
            )
        elif kind == "local" or num_workers == 1:
            self.executor = ThisProcess(make_env, threads)
        else:
            self.executor = LocalProcesses(
                make_env,
                num_workers=num_workers,
                num_threads=share,
                timeout_s=timeout_s,
                contents=_contents(make_env),
            )

    def collect(
        self,
        actor: Actor,
        tasks: Sequence[Task],
        num_episodes: int,
        seed: int,
        *,
        places: Sequence[int] | None = None,
    ) -> Trajectories:
        """Run `num_episodes` episodes of every task: in parallel, or one after the other as one trial.

        Args:
            actor: Actor of all tasks; if adapted, to exactly these tasks. If it is sequential, each entry of
                `tasks` is a trial.
            tasks: Tasks, one per task index.
            num_episodes: Number of episodes per task.
            seed: Seed of all random numbers of this call.
            places: Numbers by which the seed tells the tasks apart; None for their order. The rest of a batch
                gets the same episodes as in the whole if it keeps its places.

        Raises:
            WorkerError: if a worker failed, or was lost again and again; the message names it and its cause.
        """
        if not tasks or num_episodes < 1:
            raise ValueError(f"collect needs tasks and episodes, got {len(tasks)} and {num_episodes}")
        chosen = np.arange(len(tasks)) if places is None else np.asarray(places)
        env_seeds = episode_seeds(seed, int(chosen.max()) + 1, num_episodes)[chosen]
        noise_seeds = task_seeds(seed, int(chosen.max()) + 1)[chosen]
        trajectories = self.executor.collect(split(actor, tasks, env_seeds, noise_seeds, self._num_shares))
        self.steps_collected += trajectories.num_steps
        return trajectories

    def beside(self) -> "Workers | None":
        """The same workers with their own count of steps, for another thread.

        None where they simulate in this process, whose cores and torch's threads they use, or where several
        processes train together, which talk to each other in one order.
        """
        if isinstance(self.executor, ThisProcess) or parallel.count() > 1:
            return None
        others = copy.copy(self)
        others.steps_collected = 0
        return others

    def close(self) -> None:
        """Stop threads and processes; safe to call twice."""
        self.executor.close()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _contents(make_env: MakeEnv) -> str:
    """What workers are given, for messages."""
    if isinstance(make_env, EnvMaker):
        return f"the task family {make_env.family.name!r}"
    return "the maker of environments"
