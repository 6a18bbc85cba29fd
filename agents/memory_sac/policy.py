"""The policy of memory SAC, and the memory that critics of their own read trials with.

Both read a trial as RL2 does: the observation, the last action, the last reward in running units, and whether the
last step ended an episode. Continuous actions are normals squashed by tanh, with a standard deviation that the
network puts out; choices are categorical.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from metarl.agent import Interface
from metarl.agents.rl2.trial_policy import TrialPolicy, TrialPolicyConfig
from metarl.agents.trials.network import Decision, TrialNetworkConfig
from metarl.learning.trials import Trials
from metarl.nets.actions import Choice, Continuous
from metarl.nets.distributions import Categorical, TanhGaussian
from metarl.nets.memories import Carry
from metarl.observations import describe
from metarl.runs import codec
from metarl.tasks import HasSpaces


@dataclass(frozen=True)
class SoftPolicyConfig(TrialPolicyConfig):
    """A policy with memory whose continuous actions are squashed normals.

    Attributes:
        init_std: Standard deviation of continuous actions before training, before they are squashed into +-1.
        min_std: Least standard deviation of continuous actions, before they are squashed into +-1.
        max_std: Greatest standard deviation of continuous actions, before they are squashed into +-1.
    """

    init_std: float = 1.0


class Trunk(TrialPolicy):
    """A memory with the inputs of a trial and without heads."""

    def add_heads(
        self, config: TrialNetworkConfig, context_size: int, input_size: int, generator: torch.Generator
    ) -> None:
        """Keep the number of features that heads may read."""
        self.num_features = context_size + input_size

    def read_trials(self, inputs: Tensor, trials: Trials) -> tuple[Tensor, Tensor]:
        """The memory's outputs at every step, [time, trial, out], and all inputs of the steps, [time, trial, in].

        Args:
            inputs: Inputs of `trial_inputs` of any trunk of the same configuration.
            trials: Steps of the trials.
        """
        inputs = self.with_features(inputs, trials.observations)
        remembered, _ = self.unroll(inputs, self.start_unroll(inputs.shape[1]))
        return (remembered if self.remembers else remembered[..., :0]), inputs


class SoftPolicy(Trunk):
    """A memory and the policy's head.

    Args:
        env: Environment of the family, read for its spaces alone.
        config: Kinds and sizes.
        generator: Source of the weights.

    Raises:
        ValueError: if actions are neither one choice nor a bounded Box.
    """

    saved_as: ClassVar[str] = "memory-sac"
    algorithm: ClassVar[str] = "memory SAC"

    def __init__(self, env: HasSpaces, config: SoftPolicyConfig, *, generator: torch.Generator) -> None:
        super().__init__(env, config, generator=generator)
        if not isinstance(self.actions, Choice | Continuous):
            raise ValueError(
                f"memory SAC takes Discrete or bounded Box actions, got {describe(env.single_action_space)}; "
                "RL2 and VariBAD take others"
            )

    @classmethod
    def from_settings(cls, interface: Interface, settings: Mapping[str, Any]) -> Self:
        """The network of a configuration, its weights still to be filled in."""
        config = codec.decode(SoftPolicyConfig, settings, "policy", {})
        return cls(interface, config, generator=torch.Generator())

    def add_heads(
        self, config: TrialNetworkConfig, context_size: int, input_size: int, generator: torch.Generator
    ) -> None:
        """Make the policy's network, which puts out standard deviations too; the policy has one constant less."""
        super().add_heads(config, context_size, input_size, generator)
        self.log_std = None
        self._init_log_std = math.log(config.init_std)
        per_action = 2 if self.actions.noise == "normal" else 1
        outputs = per_action * self.actions.num_outputs
        self.add_policy(config, context_size, input_size, outputs, generator)

    def decide(self, context: Tensor, inputs: Tensor) -> Decision:
        """Distribution from the memory's outputs and the inputs of the same steps."""
        return Decision(self.distribution(context if self.remembers else context[..., :0], inputs))

    def distribution(self, context: Tensor, inputs: Tensor) -> Categorical | TanhGaussian:
        """Distribution over actions, from the memory's outputs and the inputs of the same steps."""
        outputs = self.policy_outputs(context, inputs)
        if self.actions.noise == "uniform":
            return Categorical.of(outputs)
        mean, log_std = outputs.chunk(2, -1)
        return TanhGaussian(mean, (log_std + self._init_log_std).clamp(*self._log_std_range))

    def records(self, decision: Decision, actions: Tensor, carry: Carry) -> dict[str, Tensor]:
        """Nothing: replay learns from actions, whatever their probability was."""
        return {}
