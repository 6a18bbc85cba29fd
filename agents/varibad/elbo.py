"""The evidence lower bound of VariBAD (Zintgraf et al. 2020, equation 8), for the posteriors of all steps at once.

    ELBO = sum over t = 0..T of  E_{q_t}[ sum over s = 1..T of log p(step s | z) ] - KL(q_t || q_{t-1})

q_t is the posterior of the latent z after t steps of a trial of T; q_0 is the prior N(0, I), and has no KL term.
Each expectation is one sample. A step's log likelihood is minus a squared error.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarl.nets.distributions import DiagonalGaussian
from metarl.nets.networks import Mlp


class Decoder(nn.Module):
    """A network that predicts numbers of a step from a latent: every step from every latent of its trial.

    The first layer's products with latents and with steps are made apart, and only their sums for all pairs.

    Args:
        latent_size: Number of latent dimensions.
        step_size: Number of inputs that describe a step.
        hidden_sizes: Widths of the hidden layers, of which there is at least one.
        output_size: Number of predicted numbers.
        generator: Source of the weights.
    """

    def __init__(
        self,
        latent_size: int,
        step_size: int,
        hidden_sizes: Sequence[int],
        output_size: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        first, *rest = hidden_sizes
        self.of_latent = Mlp(latent_size, (), first, activation="relu", generator=generator)
        self.of_step = Mlp(step_size, (), first, activation="relu", generator=generator)
        self.rest = Mlp(first, rest, output_size, activation="relu", generator=generator)

    def forward(self, latents: Tensor, steps: Tensor) -> Tensor:
        """Predictions [posterior, step, trial, out].

        Args:
            latents: Latents, [posterior, trial, latent].
            steps: Inputs that describe steps, [step, trial, in].
        """
        hidden = self.of_latent(latents).unsqueeze(1) + self.of_step(steps)
        predictions: Tensor = self.rest(hidden.relu())
        return predictions


class Target(NamedTuple):
    """Numbers of every step that a decoder predicts.

    Attributes:
        decoder: Network that predicts them.
        inputs: Inputs of the decoder beside the latent, [step, trial, in].
        numbers: Numbers to be predicted, [step, trial, out].
        weight: Factor of their squared error.
    """

    decoder: Decoder
    inputs: Tensor
    numbers: Tensor
    weight: float


class Axes(NamedTuple):
    """Places on the two time axes of the bound that are computed; each sum is scaled up to the whole axis.

    Attributes:
        posteriors: Numbers of steps t after which posteriors are decoded, int64 [posterior], from 0 to T.
        steps: Indices of the steps that are decoded, int64 [step], from 0 to T - 1.
    """

    posteriors: Tensor
    steps: Tensor

    @staticmethod
    def draw(time: int, num_posteriors: int | None, num_steps: int | None, generator: torch.Generator) -> "Axes":
        """Random places without replacement; all of an axis where the number is None or no less."""

        def places(size: int, number: int | None) -> Tensor:
            if number is None or number >= size:
                return torch.arange(size)
            return torch.randperm(size, generator=generator)[:number].sort().values

        return Axes(places(time + 1, num_posteriors), places(time, num_steps))


class Elbo(NamedTuple):
    """Terms of the bound of every trial, each [trial].

    Attributes:
        errors: Squared errors, weighted, summed over posteriors, steps and targets; minus the log likelihood.
        kl: KL divergences from each posterior to the one before, summed over time, in nats.
    """

    errors: Tensor
    kl: Tensor


def elbo(posteriors: DiagonalGaussian, noise: Tensor, targets: Sequence[Target], mask: Tensor, axes: Axes) -> Elbo:
    """The terms of the bound of every trial; where axes are subsets, unbiased estimates of them.

    Args:
        posteriors: Posteriors after 0 to T steps, [T + 1, trial, latent]; the first is the prior.
        noise: Standard normal numbers that latents are made of, one per posterior of the axes,
            [posterior, trial, latent].
        targets: Decoded numbers of all T steps.
        mask: True for real steps, [T, trial].
        axes: Posteriors and steps that are decoded.
    """
    time = len(mask)
    latents = DiagonalGaussian(*(part[axes.posteriors] for part in posteriors)).sample(noise)
    # The posterior after t steps belongs to a trial that has had so many.
    reached = torch.cat((torch.ones_like(mask[:1]), mask))[axes.posteriors]
    pairs = reached.unsqueeze(1) & mask[axes.steps]  # [posterior, step, trial]
    scale = (time + 1) * time / (len(axes.posteriors) * len(axes.steps))
    errors = torch.zeros_like(noise[0, :, 0])
    for target in targets:
        predictions = target.decoder(latents, target.inputs[axes.steps])
        squares = (predictions - target.numbers[axes.steps]).square().sum(-1)
        errors = errors + target.weight * scale * (squares * pairs).sum((0, 1))
    return Elbo(errors, (kl_to_previous(posteriors) * mask).sum(0))


def decoding_errors(latents: Tensor, targets: Sequence[Target]) -> Tensor:
    """Weighted squared errors of every step, decoded from a latent of its own, [T, trial].

    Args:
        latents: A latent for every step, [T, trial, latent].
        targets: Decoded numbers of all T steps.
    """
    shape = latents.shape[:2]
    errors = latents.new_zeros(shape)
    for target in targets:
        pairs = (part.flatten(0, 1).unsqueeze(0) for part in (latents, target.inputs))
        predictions = target.decoder(*pairs)[0, 0].view(*shape, -1)
        errors = errors + target.weight * (predictions - target.numbers).square().sum(-1)
    return errors


def kl_to_previous(posteriors: DiagonalGaussian) -> Tensor:
    """KL of each posterior to the one before, [T, trial], of posteriors [T + 1, trial, latent]."""
    before, after = (DiagonalGaussian(*(part[where] for part in posteriors)) for where in _NEIGHBOURS)
    return after.kl(before)


_NEIGHBOURS = (slice(None, -1), slice(1, None))
