"""The posterior of a task: a Gaussian over its latent, inferred from the transitions observed so far.

    set        every transition gives a Gaussian factor, and the posterior is their product: the order of a context
               does not matter, and reading one more transition adds two vectors
    recurrent  an LSTM reads the context in order, and its output gives the posterior

Both read a context a piece at a time, from a carry to a carry, so that inferring from a batch in training and
transition by transition while acting are the same computation. An empty context gives the prior N(0, I).

The prior is not one more factor of the product (as in the published code): with a single transition seen, the
posterior is that transition's factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from metarl.nets.memories import Carry, RecurrentMemory
from metarl.nets.networks import Mlp
from metarl.runs.configs import MOST_UNITS, Configuration, check_counts, check_sizes

_MIN_VARIANCE = 1e-7
# Of a recurrent posterior, before the softplus: a variance of 0.05, as that of a product of ten untrained factors.
# From a variance near the prior's, the critics learned that the latent is noise before there was any signal in it.
_FIRST_RAW_VARIANCE = -3.0


@dataclass(frozen=True)
class ContextConfig(Configuration):
    """Configuration of the inference network.

    Attributes:
        kind: Kind of network that reads the context.
        latent_size: Number of dimensions of the latent task variable z.
        hidden_sizes: Hidden layer sizes of the network; the first is the LSTM's size if it is recurrent.
        next_observations: Whether a transition's next observation is read too: if the dynamics vary, it reveals
            more of the task than observation, action and reward.
    """

    kind: Literal["set", "recurrent"] = "set"
    latent_size: int = 5
    hidden_sizes: tuple[int, ...] = (200, 200, 200)
    next_observations: bool = False

    def __post_init__(self) -> None:
        check_counts(self, "latent_size", most=MOST_UNITS)
        check_sizes(self, "hidden_sizes")


class Latent(NamedTuple):
    """Independent Gaussians over the latent task variable.

    Attributes:
        mean: Means of the latents, [task, latent].
        variance: Variances of the latents, [task, latent].
    """

    mean: Tensor
    variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Latents [task, latent] made of standard normal noise of that shape."""
        return self.mean + self.variance.sqrt() * noise

    def kl(self) -> Tensor:
        """KL(self || N(0, I)), summed over the latent's dimensions, [task]."""
        return 0.5 * (self.mean.square() + self.variance - 1 - self.variance.log()).sum(-1)


def product_of_gaussians(precision: Tensor, shift: Tensor) -> Latent:
    """The normalised product of Gaussian factors; of no factors, N(0, I).

    Args:
        precision: Sum of 1 / variance over the factors, [task, latent].
        shift: Sum of mean / variance over the factors, [task, latent].
    """
    variance = torch.where(precision > 0, precision, 1.0).reciprocal()
    return Latent(shift * variance, variance)


def transition_inputs(
    observations: Tensor, actions: Tensor, rewards: Tensor, next_observations: Tensor | None
) -> Tensor:
    """Context rows [..., in] of transitions, whose rewards are [...]."""
    parts = (observations, actions, rewards.unsqueeze(-1))
    return torch.cat(parts if next_observations is None else (*parts, next_observations), -1)


def make_inference_network(
    config: ContextConfig, obs_size: int, act_size: int, generator: torch.Generator
) -> "SetEncoder | RecurrentEncoder":
    """The configured network, with fresh weights."""
    input_size = obs_size + act_size + 1 + (obs_size if config.next_observations else 0)
    kind = SetEncoder if config.kind == "set" else RecurrentEncoder
    return kind(input_size, config.hidden_sizes, config.latent_size, generator=generator)


class SetEncoder(nn.Module):
    """A product of one Gaussian factor per transition (Rakelly et al. 2019, section 4.1).

    The carry is the sums of the factors' precisions and of their means times precisions, each [task, latent].

    Args:
        input_size: Number of features of a context row.
        hidden_sizes: Hidden layer sizes of the network that maps a row to a factor.
        latent_size: Number of dimensions of the latent z.
        generator: Generator that draws the weights.
    """

    def __init__(
        self, input_size: int, hidden_sizes: Sequence[int], latent_size: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self._latent_size = latent_size
        self.network = Mlp(input_size, hidden_sizes, 2 * latent_size, activation="relu", generator=generator)
        start_near_zero(self.network)

    def start(self, num_tasks: int) -> Carry:
        """The carry without any factors."""
        zeros = self.network.get_parameter("bias_0").new_zeros(num_tasks, self._latent_size)
        return zeros, zeros.clone()

    def read(self, context: Tensor, carry: Carry) -> Carry:
        """Add the factors of context rows [task, row, in]."""
        mean, variance = _gaussian(self.network.rows(context.flatten(0, 1)).view(*context.shape[:2], -1))
        precision = variance.reciprocal()
        return carry[0] + precision.sum(1), carry[1] + (mean * precision).sum(1)

    def posterior(self, carry: Carry) -> Latent:
        """The product of all factors."""
        return product_of_gaussians(*carry)


class RecurrentEncoder(nn.Module):
    """An LSTM that reads transitions in their order; its output gives the posterior.

    The carry is the LSTM's output and cell [task, hidden], and how many rows were read [task, 1].

    Args:
        input_size: Number of features of a context row.
        hidden_sizes: Sizes of the LSTM, then of the hidden layers from its state to the posterior.
        latent_size: Number of dimensions of the latent z.
        generator: Generator that draws the weights.
    """

    def __init__(
        self, input_size: int, hidden_sizes: Sequence[int], latent_size: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        width, *rest = hidden_sizes
        self.memory = RecurrentMemory("lstm", input_size, width, generator=generator)
        self.network = Mlp(width, rest, 2 * latent_size, activation="relu", generator=generator)
        with torch.no_grad():
            self.network.get_parameter(f"bias_{self.network.num_layers - 1}")[latent_size:] = _FIRST_RAW_VARIANCE

    def start(self, num_tasks: int) -> Carry:
        """The carry before any row is read."""
        state = self.memory.start(num_tasks)
        return *state, state[0].new_zeros(num_tasks, 1)

    def read(self, context: Tensor, carry: Carry) -> Carry:
        """Read context rows [task, row, in] one after the other."""
        *state, count = carry
        _, after = self.memory.unroll(context.transpose(0, 1), tuple(state))
        return *after, count + context.shape[1]

    def posterior(self, carry: Carry) -> Latent:
        """The posterior at the LSTM's state, or the prior if nothing was read."""
        state, count = carry[0], carry[-1]
        mean, variance = _gaussian(self.network(state))
        return Latent(torch.where(count > 0, mean, 0.0), torch.where(count > 0, variance, 1.0))


def start_near_zero(network: Mlp) -> None:
    """Shrink a network's last layer, so that what it puts out at first is small and the same for all inputs."""
    with torch.no_grad():
        network.get_parameter(f"weight_{network.num_layers - 1}").mul_(0.01)


def _gaussian(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance, each [..., latent], from a network's outputs [..., 2 * latent]."""
    mean, raw = outputs.chunk(2, -1)
    return mean, nn.functional.softplus(raw).clamp(min=_MIN_VARIANCE)
