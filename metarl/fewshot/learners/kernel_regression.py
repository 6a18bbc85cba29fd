"""Regression by comparison: a prediction is a mean of the support targets, weighted by closeness in feature space.

    y(x) = sum_k softmax_k( -|f(x) - f(x_k)|^2 / tau ) y_k,    tau learned

This is the form of matching networks (Vinyals et al. 2016, eq. 1) with numbers for targets, and a Nadaraya-Watson
estimate with a learned kernel.
"""

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.learners.prototypical import Scale
from metarl.fewshot.metric import MetricLearner, Solution, check_vectors, squared_distances
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.outer import OuterConfig
from metarl.runs.configs import check_positive


@dataclass(frozen=True)
class KernelRegressionConfig(LearnerConfig):
    """The hyperparameters of kernel regression.

    Attributes:
        temperature: Temperature of the weights, tau, at the start; it is learned.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    temperature: float = 1.0
    normalisation: NormStatistics = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_positive(self, "temperature")

    def make(self, setup: LearnerSetup) -> "KernelRegression":
        """The untrained learner, whose network puts out features."""
        setup.require("regression", self)
        return KernelRegression(
            setup.feature_network(), replace(self, outer=self.outer.over(setup.num_updates))
        ).trained_by(setup.objective)


class KernelRegression(MetricLearner):
    """Few-shot regression in a learned feature space.

    Args:
        module: Maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: Hyperparameters.
    """

    needs_all_classes = False

    def __init__(self, module: nn.Module, config: KernelRegressionConfig) -> None:
        self.config = config
        super().__init__(module, config.normalisation, config.outer, Scale(1 / config.temperature))

    def judge(self, solution: Solution, query: Tensor) -> Tensor:
        """Predictions [task, row, out]."""
        support, targets = solution
        check_vectors((support, query))
        weights: Tensor = (-self.head() * squared_distances(query, support)).softmax(-1)
        return weights @ targets.to(weights.dtype)
