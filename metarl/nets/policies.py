"""Stochastic policies as modules with functional calls, and the distributions they put out."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarl.learning.bilevel import Params
from metarl.nets.networks import Activation, Mlp


class DiagonalGaussian(NamedTuple):
    """Independent normals; the last axis is the action's.

    Attributes:
        mean: shape [..., act].
        log_std: broadcastable to the mean.
    """

    mean: Tensor
    log_std: Tensor

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density, summed over the action's dimensions, shape [...]."""
        z = (actions - self.mean) * torch.exp(-self.log_std)
        return -(0.5 * z.square() + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """Actions made of standard normal noise of the mean's shape."""
        return self.mean + self.log_std.exp() * noise

    def entropy(self) -> Tensor:
        """Differential entropy in nats, summed over the action's dimensions, shape [...]."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).expand_as(self.mean).sum(-1)

    def kl(self, other: "DiagonalGaussian") -> Tensor:
        """KL(self || other), summed over the action's dimensions, shape [...]."""
        ratio = torch.exp(2 * (self.log_std - other.log_std))
        offset = (self.mean - other.mean) * torch.exp(-other.log_std)
        return (0.5 * (ratio + offset.square() - 1) + other.log_std - self.log_std).sum(-1)

    def fisher(self, tangent: "DiagonalGaussian") -> "DiagonalGaussian":
        """The Fisher information in (mean, log_std) times a tangent: 1/std^2 and 2 on the diagonal.

        It is the Hessian of KL(self || .) at self, and of KL(. || self) too.
        """
        return DiagonalGaussian(
            tangent.mean * torch.exp(-2 * self.log_std), 2 * tangent.log_std.expand_as(tangent.mean)
        )


class TanhGaussian(NamedTuple):
    """Independent normals squashed into (-1, 1) by tanh; the last axis is the action's.

    Attributes:
        mean: before the tanh, shape [..., act].
        log_std: before the tanh, shape [..., act].
    """

    mean: Tensor
    log_std: Tensor

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [..., act] made of standard normal noise of that shape, and their log densities [...].

        log(1 - tanh(u)^2) is 2 (log 2 - u - softplus(-2 u)), which is exact where the plain form rounds to log 0.
        """
        normal = DiagonalGaussian(self.mean, self.log_std)
        squashed = normal.sample(noise)
        shrinkage = 2 * (math.log(2) - squashed - nn.functional.softplus(-2 * squashed))
        density = -(0.5 * noise.square() + self.log_std + 0.5 * math.log(2 * math.pi)) - shrinkage
        return squashed.tanh(), density.sum(-1)

    def mode(self) -> Tensor:
        """The action of the mean, [..., act]: what a deterministic policy does."""
        return self.mean.tanh()


class Categorical(NamedTuple):
    """A choice among some actions.

    Attributes:
        log_probs: normalised, shape [..., choice]; `Categorical.of` takes logits.
    """

    log_probs: Tensor

    @staticmethod
    def of(logits: Tensor) -> "Categorical":
        """From unnormalised log probabilities [..., choice]."""
        return Categorical(torch.log_softmax(logits, -1))

    def sample(self, noise: Tensor) -> Tensor:
        """Choices, int64 [...], made of noise uniform in [0, 1) of that shape."""
        cumulative = self.log_probs.exp().cumsum(-1)
        below = cumulative[..., :-1] <= noise.unsqueeze(-1)  # the last choice takes what rounding leaves
        return below.sum(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log probability of choices [...], shape [...]."""
        return self.log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Entropy in nats, shape [...]."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)


class GaussianPolicy(nn.Module):
    """A diagonal Gaussian with a state-independent log standard deviation (Finn et al. 2017).

    All its parameters, the log standard deviation included, are adapted by gradient-based learners. With
    parameters that have a leading task axis, observations must be [task, row, obs].

    Args:
        obs_size: observation features.
        act_size: action dimensions.
        hidden_sizes: of the mean's network.
        activation: of the mean's network.
        init_std: standard deviation at the start.
        min_std: floor of the standard deviation.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        obs_size: int,
        act_size: int,
        *,
        hidden_sizes: Sequence[int],
        activation: Activation,
        init_std: float,
        min_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.obs_size, self.act_size = obs_size, act_size
        self.mean = Mlp(obs_size, hidden_sizes, act_size, activation=activation, generator=generator)
        self.log_std = nn.Parameter(torch.full((act_size,), math.log(init_std)))
        self._min_log_std = math.log(min_std)

    def parameter_dict(self) -> Params:
        """The parameters as data."""
        return dict(self.named_parameters())

    def distribution(self, params: Params, observations: Tensor) -> DiagonalGaussian:
        """The action distribution under other parameters; nothing of the module is changed."""
        log_std = params["log_std"].clamp(min=self._min_log_std)
        if log_std.dim() == 2:
            log_std = log_std.unsqueeze(1)  # [task, 1, act]
        return DiagonalGaussian(self.mean.call(params, observations, prefix="mean."), log_std)
