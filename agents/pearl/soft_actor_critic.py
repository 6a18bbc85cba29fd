"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1801.01290) whose networks read a latent task variable.

    critics   Q_i(s, a, z) -> c r + gamma (1 - terminated) V'(s', z)        V' follows V slowly; c is reward_scale
    value     V(s, z)      -> min_i Q_i(s, a, z) - alpha log pi(a|s, z)     a ~ pi
    actor     max             min_i Q_i(s, a, z) - alpha log pi(a|s, z)     minus a little |mean|^2 + |log std|^2

The two critics are one batched network of independent members. The actor's loss passes through them without
making gradients of their weights, which a separate network of its own would compute and throw away.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarl.agents.pearl.context import start_near_zero
from metarl.learning.losses import bellman_targets, critic_loss, soft_values, temperature_loss
from metarl.learning.replay import Transitions
from metarl.nets.distributions import TanhGaussian
from metarl.nets.networks import Mlp

_LOG_STD_RANGE = (-20.0, 2.0)


class ActorLosses(NamedTuple):
    """The losses of the second half of an update, and a metric.

    Attributes:
        actor: Loss of the policy, with its regularisation.
        value: Loss of the value network.
        temperature: Loss of log alpha; zero if alpha is fixed.
        log_prob: Mean of log pi.
    """

    actor: Tensor
    value: Tensor
    temperature: Tensor
    log_prob: Tensor


class LatentPolicy(nn.Module):
    """A tanh-Gaussian policy pi(a | s, z) on a latent z.

    Args:
        obs_size: Number of observation features.
        act_size: Number of action dimensions.
        latent_size: Number of dimensions of the latent z.
        hidden_sizes: Hidden layer sizes of the network.
        generator: Generator that draws the weights.
    """

    def __init__(
        self,
        obs_size: int,
        act_size: int,
        latent_size: int,
        hidden_sizes: Sequence[int],
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.obs_size, self.act_size, self.latent_size = obs_size, act_size, latent_size
        inputs = obs_size + latent_size
        self.network = Mlp(inputs, hidden_sizes, 2 * act_size, activation="relu", generator=generator)
        start_near_zero(self.network)

    def distribution(self, observations: Tensor, latents: Tensor) -> TanhGaussian:
        """The distribution of actions at observations [row, obs] and latents [row, latent]."""
        mean, log_std = self.network.rows(torch.cat((observations, latents), -1)).chunk(2, -1)
        return TanhGaussian(mean, log_std.clamp(*_LOG_STD_RANGE))


class SoftActorCritic(nn.Module):
    """Policy, twin critics, value and target value, and their losses.

    Args:
        obs_size: Number of observation features.
        act_size: Number of action dimensions.
        latent_size: Number of dimensions of the latent z.
        hidden_sizes: Hidden layer sizes of each network.
        temperature: Initial temperature alpha.
        generator: Generator that draws the weights.
    """

    def __init__(
        self,
        obs_size: int,
        act_size: int,
        latent_size: int,
        hidden_sizes: Sequence[int],
        *,
        temperature: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.policy = LatentPolicy(obs_size, act_size, latent_size, hidden_sizes, generator=generator)
        inputs = obs_size + act_size + latent_size
        self.critics = Mlp(inputs, hidden_sizes, 1, activation="relu", generator=generator, num_members=2)
        state_inputs = obs_size + latent_size
        self.value = Mlp(state_inputs, hidden_sizes, 1, activation="relu", generator=generator)
        for network in (self.critics, self.value):
            start_near_zero(network)
        self.target_value = Mlp(state_inputs, hidden_sizes, 1, activation="relu", generator=generator)
        self.target_value.load_state_dict(self.value.state_dict())
        self.target_value.requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())

    def critic_loss(self, batch: Transitions, latents: Tensor, *, gamma: float, reward_scale: float) -> Tensor:
        """The loss of the twin critics on rows; gradients reach their weights and the latents [row, latent]."""
        with torch.no_grad():
            next_values = self.target_value.rows(torch.cat((batch.next_observations, latents), -1)).squeeze(-1)
            targets = bellman_targets(reward_scale * batch.rewards, batch.terminated, next_values, gamma=gamma)
        inputs = torch.cat((batch.observations, batch.actions, latents), -1)
        return critic_loss(self.critics.rows(inputs).squeeze(-1), targets)

    def actor_losses(
        self,
        observations: Tensor,
        latents: Tensor,
        noise: Tensor,
        *,
        regularisation: float,
        target_entropy: float | None,
    ) -> ActorLosses:
        """The losses of policy, value and temperature on rows; no gradient reaches critics or latents.

        Args:
            observations: Observations, [row, obs].
            latents: Latents of the rows' tasks, [row, latent].
            noise: Standard normal noise of the actions, [row, act].
            regularisation: Weight of |mean|^2 + |log std|^2 of the policy's output.
            target_entropy: Entropy that the temperature is adjusted to; None leaves the temperature as it is.
        """
        latents = latents.detach()
        distribution = self.policy.distribution(observations, latents)
        actions, log_probs = distribution.sample_with_log_prob(noise)
        temperature = self.log_temperature.detach().exp()
        criticisms = self.critics.rows(torch.cat((observations, actions, latents), -1), frozen=True).squeeze(-1)
        values = soft_values(criticisms, log_probs, temperature)
        predicted = self.value.rows(torch.cat((observations, latents), -1)).squeeze(-1)
        size = distribution.mean.square().mean() + distribution.log_std.square().mean()
        towards = predicted.new_zeros(())
        if target_entropy is not None:
            towards = temperature_loss(self.log_temperature, log_probs, target_entropy)
        return ActorLosses(
            actor=regularisation * size - values.mean(),
            value=(predicted - values.detach()).square().mean(),
            temperature=towards,
            log_prob=log_probs.detach().mean(),
        )

    def follow(self, rate: float) -> None:
        """Move the target value a fraction of the way to the value."""
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target_value.parameters()), list(self.value.parameters()), rate)
