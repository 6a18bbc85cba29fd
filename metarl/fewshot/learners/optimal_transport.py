"""Prototypes that move by optimal transport (PT-MAP, Hu et al. 2021, arXiv:2006.03806). Transductive.

    z = (f(x) + 1e-6)^0.5, of length 1, less the mean of all examples of the task
    p_c = mean of z over the support examples of class c
    repeat transport_steps times:
        P = Sinkhorn(-s |z - p_c|^2): rows of sum 1, and for every class the same number of queries
        p_c += rate (mean of z over class c's support examples and the queries, weighted by P - p_c)
    P(class | x) = P

A prediction depends on the other queries, and every class is taken to have as many queries as every other:
accuracies do not compare with those of learners that take each query by itself, and need balanced query sets.

How we differ: the network is trained through these steps; features must not be negative, as rectified ones.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.learners.prototypical import Scale
from metarl.fewshot.metric import (
    MetricLearner,
    Solution,
    check_vectors,
    class_means,
    one_hot,
    squared_distances,
)
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.outer import OuterConfig
from metarl.runs.configs import MOST_REPEATS, check_counts, check_fraction, check_positive


@dataclass(frozen=True)
class OptimalTransportConfig(LearnerConfig):
    """The hyperparameters of optimal transport, whose predictions depend on the other queries.

    Attributes:
        transport_steps: Number of times that prototypes move.
        rate: Share of the way that prototypes move each time, in (0, 1].
        sinkhorn_iters: Number of times that the plan's sums are put right.
        scale: Factor of squared distances, s, at the start; it is learned.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    transport_steps: int = 10
    rate: float = 0.4
    sinkhorn_iters: int = 20
    scale: float = 10.0
    normalisation: NormStatistics = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_counts(self, "transport_steps", "sinkhorn_iters", most=MOST_REPEATS)
        check_positive(self, "rate", "scale")
        check_fraction(self, "rate")

    def make(self, setup: LearnerSetup) -> "OptimalTransport":
        """The untrained learner, whose network puts out features."""
        setup.require("classification", self)
        return OptimalTransport(
            setup.feature_network(), replace(self, outer=self.outer.over(setup.num_updates))
        ).trained_by(setup.objective)


class OptimalTransport(MetricLearner):
    """A learner by optimal transport; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: Hyperparameters.
    """

    never_positive = True

    def __init__(self, module: nn.Module, config: OptimalTransportConfig) -> None:
        self.config = config
        super().__init__(module, config.normalisation, config.outer, Scale(config.scale))

    @property
    def judges_queries_together(self) -> bool:
        """Always: every query moves the others."""
        return True

    def judge(self, solution: Solution, query: Tensor) -> Tensor:
        """Logarithms of the classes' probabilities, [task, row, way]."""
        support, targets = solution
        check_vectors((support, query))
        features = power_transform(torch.cat([support, query], 1).double())
        known, new = features[:, : support.shape[1]], features[:, support.shape[1] :]
        members = one_hot(targets, known).transpose(1, 2)
        prototypes = class_means(known, targets)
        for _ in range(self.config.transport_steps):
            weights = self._plan(new, prototypes).exp().transpose(1, 2)
            counts = (members.sum(2) + weights.sum(2)).unsqueeze(-1)
            prototypes = prototypes.lerp((members @ known + weights @ new) / counts, self.config.rate)
        return self._plan(new, prototypes).to(query.dtype)

    def _plan(self, queries: Tensor, prototypes: Tensor) -> Tensor:
        return sinkhorn(-self.head() * squared_distances(queries, prototypes), self.config.sinkhorn_iters)


def power_transform(features: Tensor) -> Tensor:
    """Square roots of features [task, row, feature], of length 1, less their mean.

    Raises:
        ValueError: If a feature is negative.
    """
    if bool((features < 0).any()):
        raise ValueError(
            "optimal transport needs features that are not negative; end the network with a ReLU, as with "
            "--backbone.rectified True"
        )
    unit = nn.functional.normalize((features + 1e-6).sqrt(), dim=-1)
    return unit - unit.mean(1, keepdim=True)


def sinkhorn(logits: Tensor, num_iters: int) -> Tensor:
    """Logarithms of the plan exp(logits) whose rows sum to 1 and whose columns sum to equal numbers of rows.

    Args:
        logits: Logarithms up to factors of rows and columns, [task, row, way].
        num_iters: Number of times that columns and rows are put right, the rows last.
    """
    share = math.log(logits.shape[1] / logits.shape[2])
    for _ in range(num_iters):
        logits = logits - logits.logsumexp(1, keepdim=True) + share
        logits = logits.log_softmax(2)
    return logits
