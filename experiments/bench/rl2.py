"""RL2: one pass of PPO over a batch of trials beside sb3-contrib's RecurrentPPO, and the speed of a toy family.

The update is measured on the same 80 trials of 400 steps with HalfCheetah's shapes: inputs, actions, advantages
and returns are the same arrays for all, one epoch in four minibatches, a memory of 256 and heads of 64-64.
RecurrentPPO has only the LSTM, with a second one for the critic by default and one for both as an option; ours is
measured with GRU and LSTM. RecurrentPPO gets each trial as one episode, because it resets its memory between
episodes.
"""

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agents.rl2.rl2 import Rl2, Rl2Config
from metarl.agents.rl2.trial_policy import MemoryKind, TrialPolicyConfig
from metarl.agents.strategies.bandits import Random
from metarl.envs import make_benchmark
from metarl.experiments.bench.timing import interleave, machine, ratio, ratio_cells, seconds_per_call
from metarl.experiments.console import Waiting, say, show_table
from metarl.runs.seeding import torch_generator
from metarl.tasks import Task
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers

_LABELS = {
    "metarl-gru": "metarl, GRU",
    "metarl-lstm": "metarl, LSTM",
    "sb3-contrib": "sb3-contrib RecurrentPPO, LSTM for actor and critic",
    "sb3-contrib-shared": "sb3-contrib RecurrentPPO, one LSTM for both",
}


@dataclass(frozen=True)
class Sizes:
    """The batch of the update, and of the bandits.

    Attributes:
        num_trials: Number of trials in the batch.
        num_steps: Steps of a trial, in two episodes.
        memory_size: Number of hidden units in the memory.
        head_sizes: Hidden layer sizes of the policy's and of the value's network.
        minibatches: Number of minibatches in the epoch.
        num_bandits: Number of bandits that are pulled at the same time.
        num_pulls: Number of pulls of each bandit.
    """

    num_trials: int = 80
    num_steps: int = 400
    memory_size: int = 256
    head_sizes: tuple[int, ...] = (64, 64)
    minibatches: int = 4
    num_bandits: int = 4000
    num_pulls: int = 100


def bench(repeats: int, sizes: Sizes | None = None) -> dict[str, Any]:
    """Measure all contenders, show a table per measurement and return the same as JSON types."""
    sizes = sizes or Sizes()
    result = {"bench": "rl2", "repeats": repeats, "machine": machine()}
    return result | {"update": _measure_update(repeats, sizes), "bandits": _measure_bandits(repeats, sizes)}


def _measure_update(repeats: int, sizes: Sizes) -> dict[str, Any]:
    experience = random_trials(sizes)
    agents = {"metarl-gru": _agent("gru", sizes), "metarl-lstm": _agent("lstm", sizes)}
    updates: dict[str, Callable[[], object]] = {
        name: partial(agent.update, experience) for name, agent in agents.items()
    }
    if importlib.util.find_spec("sb3_contrib") is None:
        say('sb3-contrib is not installed and left out; pip install "metarl-toolkit[bench]"')
    else:
        for shared in (False, True):
            name = "sb3-contrib-shared" if shared else "sb3-contrib"
            updates[name] = _peer_update(agents["metarl-gru"], experience, sizes, shared=shared)
    transitions = sizes.num_trials * sizes.num_steps

    def speed(update: Callable[[], object]) -> float:
        return transitions / seconds_per_call(update)

    for update in updates.values():
        update()  # the first call allocates
    with Waiting("updating, measurement") as waiting:
        contenders = {name: partial(speed, update) for name, update in updates.items()}
        measured = interleave(contenders, repeats, waiting.progress)
    ratios = {name: ratio(measured["metarl-gru"], measured[name]) for name in measured if name.startswith("sb3")}
    lstm = {name: ratio(measured["metarl-lstm"], measured[name]) for name in measured if name.startswith("sb3")}
    rows = [
        [_LABELS[name], f"{median(speeds):,.0f}", *ratio_cells(ratios.get(name)), *ratio_cells(lstm.get(name))]
        for name, speeds in measured.items()
    ]
    columns = ["contender", "transitions/s", "GRU is times as fast", "low, high", "LSTM is", "low, high"]
    title = f"one epoch of PPO, {sizes.num_trials} trials x {sizes.num_steps} steps, memory of {sizes.memory_size}"
    show_table(title, columns, rows)
    return {
        "transitions_per_s": {name: median(speeds) for name, speeds in measured.items()},
        "metarl_gru_times_as_fast": ratios,
        "metarl_lstm_times_as_fast": lstm,
    }


def random_trials(sizes: Sizes) -> Trajectories:
    """Trials of random numbers in HalfCheetah's shapes: an update's cost does not depend on them."""
    generator, shape = torch_generator(0), (sizes.num_trials, 2, sizes.num_steps // 2)
    truncated = torch.zeros(shape, dtype=torch.bool)
    truncated[..., -1] = True

    def normal(*size: int) -> Tensor:
        return torch.randn(*shape, *size, generator=generator)

    return Trajectories(
        tasks=(Task.of("half-cheetah-vel", velocity=1.0),) * sizes.num_trials,
        observations=normal(17),
        actions=normal(6),
        rewards=normal(),
        terminated=torch.zeros(shape, dtype=torch.bool),
        truncated=truncated,
        mask=torch.ones(shape, dtype=torch.bool),
        last_observations=torch.zeros(*shape[:2], 17),
        records={"log_prob": normal() - 6.0, "value": normal()},
        infos={},
    )


def _agent(memory: MemoryKind, sizes: Sizes) -> Rl2:
    env = make_benchmark("half-cheetah-vel").family.make_env(1, horizon=sizes.num_steps // 2, num_threads=0)
    policy = TrialPolicyConfig(memory=memory, memory_size=sizes.memory_size, head_sizes=sizes.head_sizes)
    config = Rl2Config(policy=policy, epochs=1, minibatches=sizes.minibatches, outer_lr=3e-4)
    return Rl2(env, config, iterations=1, seed=0, device=torch.device("cpu"))


class _Shapes(gymnasium.Env[np.ndarray, np.ndarray]):
    """The spaces of an environment for a peer that needs one; it is never stepped."""

    def __init__(self, input_size: int, act_size: int) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (input_size,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (act_size,), np.float32)


def _peer_update(agent: Rl2, experience: Trajectories, sizes: Sizes, *, shared: bool) -> Callable[[], object]:
    """RecurrentPPO's `train` on a buffer that holds our batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sb3_contrib import RecurrentPPO  # noqa: PLC0415 - optional
        from stable_baselines3.common.logger import Logger  # noqa: PLC0415
        from stable_baselines3.common.vec_env import DummyVecEnv  # noqa: PLC0415
    batch = agent.batch(experience)
    time, trials, input_size = batch.inputs.shape
    act_size = batch.trials.actions.shape[-1]
    heads = list(sizes.head_sizes)
    model = RecurrentPPO(
        "MlpLstmPolicy",
        DummyVecEnv([lambda: _Shapes(input_size, act_size)] * trials),
        n_steps=time,
        batch_size=time * trials // sizes.minibatches,
        n_epochs=1,
        device="cpu",
        policy_kwargs={
            "lstm_hidden_size": sizes.memory_size,
            "net_arch": {"pi": heads, "vf": heads},
            "enable_critic_lstm": not shared,
            "shared_lstm": shared,
        },
    )
    model.set_logger(Logger(None, []))
    buffer = model.rollout_buffer

    def update() -> None:
        buffer.reset()  # `get` reorders a full buffer in place
        buffer.observations[:] = batch.inputs.numpy()
        buffer.actions[:] = batch.trials.actions.numpy()
        buffer.log_probs[:] = batch.trials.records["log_prob"].numpy()
        buffer.values[:] = batch.trials.records["value"].numpy()
        buffer.advantages[:] = batch.advantages.numpy()
        buffer.returns[:] = batch.targets.numpy()
        buffer.episode_starts[0] = 1.0
        buffer.pos, buffer.full = time, True
        model.train()

    return update


def _measure_bandits(repeats: int, sizes: Sizes) -> dict[str, Any]:
    """Pulls per second of random arms, through the whole collector."""
    made = make_benchmark("bernoulli-bandit-k5")
    tasks = made.train.sample(sizes.num_bandits, np.random.default_rng(0))
    actor = Random(5)
    with Workers(EnvMaker(made.family, None)) as workers:

        def collect() -> float:
            trials = workers.collect(actor, tasks, sizes.num_pulls, seed=0)
            return float(trials.num_steps)

        pulls = collect()
        speeds = [pulls / seconds_per_call(collect) for _ in range(repeats)]
    title = f"{sizes.num_bandits} bandits of 5 arms, {sizes.num_pulls} pulls each, random arms"
    show_table(title, ["contender", "pulls/s"], [["metarl, whole collector", f"{median(speeds):,.0f}"]])
    return {"steps_per_s": median(speeds), "rounds": speeds}
