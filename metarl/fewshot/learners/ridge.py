"""Ridge regression on learned features, for classes (R2-D2, Bertinetto et al. 2019, arXiv:1805.08136) and numbers.

For every task, X the support features with a column of ones, Y the one-hot classes or the numbers to predict:

    W = (X' X + lambda I)^-1 X' Y = X' (X X' + lambda I)^-1 Y        the smaller of the two systems is solved
    outputs = s f(x)' W + b for classes, f(x)' W for numbers

The network, lambda, s and b are trained through the solution by the loss on the query set.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from metarl.fewshot.episodes import Examples
from metarl.fewshot.learner import LearnerConfig, LearnerSetup, Predictor
from metarl.fewshot.learners.prototypical import Scale
from metarl.fewshot.metric import MetricLearner, Solution, check_classes, check_vectors, one_hot
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.objectives import is_classification
from metarl.fewshot.outer import OuterConfig
from metarl.fewshot.solving import solve
from metarl.runs.configs import check_positive


@dataclass(frozen=True)
class RidgeConfig(LearnerConfig):
    """The hyperparameters of ridge regression on learned features.

    Attributes:
        regularisation: Weight of the squared size of the solution, lambda, at the start; it is learned.
        scale: Factor of the outputs for classes, s, at the start; it is learned.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    regularisation: float = 1.0
    scale: float = 10.0
    normalisation: NormStatistics = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_positive(self, "regularisation", "scale")

    def make(self, setup: LearnerSetup) -> "Ridge":
        """The untrained learner, whose network puts out features."""
        return Ridge(setup.feature_network(), replace(self, outer=self.outer.over(setup.num_updates))).trained_by(
            setup.objective
        )


class Regularised(nn.Module):
    """Numbers learned beside the features: the regularisation, and the scale and the shift of the outputs.

    Args:
        regularisation: Regularisation before training.
        scale: Scale before training.
    """

    def __init__(self, regularisation: float, scale: float) -> None:
        super().__init__()
        self.regularisation = Scale(regularisation)
        self.scale = Scale(scale)
        self.shift = nn.Parameter(torch.zeros(()))


class Ridge(MetricLearner):
    """A learner by ridge regression on features; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: Hyperparameters.
    """

    head: Regularised

    needs_all_classes = False

    def __init__(self, module: nn.Module, config: RidgeConfig) -> None:
        self.config = config
        head = Regularised(config.regularisation, config.scale)
        super().__init__(module, config.normalisation, config.outer, head)

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """A single predictor, whatever the number of steps; classes must be 0 to N - 1."""
        if is_classification(support.targets):
            check_classes(support.targets)
        return super().adapt(support, num_steps)

    def solve(self, support: Tensor, targets: Tensor) -> Solution:
        """The weights [task, feature, out], and for classes the scale and the shift of the outputs."""
        check_vectors((support,))
        known, classes = with_ones(support).double(), is_classification(targets)
        values = one_hot(targets, known) if classes else targets.double()
        weights = ridge_weights(known, values, self.head.regularisation().double())
        return (weights, self.head.scale(), self.head.shift) if classes else (weights,)

    def judge(self, solution: Solution, query: Tensor) -> Tensor:
        """Logits [task, row, way], or predicted numbers [task, row, out]."""
        check_vectors((query,))
        weights, *mapping = solution
        outputs = with_ones(query).double() @ weights
        if mapping:
            scale, shift = mapping
            outputs = scale * outputs + shift
        return outputs.to(query.dtype)


def with_ones(features: Tensor) -> Tensor:
    """Features [task, row, feature] and one more that is 1."""
    return nn.functional.pad(features, (0, 1), value=1.0)


def ridge_weights(features: Tensor, values: Tensor, regularisation: Tensor) -> Tensor:
    """The weights that fit values best, [task, feature, out].

    Args:
        features: Features [task, row, feature].
        values: Numbers to predict, [task, row, out].
        regularisation: Weight of the squared weights beside the sum of squared errors.
    """
    num_rows, num_features = features.shape[1:]
    transposed = features.transpose(1, 2)
    # An exported model takes any number of rows, and solves one and the same system.
    if torch.compiler.is_exporting() or num_rows <= num_features:
        identity = torch.eye(num_rows, dtype=features.dtype, device=features.device)
        return transposed @ solve(features @ transposed + regularisation * identity, values)
    identity = torch.eye(num_features, dtype=features.dtype, device=features.device)
    return solve(transposed @ features + regularisation * identity, transposed @ values)
