"""Distributions over actions: tuples of tensors with whatever leading axes their parameters have.

Actions are made of noise that is passed in, so that a task's actions depend on its own random stream alone.
`fisher` multiplies a tangent of the parameters with the Fisher information, which is the Hessian of the KL
divergence at equal distributions.
"""

import math
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

# Log probability of a choice that does not exist. Its exponential is zero; it is finite, because zero times
# infinity is not a number.
NO_CHOICE = -1e9
_NEAREST_ONE = 1 - 1e-6  # of squashed actions whose density is asked for


class Distribution(Protocol):
    """A distribution over actions; a tuple of tensors that share their leading axes."""

    def sample(self, noise: Tensor) -> Tensor:
        """Actions [..., action] made of noise of that shape: standard normal, or uniform in [0, 1) if discrete."""

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log probability or density of actions, [...]."""

    def entropy(self) -> Tensor:
        """Entropy of the distribution in nats, [...]."""

    def kl(self, other: Self) -> Tensor:
        """KL(self || other) in nats, [...]."""

    def mode(self) -> Tensor:
        """The most probable actions."""

    def fisher(self, tangent: Self) -> Self:
        """The Fisher information in the parameters times a tangent of them."""


class DiagonalGaussian(NamedTuple):
    """Independent normals; the last axis is the action's.

    Attributes:
        mean: Means, shape [..., act].
        log_std: Logarithms of the standard deviations, broadcastable to the mean.
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

    def mode(self) -> Tensor:
        """The means, the most probable values."""
        return self.mean

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
        mean: Means before the tanh, shape [..., act].
        log_std: Logarithms of the standard deviations before the tanh, shape [..., act].
    """

    mean: Tensor
    log_std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Actions [..., act] made of standard normal noise of that shape."""
        return (self.mean + self.log_std.exp() * noise).tanh()

    def sample_with_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [..., act] made of standard normal noise of that shape, and their log densities [...]."""
        unbounded = self.mean + self.log_std.exp() * noise
        density = -(0.5 * noise.square() + self.log_std + 0.5 * math.log(2 * math.pi))
        return unbounded.tanh(), (density - _log_slope(unbounded)).sum(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density of actions [..., act], shape [...]; those at +-1 count as the nearest number inside."""
        unbounded = actions.clamp(-_NEAREST_ONE, _NEAREST_ONE).atanh()
        normal = DiagonalGaussian(self.mean, self.log_std)
        return normal.log_prob(unbounded) - _log_slope(unbounded).sum(-1)

    def kl(self, other: "TanhGaussian") -> Tensor:
        """KL(self || other), which is that of the normals: both are squashed alike. Shape [...]."""
        return DiagonalGaussian(self.mean, self.log_std).kl(DiagonalGaussian(other.mean, other.log_std))

    def mode(self) -> Tensor:
        """The action of the mean, [..., act]: what a deterministic policy does."""
        return self.mean.tanh()


def _log_slope(unbounded: Tensor) -> Tensor:
    """log(1 - tanh(u)^2), exact where the plain form rounds to log 0."""
    return 2 * (math.log(2) - unbounded - nn.functional.softplus(-2 * unbounded))


class Categorical(NamedTuple):
    """One choice among several.

    Attributes:
        log_probs: Normalised log probabilities, shape [..., choice]; `Categorical.of` takes logits.
    """

    log_probs: Tensor

    @staticmethod
    def of(logits: Tensor) -> "Categorical":
        """The distribution with unnormalised log probabilities [..., choice]."""
        return Categorical(torch.log_softmax(logits, -1))

    def sample(self, noise: Tensor) -> Tensor:
        """Choices, int64 [...], made of noise uniform in [0, 1) of that shape."""
        cumulative = self.log_probs.exp().cumsum(-1)
        below = cumulative[..., :-1] <= noise.unsqueeze(-1)  # the last choice takes what rounding leaves
        return below.sum(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log probability of choices [...], shape [...]."""
        return self.log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def mode(self) -> Tensor:
        """The most probable choices, int64 [...]."""
        return self.log_probs.argmax(-1)

    def entropy(self) -> Tensor:
        """Entropy in nats, shape [...]."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def kl(self, other: "Categorical") -> Tensor:
        """KL(self || other), shape [...]."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)

    def fisher(self, tangent: "Categorical") -> "Categorical":
        """The Fisher information in the normalised log probabilities times a tangent: E[dlog p dlog p^T]."""
        return Categorical(self.log_probs.exp() * tangent.log_probs)


class MultiCategorical(NamedTuple):
    """Several independent choices; the shorter ones are padded with choices of log probability `NO_CHOICE`.

    Attributes:
        log_probs: Normalised log probabilities, shape [..., component, choice].
    """

    log_probs: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Choices, int64 [..., component], made of noise uniform in [0, 1) of that shape."""
        cumulative = self.log_probs.exp().cumsum(-1)
        below = (cumulative[..., :-1] <= noise.unsqueeze(-1)) & (self.log_probs[..., 1:] > NO_CHOICE / 2)
        return below.sum(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log probability of choices [..., component], summed over the components, shape [...]."""
        return Categorical(self.log_probs).log_prob(actions).sum(-1)

    def mode(self) -> Tensor:
        """The most probable choices, int64 [..., component]."""
        return self.log_probs.argmax(-1)

    def entropy(self) -> Tensor:
        """Entropy in nats, summed over the components, shape [...]."""
        return Categorical(self.log_probs).entropy().sum(-1)

    def kl(self, other: "MultiCategorical") -> Tensor:
        """KL(self || other), summed over the components, shape [...]."""
        return Categorical(self.log_probs).kl(Categorical(other.log_probs)).sum(-1)

    def fisher(self, tangent: "MultiCategorical") -> "MultiCategorical":
        """The Fisher information in the normalised log probabilities times a tangent."""
        return MultiCategorical(self.log_probs.exp() * tangent.log_probs)


class Bernoulli(NamedTuple):
    """Independent bits; the last axis is the action's.

    Attributes:
        logits: Log odds of each bit, shape [..., bit].
    """

    logits: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Bits, int64 [..., bit], made of noise uniform in [0, 1) of that shape."""
        return (noise < self.logits.sigmoid()).long()

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log probability of bits [..., bit], summed over them, shape [...]."""
        signed = torch.where(actions > 0, self.logits, -self.logits)
        return nn.functional.logsigmoid(signed).sum(-1)

    def mode(self) -> Tensor:
        """The more probable value of each bit, int64 [..., bit]."""
        return (self.logits > 0).long()

    def entropy(self) -> Tensor:
        """Entropy in nats, summed over the bits, shape [...]."""
        return (nn.functional.softplus(self.logits) - self.logits * self.logits.sigmoid()).sum(-1)

    def kl(self, other: "Bernoulli") -> Tensor:
        """KL(self || other), summed over the bits, shape [...]."""
        differences = self.logits.sigmoid() * (self.logits - other.logits)
        offsets = nn.functional.softplus(other.logits) - nn.functional.softplus(self.logits)
        return (differences + offsets).sum(-1)

    def fisher(self, tangent: "Bernoulli") -> "Bernoulli":
        """The Fisher information in the log odds times a tangent: p (1 - p) on the diagonal."""
        return Bernoulli(self.logits.sigmoid() * (-self.logits).sigmoid() * tangent.logits)


AnyDistribution = DiagonalGaussian | Categorical | MultiCategorical | Bernoulli
"""The distributions that a policy can put out for an action space; see `metarl.nets.actions`."""
