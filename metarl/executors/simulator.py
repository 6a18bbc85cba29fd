"""Simulator: runs all episodes of some tasks in the process that calls it, as one vector environment."""

import contextlib
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from metarl.agent import Actor
from metarl.executors.recorder import Recorder, batched
from metarl.executors.shares import MakeEnv, Share
from metarl.observations import Arrays, as_arrays, map_parts, put
from metarl.runs.processes import Alive
from metarl.tasks import Resizable, TaskEnv
from metarl.trajectories import Trajectories


class Simulator:
    """Runs the episodes of some tasks in this process.

    It has one environment at a time, of the largest size so far; where that cannot take fewer rows, another one is
    made whenever the size changes. Nothing else lasts from one share to the next.

    Args:
        make_env: Maker of the vector environments.
        num_threads: Number of threads that simulate.
        alive: Function that is called after every step of the environments.
    """

    def __init__(self, make_env: MakeEnv, num_threads: int, alive: Alive = lambda: None) -> None:
        self._make_env, self._alive = make_env, alive
        self._num_threads = num_threads
        self._made: TaskEnv | None = None

    def collect(self, share: Share) -> Trajectories:
        """The episodes of a share."""
        actor, tasks, env_seeds = share.actor, share.tasks, share.env_seeds
        num_tasks, num_episodes = env_seeds.shape
        num_rounds = num_episodes if actor.sequential else 1
        num_parallel = num_episodes // num_rounds
        env = self._env(num_tasks * num_parallel)
        env.set_tasks([task for task in tasks for _ in range(num_parallel)])
        # In a trial the later episodes go on with the random stream of the first.
        seeds: list[int] | None = [int(s) for s in env_seeds[:, :num_parallel].flat]
        recorder = Recorder(tasks, num_parallel, num_rounds, env)
        actor.begin(share.noise_seeds, num_parallel)
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
        """Close the environment; safe to call twice."""
        env, self._made = self._made, None
        if env is not None:
            env.close()


def _run_episode(
    env: TaskEnv,
    actor: Actor,
    recorder: Recorder,
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
        shown = batched(visible, batch)
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


@contextlib.contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Act on one thread: the products are small, and torch's threads would spin on the cores that simulate."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
