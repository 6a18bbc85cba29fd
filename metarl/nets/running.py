"""Running mean and standard deviation of features, by which a policy normalises what it reads."""

import torch
from torch import Tensor, nn

_LIMIT = 10.0  # of normalised features
_LEAST_VARIANCE = 1e-6


class RunningMoments(nn.Module):
    """The mean and variance of all feature rows so far; before the first ones nothing is changed.

    Args:
        size: Number of features.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """Normalised features [..., feature], within +-10."""
        scale = self.variance.clamp(min=_LEAST_VARIANCE).rsqrt()
        return ((features - self.mean.float()) * scale.float()).clamp(-_LIMIT, _LIMIT)

    def update(self, rows: Tensor) -> None:
        """Take rows [row, feature] in, of which there is at least one (Chan et al. 1979's sum of moments)."""
        rows = rows.double()
        total = self.count + len(rows)
        share = len(rows) / total
        shift = rows.mean(0) - self.mean
        within = (1 - share) * self.variance + share * rows.var(0, correction=0)
        self.variance.copy_(within + share * (1 - share) * shift.square())
        self.mean.add_(share * shift)
        self.count.copy_(total)
