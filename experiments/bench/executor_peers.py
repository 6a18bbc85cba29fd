"""Collectors of Stable-Baselines3 and of torchrl on our environments, each in a process of its own."""

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
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


class MakePeer(Protocol):
    """Starts a collector whose policy has two layers of 64 units, as ours."""

    def __call__(
        self, tasks: TaskDistribution, *, horizon: int, num_steps: int, processes: int
    ) -> contextlib.AbstractContextManager[Peer]:
        """The collector, which ends with the block.

        Args:
            tasks: Distribution of the tasks.
            horizon: Steps per episode.
            num_steps: Number of steps of a collection, of all environments together.
            processes: Number of environments, and of processes.
        """


@contextlib.contextmanager
def stable_baselines(tasks: TaskDistribution, *, horizon: int, num_steps: int, processes: int) -> Iterator[Peer]:
    """PPO of Stable-Baselines3, which only collects; see `MakePeer`."""
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


@dataclass(frozen=True)
class TorchrlMaker:
    """Makes an environment of torchrl's form, with observations of float32 as its networks need.

    Attributes:
        single: Maker of the plain environment.
    """

    single: SingleMaker

    def __call__(self) -> Any:
        """A new environment."""
        from torchrl.envs import DoubleToFloat, GymWrapper, TransformedEnv  # noqa: PLC0415

        return TransformedEnv(GymWrapper(self.single()), DoubleToFloat())


@contextlib.contextmanager
def torchrl_collector(tasks: TaskDistribution, *, horizon: int, num_steps: int, processes: int) -> Iterator[Peer]:
    """MultiSyncCollector of torchrl; see `MakePeer`."""
    # Imported here: torchrl is an extra.
    from torchrl.collectors import MultiSyncCollector  # noqa: PLC0415
    from torchrl.weight_update import MultiProcessWeightSyncScheme  # noqa: PLC0415

    maker = TorchrlMaker(SingleMaker(tasks, horizon))
    per_batch = max(2, num_steps // processes) * processes
    weights = MultiProcessWeightSyncScheme()  # its default, which nobody else ends before Python does, and hangs
    collector = MultiSyncCollector(
        [maker] * processes,
        _torchrl_policy(maker),
        frames_per_batch=per_batch,
        total_frames=-1,
        num_threads=torch.get_num_threads(),
        weight_sync_schemes={"policy": weights},
    )
    try:
        batches = iter(collector)

        def speed() -> float:
            began = time.perf_counter()
            num_collected = next(batches).numel()
            return float(num_collected / (time.perf_counter() - began))

        speed()  # which starts the processes
        yield Peer(speed, [process.pid for process in collector.procs])
    finally:
        collector.shutdown()
        weights.shutdown()


def _torchrl_policy(maker: TorchrlMaker) -> Any:
    """A Gaussian policy, squashed into the actions' bounds, that records the log-probabilities that PPO needs."""
    from tensordict.nn import NormalParamExtractor, TensorDictModule  # noqa: PLC0415
    from torchrl.modules import MLP, ProbabilisticActor, TanhNormal  # noqa: PLC0415

    env = maker()
    try:
        num_inputs, box = env.observation_spec["observation"].shape[-1], env.action_spec.space
    finally:
        env.close()
    num_outputs = 2 * box.low.shape[-1]
    mlp = MLP(num_inputs, num_outputs, num_cells=[64, 64], activation_class=torch.nn.Tanh)
    moments = TensorDictModule(
        torch.nn.Sequential(mlp, NormalParamExtractor()), in_keys=["observation"], out_keys=["loc", "scale"]
    )
    return ProbabilisticActor(
        moments,
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        distribution_kwargs={"low": box.low, "high": box.high},
        return_log_prob=True,
    )


def peers() -> dict[str, MakePeer]:
    """The collectors that are installed here, by their packages' names."""
    known: dict[str, MakePeer] = {"stable-baselines3": stable_baselines, "torchrl": torchrl_collector}
    return {name: make for name, make in known.items() if importlib.util.find_spec(name.replace("-", "_"))}
