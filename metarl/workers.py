"""Workers: the one collector of experience, for training and evaluation.

A worker runs all episodes of its tasks as one vector environment: all in parallel, or, for an actor that learns
from episode to episode, one after the other. With `num_workers` above one, tasks are sharded over spawned
processes, each with its own environment and a share of the threads; the batched engines need none of this on one
machine. Every episode and every task's noise is seeded by its place in the batch, so the result is the same for
any number of threads, to the bit, and of workers, up to rounding: on some processors a row of a matrix product
depends in its last bit on where in memory the batch puts it.
"""

import contextlib
import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Actor, Outcome
from metarl.observations import Arrays, as_arrays, map_parts, put
from metarl.runs.cores import WorkerError, usable_cores
from metarl.runs.seeding import episode_seeds, task_seeds
from metarl.tasks import Task, TaskEnv, TaskFamily, Transition
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
        make_env: makes the vector environments, one per batch size that is asked for.
        num_workers: 1 simulates in this process; more shards the tasks over spawned processes.
        num_threads: simulation threads of all workers together; one per usable core by default.
    """

    def __init__(self, make_env: MakeEnv, *, num_workers: int = 1, num_threads: int | None = None) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {num_workers}")
        threads = usable_cores() if num_threads is None else num_threads
        self._local = _Simulator(make_env, threads) if num_workers == 1 else None
        share = max(1, threads // num_workers)
        self.steps_collected = 0
        self._remote = [_Process(i, make_env, share) for i in range(num_workers)] if num_workers > 1 else []

    def collect(self, actor: Actor, tasks: Sequence[Task], num_episodes: int, seed: int) -> Trajectories:
        """Run `num_episodes` episodes of every task: in parallel, or one after the other as one trial.

        Args:
            actor: acts for all tasks; if adapted, to exactly these tasks. If it is sequential, each entry of
                `tasks` is a trial.
            tasks: one per task index.
            num_episodes: per task.
            seed: of everything random in this call.

        Raises:
            WorkerError: if a worker process failed; the message names it and its cause.
        """
        if not tasks or num_episodes < 1:
            raise ValueError(f"collect needs tasks and episodes, got {len(tasks)} and {num_episodes}")
        env_seeds = episode_seeds(seed, len(tasks), num_episodes)
        noise_seeds = task_seeds(seed, len(tasks))
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
                process.send((actor.select(part), list(tasks[part]), env_seeds[part], noise_seeds[part]))
                busy.append(process)
        # All answers are taken before an error is raised: one left behind would be taken for the next call's.
        answers = [process.receive() for process in busy]
        for answer in answers:
            if isinstance(answer, WorkerError):
                raise answer
        return concatenate([answer for answer in answers if isinstance(answer, Trajectories)])

    def close(self) -> None:
        """Stop threads and processes; safe to call twice."""
        if self._local is not None:
            self._local.close()
        for process in self._remote:
            process.close()
        self._remote = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Simulator:
    """Runs the episodes of some tasks in this process."""

    def __init__(self, make_env: MakeEnv, num_threads: int) -> None:
        self._make_env = make_env
        self._num_threads = num_threads
        self._envs: dict[int, TaskEnv] = {}

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
                _run_episode(env, actor, recorder, as_arrays(observations), (num_tasks, num_parallel))
        return recorder.finish()

    def _env(self, num_envs: int) -> TaskEnv:
        if num_envs not in self._envs:
            self._envs[num_envs] = self._make_env(num_envs, self._num_threads)
        return self._envs[num_envs]

    def close(self) -> None:
        for env in self._envs.values():
            env.close()
        self._envs = {}


def _run_episode(
    env: TaskEnv, actor: Actor, recorder: "_Recorder", observations: Arrays, batch: tuple[int, int]
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
        """What step t led to, in the rows that took it."""

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


class _Process:
    """A spawned process that collects what it is sent."""

    def __init__(self, index: int, make_env: MakeEnv, num_threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._index = index
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=_serve, args=(remote, make_env, num_threads), daemon=True)
        self._process.start()
        remote.close()

    def send(self, request: tuple[Any, ...]) -> None:
        # Plain pickles: torch's own reductions would open a shared-memory file for every tensor.
        with contextlib.suppress(OSError):  # a dead process is reported where its answer is awaited
            self._connection.send_bytes(pickle.dumps(request))

    def receive(self) -> Trajectories | WorkerError:
        try:
            answer = pickle.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            self._process.join(timeout=5)
            return WorkerError(f"worker {self._index} died with exit code {self._process.exitcode}")
        if isinstance(answer, str):
            failure = WorkerError(f"worker {self._index} failed: {answer.strip().splitlines()[-1]}")
            failure.add_note(answer)
            return failure
        trajectories: Trajectories = answer
        return trajectories

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it may be gone already
            self._connection.send_bytes(pickle.dumps(None))
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()


def _serve(connection: Connection, make_env: MakeEnv, num_threads: int) -> None:
    """A worker process: collect until told to stop or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all; the parent decides
    torch.set_num_threads(num_threads)
    simulator = _Simulator(make_env, num_threads)
    try:
        while (request := pickle.loads(connection.recv_bytes())) is not None:
            try:
                answer: object = simulator.collect(*request)
            except Exception:
                answer = traceback.format_exc()
            connection.send_bytes(pickle.dumps(answer))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass  # the parent has stopped
    finally:
        simulator.close()
