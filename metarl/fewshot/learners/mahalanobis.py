"""Mahalanobis distances to class means (Simple CNAPS, Bateni et al. 2020, arXiv:1912.03432), and LDA.

    Q_c = l S_c + (1 - l) S + beta I,     l = n_c / (n_c + 1)       S_c the covariance of a class, S of the task
    logit_c = -1/2 (f(x) - mu_c)' Q_c^-1 (f(x) - mu_c)

Linear discriminant analysis shares one Q: S_c is that within all classes, and l = m / (m + 1) with m the number of
examples less that of classes, so that one example per class leaves it to S and beta.

How we differ: covariances are means over examples, zero for one; beta, 1 in the paper, is learned from there; a
backbone is trained by episodes, without the paper's adapted layers.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.learners.prototypical import Scale
from metarl.fewshot.metric import MetricLearner, Solution, check_vectors, class_means, one_hot
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.outer import OuterConfig
from metarl.fewshot.solving import solve
from metarl.runs.configs import check_positive


@dataclass(frozen=True)
class MahalanobisConfig(LearnerConfig):
    """The hyperparameters of Mahalanobis distances to class means.

    Attributes:
        covariance: Covariance that distances are measured by, of each class or one that all share (LDA).
        regularisation: Multiple of the identity in the covariance, beta, at the start; it is learned.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    covariance: Literal["class", "shared"] = "class"
    regularisation: float = 1.0
    normalisation: NormStatistics = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_positive(self, "regularisation")

    def make(self, setup: LearnerSetup) -> "Mahalanobis":
        """The untrained learner, whose network puts out features."""
        setup.require("classification", self)
        return Mahalanobis(
            setup.feature_network(), replace(self, outer=self.outer.over(setup.num_updates))
        ).trained_by(setup.objective)


class Mahalanobis(MetricLearner):
    """A learner by Mahalanobis distances; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: Hyperparameters.
    """

    never_positive = True

    def __init__(self, module: nn.Module, config: MahalanobisConfig) -> None:
        self.config = config
        super().__init__(module, config.normalisation, config.outer, Scale(config.regularisation))

    def solve(self, support: Tensor, targets: Tensor) -> Solution:
        """Means [task, way, feature], and the inverse covariances [task, way or 1, feature, feature]."""
        check_vectors((support,))
        known = support.double()
        means = class_means(known, targets)
        covariances = _covariances(known, targets, means, shared=self.config.covariance == "shared")
        identity = torch.eye(known.shape[-1], dtype=known.dtype, device=known.device)
        covariances = covariances + self.head().double() * identity
        return means, solve(covariances, identity.expand_as(covariances))

    def judge(self, solution: Solution, query: Tensor) -> Tensor:
        """Logits [task, row, way]."""
        check_vectors((query,))
        means, precisions = solution
        apart = query.double().unsqueeze(1) - means.unsqueeze(2)  # [task, way, row, feature]
        logits: Tensor = -((apart @ precisions) * apart).sum(-1).transpose(1, 2) / 2
        return logits.to(query.dtype)


def _covariances(features: Tensor, targets: Tensor, means: Tensor, *, shared: bool) -> Tensor:
    """What distances are measured by but for beta, [task, way or 1, feature, feature]."""
    members = one_hot(targets, features)
    centred = features - features.mean(1, keepdim=True)
    of_task = centred.transpose(1, 2) @ centred / features.shape[1]
    within = features - members @ means
    if shared:
        freedom = features.shape[1] - members.shape[-1]
        share = torch.full((1, 1, 1, 1), freedom / (freedom + 1), dtype=features.dtype, device=features.device)
        of_classes = (within.transpose(1, 2) @ within / features.shape[1]).unsqueeze(1)
    else:
        counts = members.sum(1)[..., None, None]
        share = counts / (counts + 1)
        rows = members.transpose(1, 2).unsqueeze(-1) * within.unsqueeze(1)  # [task, way, row, feature]
        of_classes = rows.transpose(2, 3) @ rows / counts
    return share * of_classes + (1 - share) * of_task.unsqueeze(1)
