"""Workers: the one collector of experience, for training and evaluation.

A worker runs all episodes of its tasks as one vector environment: all in parallel, or, for an actor that learns
from episode to episode, one after the other. With `num_workers` above one, tasks are sharded over spawned
processes, each with its own environment and a share of the threads; the batched engines need none of this on one
machine. Every episode and every task's noise is seeded by its place in the batch, so the result is the same for
any number of threads, to the bit, and of workers, up to rounding: on some processors a row of a matrix product
depends in its last bit on where in memory the batch puts it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Actor, Outcome
from metarl.observations import Arrays, as_arrays, map_parts, put
from metarl.runs.cores import WorkerError, usable_cores
from metarl.runs.processes import Alive, WorkerProcess
from metarl.runs.seeding import episode_seeds, task_seeds
from metarl.tasks import Resizable, Task, TaskEnv, TaskFamily, Transition
from metarl.trajectories import Observations, Trajectories, as_tensors, concatenate, map_observations

MakeEnv = Callable[[int, int], TaskEnv]
"""Makes a vector environment of (number of sub-environments, number of threads); picklable."""


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
        make_env: Maker of the vector environments. A worker has one at a time, of the largest size so far; where
            that cannot take fewer rows, another one is made whenever the size changes.
        num_workers: Number of workers. 1 simulates in this process; more shards the tasks over spawned processes.
        num_threads: Number of simulation threads of all workers together; one per usable core by default.
        timeout_s: Longest time in seconds that a worker process may take over one step of its environments; None
            for no limit.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        *,
        num_workers: int = 1,
        num_threads: int | None = None,
        timeout_s: float | None = 120.0,
    ) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {num_workers}")
        threads = usable_cores() if num_threads is None else num_threads
        self._local = _Simulator(make_env, threads) if num_workers == 1 else None
        share = max(1, threads // num_workers)
        self.steps_collected = 0
        start = _StartCollector(make_env, share)
        self._remote = [
            WorkerProcess(f"worker {i}", start, timeout_s=timeout_s, contents="the maker of environments")
            for i in range(num_workers if num_workers > 1 else 0)
        ]

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
            WorkerError: if a worker process failed; the message names it and its cause.
        """
        if not tasks or num_episodes < 1:
            raise ValueError(f"collect needs tasks and episodes, got {len(tasks)} and {num_episodes}")
        chosen = np.arange(len(tasks)) if places is None else np.asarray(places)
        env_seeds = episode_seeds(seed, int(chosen.max()) + 1, num_episodes)[chosen]
        noise_seeds = task_seeds(seed, int(chosen.max()) + 1)[chosen]
        if self._local is not None:
            trajectories = self._local.collect(actor, tasks, env_seeds, noise_seeds)
        else:
            trajectories = self._collect_remotely(actor, tasks, env_seeds, noise_seeds)
        self.steps_collected += trajectories.num_steps
        return trajectories

    def _collect_remotely(
        self, actor: Actor, tasks: Sequence[Task], env_seeds: np.ndarray, noise_seeds: np.ndarray
    ) -> Trajectories:
        bounds = np.linspace(0, len(tasks), len(self._remote) + 1).astype(int)
        busy = []
        for process, start, stop in zip(self._remote, bounds, bounds[1:], strict=False):
            if start < stop:
                part = slice(int(start), int(stop))
                busy.append((process, (actor.select(part), list(tasks[part]), env_seeds[part], noise_seeds[part])))
        failure: WorkerError | None = None
        answers: list[Trajectories] = []
        for process, request in busy:
            try:
                process.ask(request)
            except WorkerError as error:
                failure = failure or error
        # All answers are awaited before an error is raised, so that no process is left at work.
        for process, _ in busy:
            try:
                answers.append(process.answer())
            except WorkerError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return concatenate(answers)

    def close(self) -> None:
        """Stop threads and processes; safe to call twice."""
        if self._local is not None:
            self._local.close()
        for process in self._remote:
            process.stop()
        deadline = time.monotonic() + 5
        for process in self._remote:
            process.close(deadline)
        self._remote = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Simulator:
    """Runs the episodes of some tasks in this process."""

    def __init__(self, make_env: MakeEnv, num_threads: int, alive: Alive = lambda: None) -> None:
        self._make_env, self._alive = make_env, alive
        self._num_threads = num_threads
        self._made: TaskEnv | None = None

    def collect(
        self, actor: Actor, tasks: Sequence[Task], env_seeds: np.ndarray, noise_seeds: np.ndarray
    ) -> Trajectories:
        num_tasks, num_episodes = env_seeds.shape
        num_rounds = num_episodes if actor.sequential else 1
        num_parallel = num_episodes // num_rounds
        env = self._env(num_tasks * num_parallel)
        env.set_tasks([task for task in tasks for _ in range(num_parallel)])
        # In a trial the later episodes go on with the random stream of the first.
        seeds: list[int] | None = [int(s) for s in env_seeds[:, :num_parallel].flat]
        recorder = _Recorder(tasks, num_parallel, num_rounds, env)
        actor.begin(noise_seeds, num_parallel)
        with torch.no_grad(), _one_torch_thread():
            for episode in range(num_rounds):
                observations, _ = env.reset(seed=seeds)
                seeds = None
                actor.begin_episode()
                recorder.begin_episode(episode)
                _run_episode(
                    env,
                    actor,
                    recorder,
                    as_arrays(observations),
                    (num_tasks, num_parallel),
                    still_alive=self._alive,
                )
        return recorder.finish()

    def _env(self, num_envs: int) -> TaskEnv:
        """The one environment, with so many rows: made anew if it cannot have them."""
        env = self._made
        if env is not None and env.num_envs == num_envs:
            return env
        if isinstance(env, Resizable) and env.resize(num_envs):
            return env
        self.close()
        self._made = self._make_env(num_envs, self._num_threads)
        return self._made

    def close(self) -> None:
        env, self._made = self._made, None
        if env is not None:
            env.close()


def _run_episode(
    env: TaskEnv,
    actor: Actor,
    recorder: "_Recorder",
    observations: Arrays,
    batch: tuple[int, int],
    *,
    still_alive: Alive,
) -> None:
    """One episode of every row, from its first observations on."""
    alive = np.ones(env.num_envs, dtype=np.bool_)
    for t in range(env.max_episode_steps):
        rows = None if alive.all() else np.flatnonzero(alive)
        # An ended episode's observation may be what ended it: not finite.
        visible = observations if rows is None else map_parts(partial(_only, alive), observations)
        shown = _batched(visible, batch)
        chosen = actor.act(shown)
        env_actions = chosen.env_actions.reshape(env.num_envs, *chosen.env_actions.shape[2:])
        transition = env.advance(env_actions if rows is None else env_actions[rows], rows)
        recorder.write_choice(t, shown, chosen)
        outcome = recorder.write_outcome(t, alive, rows, transition)
        actor.observe(outcome)
        still_alive()
        index: slice | np.ndarray = slice(None) if rows is None else rows
        put(observations, index, transition.observations)
        alive[index] = ~(transition.terminated | transition.truncated)
        if not alive.any():
            break
    recorder.end_episode(observations)


def _only(alive: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values [row, ...] of the rows that are alive [row], zeros for the others."""
    mask = alive.reshape(-1, *([1] * (values.ndim - 1)))
    return np.where(mask, values, np.zeros((), values.dtype))


def _batched(arrays: Arrays, batch: tuple[int, int]) -> Observations:
    """Observations of all rows as tensors [task, parallel, ...]."""
    return map_observations(lambda part: part.view(*batch, *part.shape[1:]), as_tensors(arrays))


@contextlib.contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Act on one thread: the products are small, and torch's threads would spin on the cores that simulate."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Recorder:
    """Preallocated arrays [task, parallel, round, time, ...] that fill up as time goes.

    Episodes run in parallel, or one in each round: parallel and round together are the episode axis.
    """

    def __init__(self, tasks: Sequence[Task], num_parallel: int, num_rounds: int, env: TaskEnv) -> None:
        self._tasks = tuple(tasks)
        self._batch = (len(tasks), num_parallel)
        self._shape = (*self._batch, num_rounds, env.max_episode_steps)
        self._round = 0
        self._observations: Observations | None = None
        self._last_observations: Observations | None = None
        self._actions = torch.empty(0)
        self._records: dict[str, Tensor] = {}
        self._infos: dict[str, Tensor] = {}
        self._rewards = torch.zeros(self._shape)
        self._terminated, self._truncated, self._mask = torch.zeros((3, *self._shape), dtype=torch.bool)

    def begin_episode(self, number: int) -> None:
        """Write what follows into this round."""
        self._round = number

    def write_choice(self, t: int, observations: Observations, chosen: Actions) -> None:
        """What was observed and done at step t."""
        if self._observations is None:
            self._observations = map_observations(self._like, observations)
            self._actions = self._like(chosen.actions)
            self._records = {name: self._like(value) for name, value in chosen.records.items()}
        at = (slice(None), slice(None), self._round, t)
        map_observations(lambda store, part: store.__setitem__(at, part), self._observations, observations)
        self._actions[at] = chosen.actions
        for name, value in chosen.records.items():
            self._records[name][at] = value

    def write_outcome(self, t: int, alive: np.ndarray, rows: np.ndarray | None, transition: Transition) -> Outcome:
        """Store the outcome of step t in the rows that took it."""

        def of_all(values: np.ndarray) -> np.ndarray:
            if rows is None:
                return values
            full = np.zeros((len(alive), *values.shape[1:]), dtype=values.dtype)
            full[rows] = values
            return full

        def spread(values: np.ndarray, dtype: type) -> Tensor:
            full = of_all(values.astype(dtype))
            return torch.from_numpy(full).view(*self._batch, *values.shape[1:])

        outcome = Outcome(
            observations=_batched(map_parts(of_all, transition.observations), self._batch),
            rewards=spread(transition.rewards, np.float32),
            terminated=spread(transition.terminated, np.bool_),
            truncated=spread(transition.truncated, np.bool_),
            alive=torch.from_numpy(alive.copy()).view(self._batch),
            infos={name: spread(values, np.float32) for name, values in transition.infos.items()},
        )
        at = (slice(None), slice(None), self._round, t)
        self._rewards[at] = outcome.rewards
        self._terminated[at] = outcome.terminated
        self._truncated[at] = outcome.truncated
        self._mask[at] = outcome.alive
        for name, value in outcome.infos.items():
            if name not in self._infos:
                self._infos[name] = torch.zeros(self._shape)
            self._infos[name][at] = value
        return outcome

    def end_episode(self, last_observations: Arrays) -> None:
        """The observations after the last step of every row."""
        last = _batched(last_observations, self._batch)
        if self._last_observations is None:
            self._last_observations = map_observations(self._like_last, last)
        at = (slice(None), slice(None), self._round)
        map_observations(lambda store, part: store.__setitem__(at, part), self._last_observations, last)

    def finish(self) -> Trajectories:
        """All that was written."""
        assert self._observations is not None
        assert self._last_observations is not None
        return Trajectories(
            tasks=self._tasks,
            observations=map_observations(_join_rounds, self._observations),
            actions=self._actions.flatten(1, 2),
            rewards=self._rewards.flatten(1, 2),
            terminated=self._terminated.flatten(1, 2),
            truncated=self._truncated.flatten(1, 2),
            mask=self._mask.flatten(1, 2),
            last_observations=map_observations(_join_rounds, self._last_observations),
            records={name: value.flatten(1, 2) for name, value in self._records.items()},
            infos={name: value.flatten(1, 2) for name, value in self._infos.items()},
        )

    def _like(self, step: Tensor) -> Tensor:
        return torch.zeros(*self._shape, *step.shape[2:], dtype=step.dtype)

    def _like_last(self, last: Tensor) -> Tensor:
        return torch.zeros(*self._shape[:3], *last.shape[2:], dtype=last.dtype)


def _join_rounds(values: Tensor) -> Tensor:
    """Parallel episodes and rounds as one episode axis."""
    return values.flatten(1, 2)


@dataclass(frozen=True)
class _StartCollector:
    """Makes the simulator of a worker process, in that process.

    Attributes:
        make_env: Maker of the vector environments.
        num_threads: Number of threads that simulate and compute.
    """

    make_env: MakeEnv
    num_threads: int

    def __call__(self, alive: Alive) -> "_Collector":
        torch.set_num_threads(self.num_threads)
        return _Collector(_Simulator(self.make_env, self.num_threads, alive))


class _Collector:
    """What answers in a worker process: it collects what it is asked for."""

    def __init__(self, simulator: _Simulator) -> None:
        self._simulator = simulator

    def answer(self, request: tuple[Actor, Sequence[Task], np.ndarray, np.ndarray]) -> Trajectories:
        return self._simulator.collect(*request)

    def close(self) -> None:
        self._simulator.close()
