"""Regression by comparison: a prediction is a mean of the support targets, weighted by closeness in feature space.

    y(x) = sum_k softmax_k( -|f(x) - f(x_k)|^2 / tau ) y_k,    tau learned

This is the form of matching networks (Vinyals et al. 2016, eq. 1) with numbers for targets, and a Nadaraya-Watson
estimate with a learned kernel.
"""

from dataclasses import dataclass, field

from torch import Tensor, nn

from metarl.fewshot.learner import OuterConfig
from metarl.fewshot.learners.prototypical import Scale
from metarl.fewshot.metric import MetricLearner, check_vectors, squared_distances
from metarl.fewshot.normalisation import Normalisation
from metarl.runs.configs import check_positive


@dataclass(frozen=True)
class KernelRegressionConfig:
    """Kernel regression's hyperparameters.

    Attributes:
        temperature: tau at first.
        normalisation: of batch-norm layers.
        outer: the optimiser.
    """

    temperature: float = 1.0
    normalisation: Normalisation = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_positive(self, "temperature")


class KernelRegression(MetricLearner):
    """Few-shot regression in a learned feature space.

    Args:
        module: maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: hyperparameters.
    """

    needs_all_classes = False

    def __init__(self, module: nn.Module, config: KernelRegressionConfig) -> None:
        self.config = config
        head = Scale(1 / config.temperature).to(next(module.parameters()).device)
        super().__init__(module, config.normalisation, config.outer, head)

    def outputs(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """Predictions [task, row, out]."""
        check_vectors((support, query))
        weights: Tensor = (-self.head() * squared_distances(query, support)).softmax(-1)
        return weights @ targets
