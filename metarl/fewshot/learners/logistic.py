"""Logistic regression on learned features, by Newton's method (LR-D2, Bertinetto et al. 2019, arXiv:1805.08136).

For every task and class c, with K = X X' of the support features and a column of ones, y = 1 for examples of c:

    f = 0
    repeat num_steps times:
        mu = sigmoid(f),  S = mu (1 - mu)
        a = (S K + lambda I)^-1 (S f + y - mu),  f = K a         Newton on sum of log losses + lambda / 2 |X' a|^2,
                                                                 or a quarter, 1/16, ... of the step if it rises
    logit_c = s f(x)' X' a + b

All steps are differentiated. How we differ: theirs is for two classes; ours sets each class against the others.
Their steps are whole ones, which examples far out can turn into a divergence.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.learners.ridge import Regularised, with_ones
from metarl.fewshot.metric import MetricLearner, Solution, check_vectors, one_hot
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.outer import OuterConfig
from metarl.fewshot.solving import solve
from metarl.runs.configs import MOST_REPEATS, check_counts, check_positive

_SHARES = (0.0, *(0.25**power for power in range(8)))


@dataclass(frozen=True)
class LogisticConfig(LearnerConfig):
    """The hyperparameters of logistic regression on learned features.

    Attributes:
        newton_steps: Number of Newton steps on every task.
        regularisation: Weight of half the squared size of the solution, lambda, at the start; it is learned.
        scale: Factor of the logits, s, at the start; it is learned.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    newton_steps: int = 5
    regularisation: float = 1.0
    scale: float = 5.0
    normalisation: NormStatistics = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_counts(self, "newton_steps", most=MOST_REPEATS)
        check_positive(self, "regularisation", "scale")

    def make(self, setup: LearnerSetup) -> "Logistic":
        """The untrained learner, whose network puts out features."""
        setup.require("classification", self)
        return Logistic(
            setup.feature_network(), replace(self, outer=self.outer.over(setup.num_updates))
        ).trained_by(setup.objective)


class Logistic(MetricLearner):
    """A learner by logistic regression on features; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: Hyperparameters.
    """

    head: Regularised

    def __init__(self, module: nn.Module, config: LogisticConfig) -> None:
        self.config = config
        head = Regularised(config.regularisation, config.scale)
        super().__init__(module, config.normalisation, config.outer, head)

    def solve(self, support: Tensor, targets: Tensor) -> Solution:
        """The weights of every class, [task, feature, way]."""
        check_vectors((support,))
        known = with_ones(support).double()
        duals = logistic_duals(
            known @ known.transpose(1, 2),
            one_hot(targets, known),
            self.head.regularisation().double(),
            self.config.newton_steps,
        )
        return (known.transpose(1, 2) @ duals,)

    def judge(self, solution: Solution, query: Tensor) -> Tensor:
        """Logits [task, row, way]."""
        check_vectors((query,))
        (weights,) = solution
        logits: Tensor = self.head.scale() * (with_ones(query).double() @ weights) + self.head.shift
        return logits.to(query.dtype)


def logistic_duals(gram: Tensor, members: Tensor, regularisation: Tensor, num_steps: int) -> Tensor:
    """Weights of the support examples in the solution of each class, [task, row, way].

    Args:
        gram: Products of the support features, [task, row, row].
        members: Ones where a row is of a class and zeros elsewhere, [task, row, way].
        regularisation: Weight of half the squared size of a class's solution beside the sum of log losses.
        num_steps: Number of Newton steps.
    """
    labels = members.transpose(1, 2).unsqueeze(-1)  # [task, way, row, 1]
    products = gram.unsqueeze(1)
    ridge = regularisation * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    logits = duals = torch.zeros_like(labels)
    for _ in range(num_steps):
        mean = logits.sigmoid()
        slope = mean * (1 - mean)
        after = solve(slope * products + ridge, slope * logits + labels - mean)
        share = _share_of_step((logits, duals), (products @ after, after), labels, regularisation)
        duals = torch.where(share == 1, after, duals + share * (after - duals))
        logits = products @ duals
    return duals.squeeze(-1).transpose(1, 2)


@torch.no_grad()
def _share_of_step(
    before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], labels: Tensor, regularisation: Tensor
) -> Tensor:
    """The largest share of a Newton step, of 1, 1/4, 1/16 and so on, by which the loss does not rise.

    Args:
        before: Logits and duals before the step, each [task, way, row, 1]; logits are linear in duals.
        after: Logits and duals after the whole step.
        labels: Ones where a row is of the class and zeros elsewhere, [task, way, row, 1].
        regularisation: Weight of half the squared size of a solution.

    Returns:
        A share for every task and class, [task, way, 1, 1].
    """
    shares = before[0].new_tensor(_SHARES).view(-1, 1, 1, 1, 1)
    logits, duals = (a + shares * (b - a) for a, b in zip(before, after, strict=True))
    softplus = logits.clamp_min(0) + (1 + (-logits.abs()).exp()).log()  # by operators that ONNX has in float64
    terms = softplus - labels * logits + 0.5 * regularisation * duals * logits
    losses = terms.sum((-2, -1), keepdim=True)
    start = losses[0]
    return torch.where(losses <= start + 1e-12 * start.abs(), shares, 0.0).amax(0)
