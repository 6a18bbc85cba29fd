"""Label propagation from support to query examples (TPN, Liu et al. 2019, arXiv:1805.10002). Transductive.

    W_ij = exp(-|f_i - f_j|^2 / (2 sigma^2)) between near neighbours among all examples of a task, 0 elsewhere
    S = D^-1/2 W D^-1/2,     F = (I - alpha S)^-1 Y,     P(class | x) = F_x / sum over classes

A prediction depends on the other queries: accuracies do not compare with those of learners that take each query by
itself.

How we differ: sigma is one learned fraction of the distances in a task, where theirs comes from a network on each
example. P is F itself, made to sum to 1, where theirs is a softmax of F, whose entries it can hardly tell apart.
Alpha is 0.8: with their 0.99, labels run everywhere in a small task (drawn classes, 4-way 2-shot, 120 updates,
5 neighbours: 47% right, with 0.8 68%).
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.learners.prototypical import Scale
from metarl.fewshot.metric import MetricLearner, Solution, check_vectors, one_hot, squared_distances
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.outer import OuterConfig
from metarl.runs.configs import MOST_UNITS, check_counts, check_fraction, check_positive

_LEAST = 1e-12
"""Probability of a class that no label reaches."""


@dataclass(frozen=True)
class LabelPropagationConfig(LearnerConfig):
    """The hyperparameters of label propagation, whose predictions depend on the other queries.

    Attributes:
        num_neighbours: Number of nearest neighbours that each example is linked to.
        spread: Share of its neighbours in an example's label, alpha, in (0, 1).
        length: Distance over which examples are alike, sigma, at the start, as a fraction of the root mean square
            distance between a task's examples; it is learned.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    num_neighbours: int = 20
    spread: float = 0.8
    length: float = 0.3
    normalisation: NormStatistics = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_counts(self, "num_neighbours", most=MOST_UNITS)
        check_positive(self, "length", "spread")
        check_fraction(self, "spread")
        if self.spread == 1:
            raise ValueError("spread must be less than 1, got 1; labels would not end")

    def make(self, setup: LearnerSetup) -> "LabelPropagation":
        """The untrained learner, whose network puts out features."""
        setup.require("classification", self)
        return LabelPropagation(
            setup.feature_network(), replace(self, outer=self.outer.over(setup.num_updates))
        ).trained_by(setup.objective)


class LabelPropagation(MetricLearner):
    """A learner by label propagation; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: Hyperparameters.
    """

    never_positive = True

    def __init__(self, module: nn.Module, config: LabelPropagationConfig) -> None:
        self.config = config
        super().__init__(module, config.normalisation, config.outer, Scale(config.length))

    @property
    def judges_queries_together(self) -> bool:
        """Always: every query moves the others."""
        return True

    def judge(self, solution: Solution, query: Tensor) -> Tensor:
        """Logarithms of the classes' probabilities, [task, row, way]."""
        support, targets = solution
        check_vectors((support, query))
        features = torch.cat([support, query], 1).double()
        apart = squared_distances(features, features)
        size = apart.sum((1, 2), keepdim=True) / (apart.shape[1] * (apart.shape[1] - 1)) + _LEAST
        length = self.head().double().square() * size
        links = neighbour_graph(apart / (2 * length), self.config.num_neighbours)
        labels = one_hot(targets, features)
        start = nn.functional.pad(labels, (0, 0, 0, query.shape[1]))
        identity = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
        spread = torch.linalg.solve(identity - self.config.spread * links, start)[:, support.shape[1] :]
        spread = spread.clamp_min(0) + _LEAST
        outputs: Tensor = (spread / spread.sum(-1, keepdim=True)).log().to(query.dtype)
        return outputs


def neighbour_graph(distances: Tensor, num_neighbours: int) -> Tensor:
    """The links exp(-distance) of near neighbours, of either to the other, over the roots of their sums.

    Args:
        distances: Distances of all examples of a task, [task, row, row].
        num_neighbours: Number of neighbours, besides itself, that an example chooses.
    """
    itself = torch.eye(distances.shape[-1], dtype=torch.bool, device=distances.device)
    nearness = (-distances).masked_fill(itself, -torch.inf)
    number = min(num_neighbours, distances.shape[-1] - 1)
    chosen = torch.zeros_like(nearness, dtype=torch.bool).scatter(2, nearness.topk(number).indices, True)
    links = nearness.exp() * (chosen | chosen.transpose(1, 2))
    roots = (links.sum(2, keepdim=True) + _LEAST).rsqrt()
    return links * roots * roots.transpose(1, 2)
