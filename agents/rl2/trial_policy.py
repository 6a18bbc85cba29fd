"""A policy that reads its trial: its inputs, its memory and its heads.

At every step it reads (o_t, a_{t-1}, r_{t-1}, whether the episode terminated or was truncated at t-1), or
without a_{t-1}, or with o_{t-1} or r_{t-1} - r_{t-2} too. At the first step of a later episode these are the last
action, reward and flags of the episode before, as they were; at the first step of a trial they are zero. Reference
code that takes them from an environment which resets itself has zeros there, and its policy never learns how an
episode ended.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from metarl.agent import Interface
from metarl.agents.trials.network import Decision, TrialNetwork, TrialNetworkConfig
from metarl.learning.trials import Trials, TrialSteps
from metarl.nets.filling import check_parts
from metarl.nets.memories import Carry, Memory, NoMemory, RecurrentMemory, SplitMemory, TransformerMemory
from metarl.nets.networks import Mlp
from metarl.runs import codec
from metarl.runs.configs import MOST_LAYERS, MOST_UNITS, check_counts
from metarl.tasks import HasSpaces
from metarl.trajectories import Observations

_CHANGE_UNITS = 10.0  # of the change of a reward, in one unit of rewards

MemoryKind = Literal["gru", "lstm", "splagger", "transformer", "none"]


@dataclass(frozen=True)
class TrialPolicyConfig(TrialNetworkConfig):
    """A policy with memory.

    Attributes:
        memory: Network that reads the trial; "splagger" is a GRU half of whose features are their greatest values
            since the trial began, "none" a memoryless policy, which observes the present alone.
        memory_size: Number of features that the memory puts out.
        memory_span: Greatest number of steps for which a recurrent memory remembers before training; about as
            many as a trial has. None for gates that forget within a few steps.
        num_layers: Number of blocks of a transformer.
        num_heads: Number of heads in each attention of a transformer.
        embedding_size: Number of rectified units between the inputs and the memory; 0 for none.
        read_transitions: Each step reads the last observation, images aside, beside the last action, reward and
            flags, so that a whole transition is read at once.
        read_actions: Each step reads the last action. Without it a task must show in observations and rewards;
            soft actor-critic on continuous actions repeats its last action where it may read it.
        read_changes: Each step reads by how much the last reward differs from the one before, in a tenth of the
            units of rewards: where they differ little, this tells whether the last step was the right way.
    """

    renamed: ClassVar[Mapping[str, str]] = {"tell_observation": "read_transitions"}

    memory: MemoryKind = "gru"
    memory_size: int = 128
    memory_span: int | None = None
    num_layers: int = 2
    num_heads: int = 4
    embedding_size: int = 0
    read_transitions: bool = False
    read_actions: bool = True
    read_changes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "memory_size", most=MOST_UNITS)
        check_counts(self, "embedding_size", least=0, most=MOST_UNITS)
        check_counts(self, "memory_span")
        check_counts(self, "num_layers", "num_heads", most=MOST_LAYERS)


class TrialPolicy(TrialNetwork):
    """The network of a recurrent meta-learner: inputs, memory, policy head and value head.

    Args:
        env: Environment of the family, read for its spaces alone.
        config: Kinds and sizes.
        generator: Source of the weights.

    Raises:
        ValueError: if the policy cannot act in these spaces.
    """

    saved_as: ClassVar[str] = "rl2"
    algorithm: ClassVar[str] = "RL2"
    """Name of the algorithm, for messages."""

    def __init__(self, env: HasSpaces, config: TrialPolicyConfig, *, generator: torch.Generator) -> None:
        super().__init__(env, config, self.algorithm, generator)
        self.remembers = self.reads_outcomes = config.memory != "none"
        self._reads_transitions = config.read_transitions and self.num_fixed > 0
        self._reads_actions, self._reads_changes = config.read_actions, config.read_changes
        self._reward_place = self.actions.encoded_size if config.read_actions else 0
        self.last_step_size = self._reward_place + 3 + config.read_changes
        self.last_step_size += self.num_fixed if config.read_transitions else 0
        input_size = self.encoder.output_size + (self.last_step_size if self.remembers else 0)
        embeds = self.remembers and config.embedding_size > 0
        width = config.embedding_size if embeds else input_size
        self.embedding = Mlp(input_size, (), width, activation="relu", generator=generator) if embeds else None
        self.memory = _make_memory(config, width, generator)
        self.growing = (0,) if config.memory == "transformer" else ()
        self.add_heads(config, self.memory.output_size if self.remembers else 0, input_size, generator)

    @classmethod
    def from_settings(cls, interface: Interface, settings: Mapping[str, Any]) -> Self:
        """The network of a configuration, its weights still to be filled in."""
        config = codec.decode(TrialPolicyConfig, settings, "policy", {})
        return cls(interface, config, generator=torch.Generator())

    def compact(self, carry: Carry) -> Carry:
        """The carry of one trial; a transformer's past as long as the number of steps that it has read."""
        if not isinstance(self.memory, TransformerMemory):
            return carry
        past, count, last_step = carry
        return past[:, : int(count)], count, last_step

    def check_carry(self, carry: Mapping[str, Tensor]) -> Carry:
        """The carry of a file; a transformer's may have read any number of steps."""
        if not isinstance(self.memory, TransformerMemory):
            return super().check_carry(carry)
        past, count, last_step = check_parts(self.start(1), carry, "carry", growing=(0,))
        if not 0 <= int(count) <= past.shape[1]:
            raise ValueError(f"carry has room for {past.shape[1]} steps, got a count of {int(count)}")
        return past, count, last_step

    def start(self, num_trials: int) -> Carry:
        """The carry of a memory, then the part of the last step that the next one reads, which is zero."""
        nothing = self.reward_scale.new_zeros(num_trials, self.last_step_size)
        return (*self.memory.start(num_trials), nothing)

    def act(self, observations: Observations, carry: Carry, alive: Tensor) -> tuple[Decision, Carry]:
        """The decision at observations [trial, ...], and the carry of the memory that has read them."""
        *memory, last_step = carry
        inputs = self.inputs(observations, last_step)
        remembered, after = self.step(inputs, tuple(memory), alive)
        return self.decide(remembered, inputs), (*after, last_step)

    def read(self, step: TrialSteps, carry: Carry, alive: Tensor) -> Carry:
        """The carry with the part of a step [trial, ...] that the next one reads, where alive [trial]."""
        last_step = self._with_changes(self.last_step(*step[:5]), carry[-1])
        return (*carry[:-1], torch.where(alive.unsqueeze(1), last_step, carry[-1]))

    def last_step(
        self, observations: Observations, actions: Tensor, rewards: Tensor, terminated: Tensor, truncated: Tensor
    ) -> Tensor:
        """Numbers of a step that the next one reads: reward, flags, perhaps action, observation, [..., last]."""
        rewards = self.observed_rewards(rewards)
        parts = [torch.stack((rewards, terminated.to(rewards.dtype), truncated.to(rewards.dtype)), -1)]
        if self._reads_actions:
            parts.insert(0, self.actions.encode(actions))
        if self._reads_transitions:
            parts.append(self.fixed_features(observations))
        return torch.cat(parts, -1)

    def _with_changes(self, last_step: Tensor, before: Tensor) -> Tensor:
        """The same with the change of the reward since the step before, if it is read; a trial comes from 0."""
        if not self._reads_changes:
            return last_step
        change = last_step[..., self._reward_place] - before[..., self._reward_place]
        change = (_CHANGE_UNITS * change).clamp(-self.reward_limit, self.reward_limit)
        return torch.cat((last_step, change.unsqueeze(-1)), -1)

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
        last_step = self._with_changes(last_step, _shifted(last_step))
        last_step = _shifted(last_step)
        return last_step if self.encoder.learns else self.inputs(trials.observations, last_step)

    def with_features(self, inputs: Tensor, observations: Observations) -> Tensor:
        """All inputs, from those of `trial_inputs` and the same steps' observations; differentiable."""
        return self.inputs(observations, inputs) if self.encoder.learns else inputs

    def start_unroll(self, num_trials: int) -> Carry:
        """The memory's carry of so many trials before their first step."""
        return self.memory.start(num_trials)

    def decisions(self, inputs: Tensor, observations: Observations, carry: Carry) -> tuple[Decision, Carry]:
        """Decisions at all steps [time, trial] from inputs of `trial_inputs`, and the memory's carry."""
        inputs = self.with_features(inputs, observations)
        remembered, carry = self.unroll(inputs, carry)
        return self.decide(remembered, inputs), carry

    def unroll(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """The memory's outputs for inputs [time, trial, in], and its carry after them."""
        return self.memory.unroll(self._embed(inputs), carry)

    def step(self, inputs: Tensor, carry: Carry, alive: Tensor) -> tuple[Tensor, Carry]:
        """The memory's outputs for one step's inputs [trial, in]; the carry of rows that are not alive stays."""
        return self.memory.step(self._embed(inputs), carry, alive)

    def _embed(self, inputs: Tensor) -> Tensor:
        return inputs if self.embedding is None else self.embedding(inputs).relu()

    def decide(self, context: Tensor, inputs: Tensor) -> Decision:
        """Distribution and value, from the memory's outputs and the inputs of the same steps."""
        return super().decide(context if self.remembers else context[..., :0], inputs)


def _shifted(steps: Tensor) -> Tensor:
    """Of every step [time, ...] the one before; zeros for the first."""
    return torch.cat((torch.zeros_like(steps[:1]), steps[:-1]))


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
    if config.memory == "splagger":
        return SplitMemory(input_size, config.memory_size, generator=generator, span=config.memory_span)
    return RecurrentMemory(
        config.memory, input_size, config.memory_size, generator=generator, span=config.memory_span
    )
