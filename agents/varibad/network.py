"""A policy on beliefs: a recurrent encoder of transitions, whose posterior over the task the policy observes.

After every step the encoder reads (o_t, a_t, r_t, whether the episode terminated or was truncated, o_{t+1}).
Before the first step of a trial the posterior is the prior N(0, I), whose mean and log variance are zeros. Images
are read by the policy alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from metarl.agent import Interface
from metarl.agents.trials.context import ContextNetwork
from metarl.agents.trials.network import TrialNetworkConfig
from metarl.agents.varibad.elbo import Decoder, Target
from metarl.learning.trials import TrialSteps
from metarl.nets.distributions import DiagonalGaussian
from metarl.nets.memories import Carry, RecurrentMemory
from metarl.nets.networks import Mlp
from metarl.runs import codec
from metarl.runs.configs import MOST_UNITS, check_counts, check_sizes
from metarl.tasks import HasSpaces


@dataclass(frozen=True)
class BeliefPolicyConfig(TrialNetworkConfig):
    """A policy on beliefs, with the encoder and the decoders that they are learned by.

    Attributes:
        latent_size: Number of dimensions of the latent that stands for the task.
        memory: Recurrent network that encodes the trial.
        memory_size: Number of features that the encoder remembers.
        memory_span: Greatest number of steps for which the encoder remembers before training; about as many as a
            trial has. None for gates that forget within a few steps.
        embedding_size: Number of rectified units between a transition and the encoder's memory; 0 for none.
        decoder_sizes: Widths of the hidden layers of the networks that decode rewards and observations.
        decodes_observations: The latent must predict next observations too, as it has to where tasks differ in
            their dynamics.
    """

    latent_size: int = 5
    memory: Literal["gru", "lstm"] = "gru"
    memory_size: int = 64
    memory_span: int | None = None
    embedding_size: int = 0
    decoder_sizes: tuple[int, ...] = (64, 32)
    decodes_observations: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "latent_size", "memory_size", most=MOST_UNITS)
        check_counts(self, "embedding_size", least=0, most=MOST_UNITS)
        check_counts(self, "memory_span")
        check_sizes(self, "decoder_sizes")


class BeliefPolicy(ContextNetwork):
    """The network of VariBAD: encoder, decoders, and a policy that observes the posterior's mean and log variance.

    Args:
        env: Environment of the family, read for its spaces alone.
        config: Kinds and sizes.
        generator: Source of the weights.

    Raises:
        ValueError: if the policy cannot act in these spaces, or there are no observations to decode.
    """

    reads_outcomes = True
    saved_as: ClassVar[str] = "varibad"

    def __init__(self, env: HasSpaces, config: BeliefPolicyConfig, *, generator: torch.Generator) -> None:
        super().__init__(env, config, "VariBAD", generator)
        observed, acted, size = self.num_fixed, self.actions.encoded_size, config.latent_size
        self.context_size = 2 * size
        read = 2 * observed + acted + 3
        embeds = config.embedding_size > 0
        width = config.embedding_size if embeds else read
        self.embedding = Mlp(read, (), width, activation="relu", generator=generator) if embeds else None
        self.memory = RecurrentMemory(
            config.memory, width, config.memory_size, generator=generator, span=config.memory_span
        )
        self.posterior = Mlp(
            self.memory.output_size, (), self.context_size, activation="relu", generator=generator
        )
        self.reward_decoder = Decoder(size, 2 * observed + acted, config.decoder_sizes, 1, generator)
        self.observation_decoder: Decoder | None = None
        if config.decodes_observations:
            if not observed:
                raise ValueError("decodes_observations needs observations beside images; set it to False")
            self.observation_decoder = Decoder(size, observed + acted, config.decoder_sizes, observed, generator)
        self.add_heads(config, self.context_size, self.encoder.output_size, generator)

    @classmethod
    def from_settings(cls, interface: Interface, settings: Mapping[str, Any]) -> Self:
        """The network of a configuration, its weights still to be filled in."""
        config = codec.decode(BeliefPolicyConfig, settings, "policy", {})
        return cls(interface, config, generator=torch.Generator())

    def start(self, num_trials: int) -> Carry:
        """The encoder's carry, then the belief, which is the prior."""
        prior = self.reward_scale.new_zeros(num_trials, self.context_size)
        return (*self.memory.start(num_trials), prior)

    def read(self, step: TrialSteps, carry: Carry, alive: Tensor) -> Carry:
        """The carry after a step [trial, ...], where alive [trial]."""
        *memory, belief = carry
        outputs, after = self.memory.step(self._embed(self._transitions(step)), tuple(memory), alive)
        return (*after, torch.where(alive.unsqueeze(1), self.posterior(outputs), belief))

    def reinforced(self) -> list[nn.Parameter]:
        """The parameters of the policy; those of the belief are learned by the lower bound."""
        believing = {id(parameter) for parameter in self.believing()}
        return [parameter for parameter in self.parameters() if id(parameter) not in believing]

    def believing(self) -> list[nn.Parameter]:
        """The parameters of the encoder of beliefs and of the decoders."""
        parts = (self.embedding, self.memory, self.posterior, self.reward_decoder, self.observation_decoder)
        return [parameter for part in parts if part is not None for parameter in part.parameters()]

    def posteriors(self, steps: TrialSteps) -> DiagonalGaussian:
        """Posteriors after 0 to T steps [T, trial, ...] of trials, [T + 1, trial, latent]; differentiable."""
        inputs = self._transitions(steps)
        outputs, _ = self.memory.unroll(self._embed(inputs), self.memory.start(inputs.shape[1]))
        beliefs = self.posterior(outputs)
        mean, log_variance = torch.cat((torch.zeros_like(beliefs[:1]), beliefs)).chunk(2, -1)
        return DiagonalGaussian(mean, 0.5 * log_variance)

    def targets(self, steps: TrialSteps, observation_coef: float) -> list[Target]:
        """Decoded numbers: rewards as they are observed, and perhaps changes of observations.

        Args:
            steps: Steps of trials, [T, trial, ...].
            observation_coef: Weight of the squared error of observations.
        """
        acted, rewards = self.actions.encode(steps.actions), self.observed_rewards(steps.rewards).unsqueeze(-1)
        if not self.num_fixed:
            return [Target(self.reward_decoder, acted, rewards, 1.0)]
        before, after = self.fixed_features(steps.observations), self.fixed_features(steps.next_observations)
        chosen = torch.cat((before, acted), -1)
        targets = [Target(self.reward_decoder, torch.cat((chosen, after), -1), rewards, 1.0)]
        if self.observation_decoder is not None:
            targets.append(Target(self.observation_decoder, chosen, after - before, observation_coef))
        return targets

    def _transitions(self, steps: TrialSteps) -> Tensor:
        """Inputs of the encoder, [..., in]."""
        rewards = self.observed_rewards(steps.rewards)
        scalars = torch.stack((rewards, steps.terminated.to(rewards), steps.truncated.to(rewards)), -1)
        parts = [self.actions.encode(steps.actions), scalars]
        if self.num_fixed:
            parts += [self.fixed_features(steps.observations), self.fixed_features(steps.next_observations)]
        return torch.cat(parts, -1)

    def _embed(self, inputs: Tensor) -> Tensor:
        return inputs if self.embedding is None else self.embedding(inputs).relu()
