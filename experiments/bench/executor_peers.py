"""Stable-Baselines3's collector on our environments: PPO's rollouts, one environment to a process."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import SubprocVecEnv

from metarl.envs.single import SingleTaskEnv
from metarl.tasks import TaskDistribution


@dataclass(frozen=True)
class SingleMaker:
    """Makes a plain environment, in the process that steps it; every episode is of a task drawn at random.

    Attributes:
        tasks: Distribution of the tasks.
        horizon: Steps per episode.
    """

    tasks: TaskDistribution
    horizon: int

    def __call__(self) -> SingleTaskEnv:
        """A new environment."""
        return SingleTaskEnv(self.tasks, horizon=self.horizon)


@dataclass(frozen=True)
class Peer:
    """A collector that is not ours.

    Attributes:
        speed: Function that collects once and returns environment steps per second.
        pids: Numbers of its processes.
    """

    speed: Callable[[], float]
    pids: list[int]


@contextlib.contextmanager
def stable_baselines(tasks: TaskDistribution, *, horizon: int, num_steps: int, processes: int) -> Iterator[Peer]:
    """PPO of Stable-Baselines3 with a policy of two layers of 64 units, as ours, which only collects.

    Args:
        tasks: Distribution of the tasks.
        horizon: Steps per episode.
        num_steps: Number of steps of a collection, of all environments together.
        processes: Number of environments, and of processes.
    """
    envs: Any = SubprocVecEnv([SingleMaker(tasks, horizon)] * processes, start_method="forkserver")
    try:
        rounds = max(2, num_steps // processes)
        kwargs = {"net_arch": [64, 64]}
        ppo = PPO("MlpPolicy", envs, n_steps=rounds, batch_size=rounds, policy_kwargs=kwargs, seed=0, device="cpu")
        _, callback = ppo._setup_learn(rounds * processes)
        assert ppo.env is not None

        def speed() -> float:
            began = time.perf_counter()
            ppo.collect_rollouts(ppo.env, callback, ppo.rollout_buffer, rounds)  # type: ignore[arg-type]
            return rounds * processes / (time.perf_counter() - began)

        yield Peer(speed, [process.pid for process in envs.processes])
    finally:
        envs.close()
