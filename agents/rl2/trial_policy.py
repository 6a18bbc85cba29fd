"""A policy that reads its trial: what it is told of the last step, its memory, its heads, and its actor.

At every step it sees (o_t, a_{t-1}, r_{t-1}, whether the episode terminated or was truncated at t-1). At the first
step of a later episode these are the last action, reward and flags of the episode before, really seen; at the
first step of a trial they are zero. Reference code that takes them from an environment which resets itself shows
zeros there, and the policy never learns how an episode ended.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.agent import Actions, Interface, Outcome
from metarl.learning.trials import Trials, as_trials
from metarl.nets.memories import Carry, Memory, NoMemory, RecurrentMemory, TransformerMemory
from metarl.nets.networks import Mlp
from metarl.nets.policies import Categorical, DiagonalGaussian
from metarl.runs.configs import check_counts, check_not_negative, check_positive
from metarl.runs.seeding import TaskNoise
from metarl.tasks import TaskEnv
from metarl.trajectories import Trajectories

MemoryKind = Literal["gru", "lstm", "transformer", "none"]

_REWARD_LIMIT = 10.0  # of observed rewards, in units of their running scale

UNSCALED_REWARDS = {
    "reward_scale": torch.ones(()),
    "reward_count": torch.tensor(math.inf),
    "reward_limit": torch.tensor(math.inf),
}
"""State of a policy that always observes rewards as they are: of one that was saved before there was a scale."""


@dataclass(frozen=True)
class TrialPolicyConfig:
    """A policy with memory.

    Attributes:
        memory: what reads the trial; "none" is a memoryless policy that sees the observation alone.
        memory_size: features that it puts out.
        memory_span: steps for which a GRU or an LSTM is set to remember at the start, at most; what a trial has is
            what it needs. None for a start that forgets within a few.
        num_layers: of a transformer.
        num_heads: of a transformer's attention.
        embedding_size: rectified units between the inputs and the memory; 0 for none.
        tell_observation: tell a step the last observation too, beside the last action, reward and flags, so that a
            whole transition is seen at once.
        head_sizes: hidden layers of the policy's and of the value's network, which see memory and inputs.
        init_std: Standard deviation of continuous actions at the start, with action bounds of +-1.
        min_std: Least standard deviation of continuous actions, with action bounds of +-1.
        max_std: Greatest standard deviation of continuous actions, with action bounds of +-1.
        normalise_observations: by their running mean and standard deviation.
    """

    memory: MemoryKind = "gru"
    memory_size: int = 128
    memory_span: int | None = None
    num_layers: int = 2
    num_heads: int = 4
    embedding_size: int = 0
    tell_observation: bool = False
    head_sizes: tuple[int, ...] = ()
    init_std: float = 0.5
    min_std: float = 1e-3
    max_std: float = 4.0
    normalise_observations: bool = False

    def __post_init__(self) -> None:
        check_counts(self, "memory_size", "memory_span", "num_layers", "num_heads")
        check_not_negative(self, "embedding_size")
        check_positive(self, "init_std", "min_std", "max_std")
        if not self.min_std <= self.init_std <= self.max_std:
            raise ValueError(
                "init_std must lie between min_std and max_std, "
                f"got {self.init_std}, {self.min_std} and {self.max_std}"
            )
        if any(size < 1 for size in self.head_sizes):
            raise ValueError(f"head_sizes must be positive, got {self.head_sizes}")


class Decision(NamedTuple):
    """What the policy's heads put out.

    Attributes:
        distribution: over actions.
        values: in units of the normalised return, [...].
    """

    distribution: Categorical | DiagonalGaussian
    values: Tensor


class TrialPolicy(nn.Module):
    """The network of a recurrent meta-learner: inputs, memory, policy head and value head.

    Args:
        env: any environment of the family, for its spaces.
        config: sizes.
        generator: draws the weights.

    Raises:
        ValueError: if actions are neither discrete nor bounded.
    """

    observation_mean: Tensor
    observation_scale: Tensor
    observation_count: Tensor
    reward_scale: Tensor
    reward_count: Tensor
    reward_limit: Tensor

    def __init__(self, env: TaskEnv, config: TrialPolicyConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        space = env.single_action_space
        obs_size = int(np.prod(env.single_observation_space.shape or ()))
        self.num_choices = int(space.n) if isinstance(space, spaces.Discrete) else 0
        low = high = np.zeros(0, np.float32)
        if not self.num_choices:
            low, high = np.asarray(space.low), np.asarray(space.high)  # type: ignore[attr-defined]
            if not (np.isfinite(low).all() and np.isfinite(high).all()):
                raise ValueError(f"expected discrete or bounded actions, got bounds {low} and {high}")
            self.action_middle, self.action_half = (high + low) / 2, (high - low) / 2
        self.interface = Interface(obs_size, self.num_choices, low, high)
        self.act_size = self.num_choices or int(np.prod(space.shape or ()))
        self.remembers = config.memory != "none"
        self._normalises = config.normalise_observations
        self._tells_observation = config.tell_observation
        self.told_size = self.act_size + 3 + (obs_size if config.tell_observation else 0)
        input_size = obs_size + (self.told_size if self.remembers else 0)
        embeds = self.remembers and config.embedding_size > 0
        width = config.embedding_size if embeds else input_size
        self.embedding = Mlp(input_size, (), width, activation="relu", generator=generator) if embeds else None
        self.memory = _make_memory(config, width, generator)
        features = input_size + (self.memory.output_size if self.remembers else 0)
        self.policy = Mlp(features, config.head_sizes, self.act_size, activation="tanh", generator=generator)
        self.value = Mlp(features, config.head_sizes, 1, activation="tanh", generator=generator)
        with torch.no_grad():  # start near uniform, so that exploration does
            getattr(self.policy, f"weight_{self.policy.num_layers - 1}").mul_(0.01)
        if not self.num_choices:
            self.log_std = nn.Parameter(torch.full((self.act_size,), math.log(config.init_std)))
            self._log_std_range = (math.log(config.min_std), math.log(config.max_std))
        self.register_buffer("observation_mean", torch.zeros(obs_size))
        self.register_buffer("observation_scale", torch.ones(obs_size))
        self.register_buffer("observation_count", torch.zeros(()))
        # Before the first update no scale is known and the policy observes no reward: one of 10,000 would drive
        # its outputs so far that the first update's likelihood ratios overflow.
        self.register_buffer("reward_scale", torch.zeros(()))
        self.register_buffer("reward_count", torch.zeros(()))
        self.register_buffer("reward_limit", torch.tensor(_REWARD_LIMIT))

    def tell(
        self, observations: Tensor, actions: Tensor, rewards: Tensor, terminated: Tensor, truncated: Tensor
    ) -> Tensor:
        """What the next step is told of this one: action, reward, flags, perhaps observation, [..., told]."""
        if self.num_choices:
            acted = nn.functional.one_hot(actions, self.num_choices).to(rewards.dtype)
        else:
            acted = actions.clamp(-1, 1)
        rewards = (rewards * self.reward_scale).clamp(-self.reward_limit, self.reward_limit)
        scalars = torch.stack((rewards, terminated.to(rewards.dtype), truncated.to(rewards.dtype)), -1)
        parts = (acted, scalars, self._normalised(observations)) if self._tells_observation else (acted, scalars)
        return torch.cat(parts, -1)

    def inputs(self, observations: Tensor, told: Tensor) -> Tensor:
        """Inputs of a step from its observation [..., obs] and what it is told of the last, [..., in]."""
        seen = self._normalised(observations)
        return torch.cat((seen, told), -1) if self.remembers else seen

    def trial_inputs(self, trials: Trials) -> Tensor:
        """Inputs of every step of whole trials, [time, trial, in]; a trial starts with nothing told."""
        told = self.tell(trials.observations, trials.actions, trials.rewards, trials.terminated, trials.truncated)
        return self.inputs(trials.observations, torch.cat((torch.zeros_like(told[:1]), told[:-1])))

    def unroll(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """The memory's outputs for inputs [time, trial, in], and its carry after them."""
        return self.memory.unroll(self._embed(inputs), carry)

    def step(self, inputs: Tensor, carry: Carry, alive: Tensor) -> tuple[Tensor, Carry]:
        """The memory's outputs for one step's inputs [trial, in]; rows that are not alive are held still."""
        return self.memory.step(self._embed(inputs), carry, alive)

    def _embed(self, inputs: Tensor) -> Tensor:
        return inputs if self.embedding is None else self.embedding(inputs).relu()

    def _normalised(self, observations: Tensor) -> Tensor:
        if not self._normalises:
            return observations
        return ((observations - self.observation_mean) * self.observation_scale).clamp(-10, 10)

    def decide(self, remembered: Tensor, inputs: Tensor) -> Decision:
        """The heads, on the memory's outputs and the inputs of the same steps."""
        features = torch.cat((remembered, inputs), -1) if self.remembers else inputs
        outputs = self.policy(features)
        if self.num_choices:
            return Decision(Categorical.of(outputs), self.value(features).squeeze(-1))
        return Decision(DiagonalGaussian(outputs, self.log_std), self.value(features).squeeze(-1))

    def bound_std(self) -> None:
        """Put the standard deviation back into its range; called after each optimiser step.

        The parameter itself is bounded: of a bound in the forward pass it would never get a gradient again.
        """
        if not self.num_choices:
            with torch.no_grad():
                self.log_std.clamp_(*self._log_std_range)

    def to_env(self, actions: Tensor) -> np.ndarray:
        """Environment actions: choices as they are, continuous ones mapped from +-1 to the bounds and clipped."""
        if self.num_choices:
            return np.asarray(actions.numpy())
        return np.asarray(self.action_middle + self.action_half * actions.clamp(-1, 1).numpy())

    def from_env(self, env_actions: np.ndarray) -> Tensor:
        """The actions that `to_env` makes these of."""
        if self.num_choices:
            return torch.from_numpy(env_actions.astype(np.int64))
        return torch.from_numpy(((env_actions - self.action_middle) / self.action_half).astype(np.float32))

    def see(self, trials: Trials) -> None:
        """Take the trials' rewards and observations into the running statistics that inputs are scaled by."""
        self._see_rewards(trials.rewards[trials.mask].double())
        if not self._normalises:
            return
        rows = trials.observations[trials.mask].double()
        count, total = float(self.observation_count), float(self.observation_count) + len(rows)
        mean, variance = self.observation_mean.double(), self.observation_scale.double() ** -2
        shift = rows.mean(0) - mean
        between = shift.square() * (count * len(rows) / total**2)
        spread = (count * variance + len(rows) * rows.var(0, correction=0)) / total + between
        self.observation_mean.copy_(mean + shift * (len(rows) / total))
        self.observation_scale.copy_(spread.clamp(min=1e-6).rsqrt())
        self.observation_count.fill_(total)

    def _see_rewards(self, rewards: Tensor) -> None:
        """The scale is one over the root mean square of all rewards but zeros: rare ones stay of unit size."""
        rewards = rewards[rewards != 0]
        count = float(self.reward_count)
        total = count + len(rewards)
        if not len(rewards) or math.isinf(count):
            return
        before = count * float(self.reward_scale) ** -2 if count else 0.0
        self.reward_scale.fill_(((before + float(rewards.square().sum())) / total) ** -0.5)
        self.reward_count.fill_(total)


def _make_memory(config: TrialPolicyConfig, input_size: int, generator: torch.Generator) -> Memory:
    if config.memory == "none":
        return NoMemory(input_size)
    if config.memory == "transformer":
        return TransformerMemory(
            input_size,
            config.memory_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            generator=generator,
        )
    return RecurrentMemory(
        config.memory, input_size, config.memory_size, generator=generator, span=config.memory_span
    )


class TrialActor:
    """Acts through trials; all that it learns of a task is in its carry.

    Args:
        policy: the network, on any device; acting is on the CPU.
        read: the carry and what the next step is told, where trials go on from; None for trials that start.
    """

    sequential = True

    def __init__(self, policy: TrialPolicy, read: tuple[Carry, Tensor] | None = None) -> None:
        self._policy = policy
        self._read = read
        self._carry: Carry = ()
        self._told = torch.empty(0)
        self._observations = torch.empty(0)
        self._actions = torch.empty(0)
        self._alive = torch.empty(0)
        self._noise: TaskNoise | None = None

    @property
    def interface(self) -> Interface:
        """As the policy was made for."""
        return self._policy.interface

    @property
    def reads_outcomes(self) -> bool:
        """With a memory, every step is told of the last."""
        return self._policy.remembers

    def to_outputs(self, env_actions: np.ndarray) -> Tensor:
        """The policy's actions for environment actions [..., act], or [...] if discrete."""
        return self._policy.from_env(env_actions)

    def select(self, tasks: slice) -> "TrialActor":
        """The actor of some of the tasks; itself where every trial starts in the same state."""
        if self._read is None:
            return self
        carry, told = self._read
        return TrialActor(self._policy, (tuple(part[tasks] for part in carry), told[tasks]))

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start trials, one per task, or go on from what was read."""
        if num_parallel != 1:
            raise ValueError(f"a trial's episodes follow one another, got {num_parallel} in parallel")
        policy = self._policy
        if next(policy.parameters()).device.type != "cpu":
            self._policy = policy = copy.deepcopy(policy).cpu()
        self._start(len(task_seeds))
        shape: Sequence[int] = () if policy.num_choices else (policy.act_size,)
        self._noise = TaskNoise(task_seeds, tuple(shape), kind="uniform" if policy.num_choices else "normal")

    def begin_episode(self) -> None:
        """All tasks go on; the memory is kept."""
        self._alive = torch.ones(len(self._told), dtype=torch.bool)

    def act(self, observations: Tensor) -> Actions:
        """Sample actions [trial, 1, ...]."""
        assert self._noise is not None, "begin comes before act"
        policy = self._policy
        self._observations = observations.squeeze(1)
        inputs = policy.inputs(self._observations, self._told)
        remembered, self._carry = policy.step(inputs, self._carry, self._alive)
        distribution, values = policy.decide(remembered, inputs)
        self._actions = distribution.sample(self._noise.next())
        records = {"log_prob": distribution.log_prob(self._actions).unsqueeze(1), "value": values.unsqueeze(1)}
        actions = self._actions.unsqueeze(1)
        return Actions(policy.to_env(actions), actions, records)

    def observe(self, outcome: Outcome) -> None:
        """Keep what the next step is to be told."""
        rewards, terminated, truncated, alive = (part.squeeze(1) for part in outcome[1:5])
        told = self._policy.tell(self._observations, self._actions, rewards, terminated, truncated)
        self._told = torch.where(alive.unsqueeze(1), told, self._told)
        self._alive = alive & ~(terminated | truncated)

    def adapt(self, trajectories: Trajectories) -> "TrialActor":
        """An actor whose trials have begun with these, one per task, and go on from there.

        While it acts an actor adapts without being told to; this is for trials that something else recorded, and
        for going on later.
        """
        actor, trials = TrialActor(copy.deepcopy(self._policy).cpu(), self._read), as_trials(trajectories)
        policy = actor._policy
        actor._start(len(trajectories.tasks))
        with torch.no_grad():
            for t, alive in enumerate(trials.mask):
                inputs = policy.inputs(trials.observations[t], actor._told)
                _, actor._carry = policy.step(inputs, actor._carry, alive)
                told = policy.tell(*(part[t] for part in trials[:5]))
                actor._told = torch.where(alive.unsqueeze(1), told, actor._told)
        return TrialActor(policy, (actor._carry, actor._told))

    def _start(self, num_tasks: int) -> None:
        """Know what was read, or nothing; a memory may write into its carry, so that it gets a copy."""
        if self._read is None:
            self._carry = self._policy.memory.start(num_tasks)
            self._told = torch.zeros(num_tasks, self._policy.told_size)
        else:
            self._carry, self._told = tuple(part.clone() for part in self._read[0]), self._read[1]
