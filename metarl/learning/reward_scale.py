"""The running scale of rewards: agents that read rewards in units of it learn the same in any units."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.nets.devices import widened


def updated_scale(scale: Tensor, count: Tensor, rewards: Tensor) -> tuple[float, float]:
    """One over the root mean square of all rewards but zeros, so that rare rewards stay of unit size.

    Args:
        scale: Scale before these rewards; zero before the first.
        count: Number of non-zero rewards before these; infinity for a scale that stays as it is.
        rewards: Further rewards, of any shape.

    Returns:
        The new scale and the new count.
    """
    rewards = widened(rewards[rewards != 0])
    before = float(count)
    total = before + len(rewards)
    if not len(rewards) or math.isinf(before):
        return float(scale), before
    squares = before * float(scale) ** -2 if before else 0.0
    return ((squares + float(rewards.square().sum())) / total) ** -0.5, total


def observed_scale(scale: float, count: float, mean: float, total: float) -> float:
    """One over the unit in which rewards less their mean are observed, so that what differs between them is seen.

    Rewards of 8 and 9 would be 0.9 and 1 in units of their root mean square, and a policy hardly told them apart.
    The unit is the root mean square distance from the mean: of all rewards, or of those that are not zero if that
    is more, so that rare rewards stay of unit size; but at least a hundredth of the root mean square.

    Args:
        scale: One over the root mean square of the rewards that are not zero; zero if there are none.
        count: Number of these.
        mean: Mean of all rewards, zeros too.
        total: Number of all rewards.
    """
    if not scale:
        return 0.0
    square = scale**-2
    everywhere = square * count / total - mean**2
    of_others = square - 2 * mean**2 * total / count + mean**2  # those that are not zero
    return 1 / math.sqrt(max(everywhere, of_others, 1e-4 * square))


@dataclass
class RunningUnit:
    """The standard deviation of all numbers that were read, as a unit of them.

    Attributes:
        count: Number of numbers that were read.
        mean: Their mean.
        mean_square: Mean of their squares.
    """

    count: float = 0.0
    mean: float = 0.0
    mean_square: float = 0.0

    def read(self, numbers: Tensor) -> None:
        """Take in further numbers, of any shape."""
        numbers = widened(numbers)
        self.count += numbers.numel()
        share = numbers.numel() / max(self.count, 1.0)
        if share:
            self.mean += share * (float(numbers.mean()) - self.mean)
            self.mean_square += share * (float(numbers.square().mean()) - self.mean_square)

    @property
    def unit(self) -> float:
        """The standard deviation, or a hundredth of the root mean square if that is more; one if all were zero."""
        variance = max(self.mean_square - self.mean**2, 1e-4 * self.mean_square)
        return math.sqrt(variance) or 1.0


class RewardScale(nn.Module):
    """A factor of rewards: one for ever, or one over the running root mean square of what was read so far.

    Args:
        running: Whether the factor is a running one, which is zero until a reward was read.
    """

    scale: Tensor
    count: Tensor

    def __init__(self, *, running: bool) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.0 if running else 1.0))
        self.register_buffer("count", torch.tensor(0.0 if running else math.inf))

    def forward(self, rewards: Tensor) -> Tensor:
        """The rewards in units of the scale."""
        return rewards * self.scale

    def read(self, rewards: Tensor) -> None:
        """Take further rewards into a running scale."""
        scale, count = updated_scale(self.scale, self.count, rewards)
        self.scale.fill_(scale)
        self.count.fill_(count)
