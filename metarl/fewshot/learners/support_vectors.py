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

_MOST_ITERATIONS = 200
_GAP = 1e-10
"""Gap of primal and dual, as a fraction of the dual's linear term, at which the method stops."""
_RESIDUAL = 1e-7
"""Residual of the optimality conditions, as a fraction of the margin, at which the method stops."""
_MOST_WEIGHT = 1e6
"""Largest product of C and the mean square of features' lengths; of more, a float64 loses what decides."""


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

    It is computed in units in which duals are at most 1 and products about 1 or less, whatever the features' size.

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
        size = gram.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1)
        most = (_MOST_WEIGHT / size).clamp_max(margin_weight)  # C
        share = 1 / (most * size).clamp_min(1)
        # Features that depend on each other leave the duals open; nothing that is predicted depends on them then.
        # This moves margins by less than 1e-5 of them: less would leave Newton's system singular in float64.
        identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        slight = (1e-5 * share).clamp_max(1e-8) * size * identity
        fixed = most * share * (gram + slight)
        duals, stiffness = _interior_point(fixed, members, share)
        duals = most * duals
    # The value of this residual is zero, its gradient that of the optimality conditions.
    residual = most * share * (gram - gram.detach()) @ duals
    return duals + _newton_step(fixed, stiffness, -residual)[0]


def _interior_point(gram: Tensor, members: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The solution for C = 1, and the multipliers of its bounds over their slacks, each [task, row, way].

    Mehrotra 1992: a step to the solution shows how far it gets, and thereby how much the next one has to centre.

    Args:
        gram: Products of the support features, [task, row, row].
        members: Ones where a row is of a class and zeros elsewhere, [task, row, way].
        share: Factor of the objective's linear term, [task, 1, 1].
    """
    others = members.shape[-1] - 1
    duals = (members - (1 - members) / others) / 2  # inside of all bounds, of sum zero
    multipliers, shared = torch.ones_like(duals), torch.zeros_like(duals[..., :1])
    for _ in range(_MOST_ITERATIONS):
        slack = members - duals
        gap = (slack * multipliers).mean((1, 2), keepdim=True)
        residual = gram @ duals - share * members + multipliers + shared
        value = (share * members * duals).mean((1, 2), keepdim=True)
        solved = (gap < _GAP * value) & (residual.abs().amax((1, 2), keepdim=True) < _RESIDUAL * share)
        if bool(solved.all()):
            break
        point = (multipliers, slack, residual)
        step, multiplier_step, _, length = _direction(gram, *point, slack * multipliers)
        left = ((slack - length * step) * (multipliers + length * multiplier_step)).mean((1, 2), keepdim=True)
        step, multiplier_step, shared_step, length = _direction(
            gram, *point, slack * multipliers - (left / gap) ** 3 * gap - step * multiplier_step
        )
        # Beyond its solution a task's system becomes singular, while others of the batch are still on their way.
        duals = torch.where(solved, duals, duals + length * step)
        multipliers = torch.where(solved, multipliers, multipliers + length * multiplier_step)
        shared = torch.where(solved, shared, shared + length * shared_step)
    return duals, multipliers / (members - duals)


def _direction(
    gram: Tensor, multipliers: Tensor, slack: Tensor, residual: Tensor, centring: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The steps of duals, multipliers and sums' multipliers that take `centring` off the products with the slacks.

    The fourth is the longest share of them, [task, 1, 1], that leaves slacks and multipliers positive.
    """
    step, shared_step = _newton_step(gram, multipliers / slack, centring / slack - residual)
    multiplier_step = (multipliers * step - centring) / slack
    length = torch.minimum(_longest(slack, -step), _longest(multipliers, multiplier_step))
    return step, multiplier_step, shared_step, length


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
