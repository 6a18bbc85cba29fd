"""A support vector machine on learned features (MetaOptNet, Lee et al. 2019, arXiv:1904.03758).

For every task, with support features x_n of classes y_n, the machine of Crammer & Singer 2001 in its dual form:

    maximise  -1/2 sum_k |w_k|^2 + sum_n a[n, y_n],    w_k = sum_n a[n, k] x_n
    such that a[n, y_n] <= C,  a[n, k] <= 0 for other k,  sum_k a[n, k] = 0
    logits = s f(x)' w

A primal-dual interior-point method solves it for all tasks at once. Its Newton system falls into one of the rows
for every class and one for the equalities, so that 60 ways are no matter. The gradient is that of the optimality
conditions at the solution, not of the method's steps.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.learners.prototypical import Scale
from metarl.fewshot.metric import MetricLearner, Solution, check_vectors, one_hot
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.outer import OuterConfig
from metarl.runs.configs import check_positive

_MOST_ITERATIONS = 60
_GAP = 1e-11
"""Mean product of a slack and its multiplier at which the method stops."""


@dataclass(frozen=True)
class SupportVectorConfig(LearnerConfig):
    """The hyperparameters of a support vector machine on learned features.

    Attributes:
        margin_weight: Weight of examples on the wrong side of the margin, C.
        scale: Factor of the logits, s, at the start; it is learned.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    margin_weight: float = 0.1
    scale: float = 5.0
    normalisation: NormStatistics = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_positive(self, "margin_weight", "scale")

    def make(self, setup: LearnerSetup) -> "SupportVector":
        """The untrained learner, whose network puts out features."""
        setup.require("classification", self)
        return SupportVector(
            setup.feature_network(), replace(self, outer=self.outer.over(setup.num_updates))
        ).trained_by(setup.objective)


class SupportVector(MetricLearner):
    """A learner by support vectors; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: Hyperparameters.
    """

    solves_by_fixed_steps = False

    def __init__(self, module: nn.Module, config: SupportVectorConfig) -> None:
        self.config = config
        super().__init__(module, config.normalisation, config.outer, Scale(config.scale))

    def solve(self, support: Tensor, targets: Tensor) -> Solution:
        """The weights of every class, [task, feature, way]."""
        check_vectors((support,))
        known = support.double()
        duals = svm_duals(known @ known.transpose(1, 2), one_hot(targets, known), self.config.margin_weight)
        return (known.transpose(1, 2) @ duals,)

    def judge(self, solution: Solution, query: Tensor) -> Tensor:
        """Logits [task, row, way]."""
        check_vectors((query,))
        (weights,) = solution
        logits: Tensor = self.head() * (query.double() @ weights)
        return logits.to(query.dtype)


def svm_duals(gram: Tensor, members: Tensor, margin_weight: float) -> Tensor:
    """The dual solution a, [task, row, way], which is differentiable by the products.

    Args:
        gram: Products of the support features, float64 [task, row, row].
        members: Ones where a row is of a class and zeros elsewhere, float64 [task, row, way].
        margin_weight: Weight of examples on the wrong side of the margin, C.

    Raises:
        FloatingPointError: If the products are not finite.
    """
    if not bool(gram.isfinite().all()):
        raise FloatingPointError("the features of a support set are not finite")
    with torch.no_grad():
        size = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12).view(-1, 1, 1)
        # Features that depend on each other leave the duals open; nothing that is predicted depends on them then.
        fixed = gram + 1e-8 * size * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        duals, stiffness = _interior_point(fixed, members, margin_weight)
    # The value of this residual is zero, its gradient that of the optimality conditions.
    residual = (gram - gram.detach()) @ duals
    return duals + _newton_step(fixed, stiffness, -residual)[0]


def _interior_point(gram: Tensor, members: Tensor, margin_weight: float) -> tuple[Tensor, Tensor]:
    """The solution, and the multipliers of its bounds over their slacks, each [task, row, way]."""
    bound = margin_weight * members
    others = members.shape[-1] - 1
    duals = margin_weight * (members - (1 - members) / others) / 2  # inside of all bounds, of sum zero
    multipliers, shared = torch.ones_like(duals), torch.zeros_like(duals[..., :1])
    for _ in range(_MOST_ITERATIONS):
        slack = bound - duals
        gap = (slack * multipliers).mean((1, 2), keepdim=True)
        residual = gram @ duals - members + multipliers + shared
        if float(gap.max()) < _GAP and float(residual.abs().max()) < 1e-9:
            break
        centring = slack * multipliers - 0.1 * gap
        step, shared_step = _newton_step(gram, multipliers / slack, centring / slack - residual)
        multiplier_step = (multipliers * step - centring) / slack
        length = torch.minimum(_longest(slack, -step), _longest(multipliers, multiplier_step))
        duals = duals + length * step
        multipliers = multipliers + length * multiplier_step
        shared = shared + length * shared_step
    return duals, multipliers / (bound - duals)


def _newton_step(gram: Tensor, stiffness: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The duals' step of sum zero over ways [task, row, way], and that of the sums' multipliers [task, row, 1].

    Solves (gram + diag(stiffness[k])) step[k] + shared = values[k] for every class k.
    """
    inverse = torch.linalg.inv(gram.unsqueeze(1) + torch.diag_embed(stiffness.transpose(1, 2)))
    apart = (inverse @ values.transpose(1, 2).unsqueeze(-1)).squeeze(-1)  # [task, way, row]
    shared = torch.linalg.solve(inverse.sum(1), apart.sum(1).unsqueeze(-1))
    step = apart - (inverse @ shared.unsqueeze(1)).squeeze(-1)
    return step.transpose(1, 2), shared


def _longest(values: Tensor, step: Tensor) -> Tensor:
    """Almost the longest step in [0, 1] that leaves all of a task's values positive, [task, 1, 1]."""
    ratios = torch.where(step < 0, -values / step, torch.inf)
    return (0.99 * ratios.amin((1, 2), keepdim=True)).clamp_max(1.0)
