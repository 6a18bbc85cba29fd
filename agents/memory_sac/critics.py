"""An ensemble of critics on what a memory has read, under several discounts at once, in normalised units.

    Q_ig(h, a) = mean_g + scale_g * head_g of member i (h, a)        h: memory's features and the step's inputs

With normalised values (PopArt, van Hasselt et al. 2016, arXiv:1602.07714) mean_g and scale_g follow the targets of
discount g, and the last layer changes with them so that no value does. They start at 0 and 1, where they stay
without normalisation: units that took the first targets in full would shrink while these are still all alike.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metarl.nets.actions import ActionMap
from metarl.nets.networks import Mlp

_LEAST_SCALE = 1e-2  # of normalised values, in units of the reward


class Critics(nn.Module):
    """Independent members, each with a head per discount.

    Args:
        num_features: Number of features of a step.
        actions: Map of the action space: critics put out a value for each choice, or read continuous actions.
        hidden_sizes: Hidden layer sizes of each member.
        num_members: Number of members.
        num_discounts: Number of discounts.
        generator: Source of the weights.
    """

    mean: Tensor
    square: Tensor

    def __init__(
        self,
        num_features: int,
        actions: ActionMap,
        hidden_sizes: Sequence[int],
        *,
        num_members: int,
        num_discounts: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.num_choices = actions.num_outputs if actions.noise == "uniform" else None
        num_inputs = num_features + (0 if self.num_choices else actions.encoded_size)
        self._num_discounts = num_discounts
        self.members = Mlp(
            num_inputs,
            hidden_sizes,
            num_discounts * (self.num_choices or 1),
            activation="relu",
            generator=generator,
            num_members=num_members,
        )
        self.register_buffer("mean", torch.zeros(num_discounts))
        self.register_buffer("square", torch.ones(num_discounts))
        with torch.no_grad():  # values near zero, so that the first targets are the rewards
            self._last("weight").mul_(0.01)

    @property
    def scale(self) -> Tensor:
        """Unit of the values of each discount, in units of the reward, [discount]."""
        return (self.square - self.mean.square()).clamp(min=_LEAST_SCALE**2).sqrt()

    def forward(self, features: Tensor, acted: Tensor, *, frozen: bool = False) -> Tensor:
        """Values, in units of the reward, of encoded actions at features [..., feature].

        Args:
            features: Features of the steps.
            acted: Actions as the action map encodes them, [..., act]; of choices, one-hot.
            frozen: Whether the weights get no gradients.

        Returns:
            Values, [member, ..., discount].
        """
        if self.num_choices:
            return (self.of_choices(features, frozen=frozen) * acted.unsqueeze(-2)).sum(-1)
        return self.mean + self.scale * self._members(torch.cat((features, acted), -1), frozen)

    def of_choices(self, features: Tensor, *, frozen: bool = False) -> Tensor:
        """Values of every choice, in units of the reward, [member, ..., discount, choice]."""
        assert self.num_choices, "continuous actions have no list of values"
        outputs = self._members(features, frozen)
        outputs = outputs.view(*outputs.shape[:-1], self._num_discounts, self.num_choices)
        return self.mean.unsqueeze(-1) + self.scale.unsqueeze(-1) * outputs

    def _members(self, inputs: Tensor, frozen: bool) -> Tensor:
        outputs = self.members.rows(inputs.flatten(0, -2), frozen=frozen)
        return outputs.view(len(outputs), *inputs.shape[:-1], -1)

    def rescale(self, targets: Tensor, mask: Tensor, rate: float, others: "Critics") -> None:
        """Let the units follow the targets, of these critics and of others that share their units.

        Without a real step they stay.

        Args:
            targets: Targets in units of the reward, [..., discount].
            mask: Ones for real steps, [...].
            rate: Weight of these targets in the moments.
            others: Critics whose values stay as they are too.
        """
        weights = (mask.to(targets.dtype) / mask.sum().clamp(min=1)).unsqueeze(-1)
        axes = tuple(range(mask.dim()))
        mean, square = ((values * weights).sum(axes) for values in (targets, targets.square()))
        share = (rate * mask.any()).to(mean.dtype)
        mean, square = self.mean.lerp(mean, share), self.square.lerp(square, share)
        for critics in (self, others):
            critics._set_moments(mean, square)

    @torch.no_grad()
    def _set_moments(self, mean: Tensor, square: Tensor) -> None:
        """Take new units, and change the last layer so that the values in units of the reward stay."""
        before_mean, before_scale = self.mean.clone(), self.scale
        self.mean.copy_(mean)
        self.square.copy_(square)
        repeats = self.num_choices or 1
        factor = (before_scale / self.scale).repeat_interleave(repeats)
        shift = ((before_mean - self.mean) / self.scale).repeat_interleave(repeats)
        self._last("weight").mul_(factor)
        self._last("bias").mul_(factor).add_(shift)

    def _last(self, kind: str) -> nn.Parameter:
        return self.members.get_parameter(f"{kind}_{self.members.num_layers - 1}")
