"""One step of PEARL as a function of tensors alone: reading a transition, drawing a latent, acting."""

import copy

import torch
from torch import Tensor

from metarl.agents.pearl.networks import ActingNetworks
from metarl.deploy.steps import LATENT_NOISE, Noise, PolicyStep, StepInputs
from metarl.nets.distributions import TanhGaussian
from metarl.nets.memories import Carry

LATENT_STREAM = 1 << 63
"""Bit of the seed that sets the latent's noise apart, so that noise in actions changes nothing of the latents."""


class LatentStep(PolicyStep):
    """Reads the last transition, draws a latent where an episode begins, and acts on the latent.

    The state is the carry of the context, the latent, and the number of episodes that have begun.

    Args:
        networks: Networks on any device.
        read: Carry of one context; None for an empty one.
        num_prior: Number of episodes whose latent is drawn from the prior.
        num_context: Number of episodes whose transitions are read; None for all.
        sampling: True to sample actions, false to take the policy's mode.
    """

    def __init__(
        self,
        networks: ActingNetworks,
        read: Carry | None,
        *,
        num_prior: int,
        num_context: int | None,
        sampling: bool,
    ) -> None:
        networks = copy.deepcopy(networks).cpu()
        size = networks.policy.latent_size
        carry = networks.encoder.start(1) if read is None else read
        super().__init__(
            networks.interface,
            networks.actions,
            sampling=sampling,
            state=(*carry, torch.zeros(1, size), torch.zeros(1, dtype=torch.int64)),
            reads="outcomes",
            noise={LATENT_NOISE: Noise((size,), per="episode", stream=LATENT_STREAM)},
        )
        self.networks, self._num_prior, self._num_context = networks, num_prior, num_context

    def decide(self, inputs: StepInputs) -> tuple[TanhGaussian, Carry]:
        """The distribution over actions, and the state after the step."""
        *before, latents, episode = inputs.state
        carry = self._read(inputs, tuple(before), episode)
        noise = inputs.noise[LATENT_NOISE]
        posterior = self.networks.encoder.posterior(carry).sample(noise)
        drawn = torch.where((episode < self._num_prior).unsqueeze(1), noise, posterior)
        latents = torch.where(inputs.begins.unsqueeze(1), drawn, latents)
        features = self.networks.observations(inputs.observations)
        state = (*carry, latents, episode + inputs.begins.long())
        return self.networks.policy.distribution(features, latents), state

    def _read(self, inputs: StepInputs, carry: Carry, episode: Tensor) -> Carry:
        """The carry of the context with the last transition, if there is one to be read."""
        reads = inputs.happened
        if self._num_context is not None:
            reads = reads & (episode <= self._num_context)
        last = inputs.last
        rows = self.networks.context_rows(last.observations, last.actions, last.rewards, last.next_observations)
        after = self.networks.encoder.read(rows.unsqueeze(1), carry)
        return tuple(torch.where(reads.unsqueeze(1), new, old) for new, old in zip(after, carry, strict=True))
