"""A policy that reads its trial: its inputs, its memory, its heads, and its actor.

At every step it reads (o_t, a_{t-1}, r_{t-1}, whether the episode terminated or was truncated at t-1). At the
first step of a later episode these are the last action, reward and flags of the episode before, as they were; at
the first step of a trial they are zero. Reference code that takes them from an environment which resets itself has
zeros there, and its policy never learns how an episode ended.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from metarl.agent import Actions, Interface, Outcome
from metarl.learning.reward_scale import updated_scale
from metarl.learning.trials import Trials, as_trials
from metarl.nets.actions import action_map
from metarl.nets.devices import on_cpu
from metarl.nets.distributions import AnyDistribution
from metarl.nets.encoders import EncoderConfig
from metarl.nets.memories import Carry, Memory, NoMemory, RecurrentMemory, TransformerMemory
from metarl.nets.networks import Mlp
from metarl.runs.configs import check_counts, check_not_negative, check_positive
from metarl.runs.seeding import TaskNoise
from metarl.tasks import TaskEnv
from metarl.trajectories import Observations, Trajectories, map_observations

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
        memory: Network that reads the trial; "none" is a memoryless policy, which observes the present alone.
        memory_size: Number of features that the memory puts out.
        memory_span: Greatest number of steps for which a GRU or an LSTM remembers before training; about as many
            as a trial has. None for gates that forget within a few steps.
        num_layers: Number of blocks of a transformer.
        num_heads: Number of heads in each attention of a transformer.
        embedding_size: Number of rectified units between the inputs and the memory; 0 for none.
        read_transitions: Each step reads the last observation, images aside, beside the last action, reward and
            flags, so that a whole transition is read at once.
        head_sizes: Widths of the hidden layers of the policy's and of the value's network, which read the memory's
            features and the inputs.
        init_std: Standard deviation of continuous actions before training, with action bounds of +-1.
        min_std: Least standard deviation of continuous actions, with action bounds of +-1.
        max_std: Greatest standard deviation of continuous actions, with action bounds of +-1.
        normalise_observations: Observations are normalised by their running mean and standard deviation; learned
            features of images are not.
        encoder: Network that makes features of images.
    """

    renamed: ClassVar[Mapping[str, str]] = {"tell_observation": "read_transitions"}

    memory: MemoryKind = "gru"
    memory_size: int = 128
    memory_span: int | None = None
    num_layers: int = 2
    num_heads: int = 4
    embedding_size: int = 0
    read_transitions: bool = False
    head_sizes: tuple[int, ...] = ()
    init_std: float = 0.5
    min_std: float = 1e-3
    max_std: float = 4.0
    normalise_observations: bool = False
    encoder: EncoderConfig = field(default_factory=EncoderConfig)

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
    """Outputs of the policy's heads.

    Attributes:
        distribution: Distribution over actions.
        values: Values in units of the normalised return, [...].
    """

    distribution: AnyDistribution
    values: Tensor


class TrialPolicy(nn.Module):
    """The network of a recurrent meta-learner: inputs, memory, policy head and value head.

    Args:
        env: Environment of the family, read for its spaces alone.
        config: Kinds and sizes.
        generator: Source of the weights.

    Raises:
        ValueError: if the policy cannot act in these spaces.
    """

    observation_mean: Tensor
    observation_scale: Tensor
    observation_count: Tensor
    reward_scale: Tensor
    reward_count: Tensor
    reward_limit: Tensor

    def __init__(self, env: TaskEnv, config: TrialPolicyConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.interface = Interface(env.single_observation_space, env.single_action_space)
        self.actions = action_map(env.single_action_space, "RL2")
        self.encoder = config.encoder.make(env.single_observation_space, generator)
        obs_size, act_size = self.encoder.output_size, self.actions.num_outputs
        num_fixed = int(self.encoder.fixed.sum())
        self.remembers = config.memory != "none"
        self._normalises = config.normalise_observations and num_fixed > 0
        self._reads_transitions = config.read_transitions and num_fixed > 0
        self.last_step_size = self.actions.encoded_size + 3 + (num_fixed if config.read_transitions else 0)
        input_size = obs_size + (self.last_step_size if self.remembers else 0)
        embeds = self.remembers and config.embedding_size > 0
        width = config.embedding_size if embeds else input_size
        self.embedding = Mlp(input_size, (), width, activation="relu", generator=generator) if embeds else None
        self.memory = _make_memory(config, width, generator)
        features = input_size + (self.memory.output_size if self.remembers else 0)
        self.policy = Mlp(features, config.head_sizes, act_size, activation="tanh", generator=generator)
        self.value = Mlp(features, config.head_sizes, 1, activation="tanh", generator=generator)
        with torch.no_grad():  # start near uniform, so that exploration does
            getattr(self.policy, f"weight_{self.policy.num_layers - 1}").mul_(0.01)
        self.log_std: nn.Parameter | None = None
        if self.actions.noise == "normal":
            self.log_std = nn.Parameter(torch.full((act_size,), math.log(config.init_std)))
        self._log_std_range = (math.log(config.min_std), math.log(config.max_std))
        self.register_buffer("observation_mean", torch.zeros(obs_size))
        self.register_buffer("observation_scale", torch.ones(obs_size))
        self.register_buffer("observation_count", torch.zeros(()))
        # Before the first update no scale is known and the policy observes no reward: one of 10,000 would drive
        # its outputs so far that the first update's likelihood ratios overflow.
        self.register_buffer("reward_scale", torch.zeros(()))
        self.register_buffer("reward_count", torch.zeros(()))
        self.register_buffer("reward_limit", torch.tensor(_REWARD_LIMIT))

    def last_step(
        self, observations: Observations, actions: Tensor, rewards: Tensor, terminated: Tensor, truncated: Tensor
    ) -> Tensor:
        """The part of a step that the next step reads: action, reward, flags, perhaps observation, [..., last]."""
        acted = self.actions.encode(actions)
        rewards = (rewards * self.reward_scale).clamp(-self.reward_limit, self.reward_limit)
        scalars = torch.stack((rewards, terminated.to(rewards.dtype), truncated.to(rewards.dtype)), -1)
        if not self._reads_transitions:
            return torch.cat((acted, scalars), -1)
        fixed = self.encoder.fixed_features(observations)
        if self._normalises:
            where = self.encoder.fixed
            fixed = ((fixed - self.observation_mean[where]) * self.observation_scale[where]).clamp(-10, 10)
        return torch.cat((acted, scalars, fixed), -1)

    def features(self, observations: Observations) -> Tensor:
        """Encoded and perhaps normalised observations, [..., feature]."""
        features: Tensor = self.encoder(observations)
        if not self._normalises:
            return features
        return ((features - self.observation_mean) * self.observation_scale).clamp(-10, 10)

    def inputs(self, observations: Observations, last_step: Tensor) -> Tensor:
        """Inputs of a step from its observation and what it reads of the last step [..., last], [..., in]."""
        features = self.features(observations)
        return torch.cat((features, last_step), -1) if self.remembers else features

    def trial_inputs(self, trials: Trials) -> Tensor:
        """Inputs of every step of whole trials; with a learned encoder, those beside its features.

        Returns:
            Inputs, [time, trial, in]; the first step of a trial reads nothing of a last one.
        """
        last_step = self.last_step(
            trials.observations, trials.actions, trials.rewards, trials.terminated, trials.truncated
        )
        last_step = torch.cat((torch.zeros_like(last_step[:1]), last_step[:-1]))
        return last_step if self.encoder.learns else self.inputs(trials.observations, last_step)

    def with_features(self, inputs: Tensor, observations: Observations) -> Tensor:
        """All inputs, from those of `trial_inputs` and the same steps' observations; differentiable."""
        return self.inputs(observations, inputs) if self.encoder.learns else inputs

    def unroll(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """The memory's outputs for inputs [time, trial, in], and its carry after them."""
        return self.memory.unroll(self._embed(inputs), carry)

    def step(self, inputs: Tensor, carry: Carry, alive: Tensor) -> tuple[Tensor, Carry]:
        """The memory's outputs for one step's inputs [trial, in]; the carry of rows that are not alive stays."""
        return self.memory.step(self._embed(inputs), carry, alive)

    def _embed(self, inputs: Tensor) -> Tensor:
        return inputs if self.embedding is None else self.embedding(inputs).relu()

    def decide(self, remembered: Tensor, inputs: Tensor) -> Decision:
        """Distribution and value, from the memory's outputs and the inputs of the same steps."""
        features = torch.cat((remembered, inputs), -1) if self.remembers else inputs
        distribution = self.actions.distribution(self.policy(features), self.log_std)
        return Decision(distribution, self.value(features).squeeze(-1))

    def bound_std(self) -> None:
        """Put the standard deviation back into its range; called after each optimiser step.

        The parameter itself is bounded: of a bound in the forward pass it would never get a gradient again.
        """
        if self.log_std is not None:
            with torch.no_grad():
                self.log_std.clamp_(*self._log_std_range)

    def see(self, trials: Trials) -> None:
        """Take the trials' rewards and observations into the running statistics that inputs are scaled by."""
        self._see_rewards(trials.rewards[trials.mask].double())
        if not self._normalises:
            return
        fixed = self.encoder.fixed
        rows = self.encoder.fixed_features(trials.observations)[trials.mask].double()
        count, total = float(self.observation_count), float(self.observation_count) + len(rows)
        mean, variance = self.observation_mean[fixed].double(), self.observation_scale[fixed].double() ** -2
        shift = rows.mean(0) - mean
        between = shift.square() * (count * len(rows) / total**2)
        spread = (count * variance + len(rows) * rows.var(0, correction=0)) / total + between
        self.observation_mean[fixed] = (mean + shift * (len(rows) / total)).float()
        self.observation_scale[fixed] = spread.clamp(min=1e-6).rsqrt().float()
        self.observation_count.fill_(total)

    def _see_rewards(self, rewards: Tensor) -> None:
        """Take rewards into the running scale."""
        scale, count = updated_scale(self.reward_scale, self.reward_count, rewards)
        self.reward_scale.fill_(scale)
        self.reward_count.fill_(count)


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
        policy: Network, on any device; acting is on the CPU.
        read: The memory's carry and the next step's inputs of the last one, where trials go on from; None for
            trials that start.
        sampling: True to sample actions, false to take the distribution's mode.
    """

    sequential = True

    def __init__(
        self, policy: TrialPolicy, read: tuple[Carry, Tensor] | None = None, *, sampling: bool = True
    ) -> None:
        self._policy = policy
        self._sampling = sampling
        self._read = read
        self._carry: Carry = ()
        self._last_step = torch.empty(0)
        self._observations: Observations = torch.empty(0)
        self._actions = torch.empty(0)
        self._alive = torch.empty(0)
        self._noise: TaskNoise | None = None

    @property
    def interface(self) -> Interface:
        """The spaces that the policy was made for."""
        return self._policy.interface

    @property
    def reads_outcomes(self) -> bool:
        """True with a memory: every step reads the last action, reward and flags."""
        return self._policy.remembers

    def to_outputs(self, env_actions: np.ndarray) -> Tensor:
        """The policy's actions for environment actions [..., *shape]."""
        return self._policy.actions.from_env(env_actions)

    def select(self, tasks: slice) -> "TrialActor":
        """The actor of some of the tasks; itself where every trial starts in the same state."""
        if self._read is None:
            return self
        carry, last_step = self._read
        read = (tuple(part[tasks] for part in carry), last_step[tasks])
        return TrialActor(self._policy, read, sampling=self._sampling)

    def deterministic(self) -> "TrialActor":
        """The same actor, which takes the distribution's mode from the first episode of a trial on."""
        return TrialActor(self._policy, self._read, sampling=False)

    def __getstate__(self) -> dict[str, Any]:
        """What worker processes get: the network on the CPU, so that none of them opens a CUDA context."""
        return vars(self) | {"_policy": on_cpu(self._policy)}

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start trials, one per task, or go on from what was read."""
        if num_parallel != 1:
            raise ValueError(f"a trial's episodes follow one another, got {num_parallel} in parallel")
        self._policy = policy = on_cpu(self._policy)
        self._start(len(task_seeds))
        self._noise = TaskNoise(task_seeds, policy.actions.shape, kind=policy.actions.noise)

    def begin_episode(self) -> None:
        """All tasks go on; the memory is kept."""
        self._alive = torch.ones(len(self._last_step), dtype=torch.bool)

    def act(self, observations: Observations) -> Actions:
        """Sample actions [trial, 1, ...]."""
        assert self._noise is not None, "begin comes before act"
        policy = self._policy
        self._observations = map_observations(lambda part: part.squeeze(1), observations)
        inputs = policy.inputs(self._observations, self._last_step)
        remembered, self._carry = policy.step(inputs, self._carry, self._alive)
        distribution, values = policy.decide(remembered, inputs)
        noise = self._noise.next(self._alive)
        self._actions = distribution.sample(noise) if self._sampling else distribution.mode()
        records = {"log_prob": distribution.log_prob(self._actions).unsqueeze(1), "value": values.unsqueeze(1)}
        actions = self._actions.unsqueeze(1)
        return Actions(policy.actions.to_env(actions), actions, records)

    def observe(self, outcome: Outcome) -> None:
        """Keep what the next step reads of this one."""
        rewards, terminated, truncated, alive = (part.squeeze(1) for part in outcome[1:5])
        last_step = self._policy.last_step(self._observations, self._actions, rewards, terminated, truncated)
        self._last_step = torch.where(alive.unsqueeze(1), last_step, self._last_step)
        self._alive = alive & ~(terminated | truncated)

    def adapt(self, trajectories: Trajectories) -> "TrialActor":
        """An actor whose trials have begun with these, one per task, and go on from there.

        While it acts, an actor adapts without this method, which is for recorded trials and for going on later.
        """
        actor, trials = TrialActor(copy.deepcopy(self._policy).cpu(), self._read), as_trials(trajectories)
        policy = actor._policy
        actor._start(len(trajectories.tasks))
        with torch.no_grad():
            for t, alive in enumerate(trials.mask):
                observations = map_observations(itemgetter(t), trials.observations)
                _, actor._carry = policy.step(policy.inputs(observations, actor._last_step), actor._carry, alive)
                last_step = policy.last_step(observations, *(part[t] for part in trials[1:5]))
                actor._last_step = torch.where(alive.unsqueeze(1), last_step, actor._last_step)
        return TrialActor(policy, (actor._carry, actor._last_step), sampling=self._sampling)

    def _start(self, num_tasks: int) -> None:
        """Start from what was read, or from nothing; a memory may write into its carry, so that it gets a copy."""
        if self._read is None:
            self._carry = self._policy.memory.start(num_tasks)
            self._last_step = torch.zeros(num_tasks, self._policy.last_step_size)
        else:
            self._carry, self._last_step = tuple(part.clone() for part in self._read[0]), self._read[1]
