"""Prototypical networks: a class is the mean of its embedded examples (Snell et al. 2017, arXiv:1703.05175).

    p_c = mean of f(x) over the support examples of class c
    logits_c = -|f(x) - p_c|^2                             squared, which makes it a linear classifier of f(x)

Cosine: logits_c = s cos(f(x), p_c) with a learned s. Gaussian (Fort 2017, arXiv:1708.02735): the network also says
how sure it is of every feature; p_c weighs by it, and distances are measured in class c's total precision.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.metric import (
    MetricLearner,
    Solution,
    check_vectors,
    class_means,
    cosines,
    one_hot,
    squared_distances,
)
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.outer import OuterConfig
from metarl.runs.configs import check_positive

Distance = Literal["squared_euclidean", "cosine", "gaussian"]


@dataclass(frozen=True)
class PrototypicalConfig(LearnerConfig):
    """The hyperparameters of prototypical networks.

    Attributes:
        distance: Distance of features from prototypes. "gaussian" takes half of the features as raw precisions.
            Rectified features make them 1.7 and more; how many times one is another matters, and the features' own
            scale does the rest.
        scale: Factor of cosines at the start, s; it is learned.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    distance: Distance = "squared_euclidean"
    scale: float = 10.0
    normalisation: NormStatistics = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_positive(self, "scale")

    def make(self, setup: LearnerSetup) -> "Prototypical":
        """The untrained learner, whose network puts out features."""
        setup.require("classification", self)
        return Prototypical(
            setup.feature_network(), replace(self, outer=self.outer.over(setup.num_updates))
        ).trained_by(setup.objective)


class Scale(nn.Module):
    """A learned positive factor.

    Args:
        start: Value of the factor before training.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(start).log())

    def forward(self) -> Tensor:
        """The value of the factor."""
        return self.log.exp()


class Prototypical(MetricLearner):
    """A learner by prototypical networks; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: Hyperparameters.
    """

    def __init__(self, module: nn.Module, config: PrototypicalConfig) -> None:
        self.config = config
        self.never_positive = config.distance != "cosine"
        head = Scale(config.scale) if config.distance == "cosine" else None
        super().__init__(module, config.normalisation, config.outer, head)

    def solve(self, support: Tensor, targets: Tensor) -> Solution:
        """Prototypes [task, way, feature], and total precisions of the same shape if they are Gaussian."""
        check_vectors((support,))
        if self.config.distance == "gaussian":
            return _gaussian_prototypes(support, targets)
        return (class_means(support, targets),)

    def judge(self, solution: Solution, query: Tensor) -> Tensor:
        """Logits [task, row, way]."""
        check_vectors((query,))
        prototypes, *totals = solution
        if totals:
            return _gaussian_logits(prototypes, totals[0], query)
        if self.config.distance == "cosine":
            logits: Tensor = self.head() * cosines(query, prototypes)
            return logits
        return -squared_distances(query, prototypes)


def _gaussian_prototypes(support: Tensor, targets: Tensor) -> Solution:
    """The means of classes weighted by precision, and each class's precision, the sum of its examples'."""
    if support.shape[-1] % 2:
        raise ValueError(f"gaussian prototypes need an even number of features, got {support.shape[-1]}")
    places, raw = support.chunk(2, -1)
    precisions = 1 + nn.functional.softplus(raw)
    members = one_hot(targets, places).transpose(1, 2)  # [task, way, row]
    totals = members @ precisions
    return members @ (precisions * places) / totals, totals


def _gaussian_logits(prototypes: Tensor, totals: Tensor, query: Tensor) -> Tensor:
    """Minus the distances in each class's precision."""
    origin = prototypes.mean(1, keepdim=True).detach()  # as in `squared_distances`
    z, prototypes = query.chunk(2, -1)[0] - origin, prototypes - origin
    # (z - p)' S (z - p) = z^2 S - 2 z S p + p^2 S
    weighted = totals * prototypes
    distances = z.square() @ totals.transpose(1, 2) - 2 * z @ weighted.transpose(1, 2)
    return -(distances + (weighted * prototypes).sum(-1).unsqueeze(1))
