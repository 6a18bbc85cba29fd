"""MAML-TRPO (Finn et al. 2017, arXiv:1703.03400, section 5.3; Schulman et al. 2015, arXiv:1502.05477).

For each meta-iteration:

    collect pre-adaptation episodes with theta and post-adaptation episodes with theta'_i(theta)
    S(theta)  = mean_i -E[ pi_theta'_i(theta)(a|s) / pi_old(a|s) * A ]       on post-adaptation data
    KL(theta) = mean_i  E[ KL(pi_old || pi_theta'_i(theta)) ]
    g = grad S;   x = F^-1 g by conjugate gradient, F the Hessian of KL, through the adaptation
    theta <- theta - ratio^j sqrt(2 max_kl / x^T F x) x    for the least j with S lower and KL <= max_kl

How we differ: F v is the Gauss-Newton product, exact here (see `metarl.learning.trust_region`), where the
reference codes differentiate the KL's gradient once more; on a fraction of the steps if `fisher_fraction` is below
one, while the surrogate and the line search always see all of them. If no step is accepted theta stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from metarl.agent import AgentConfig, AgentSetup
from metarl.agents.maml import (
    AdaptationConfig,
    GradientAgent,
    MetaBatch,
    PolicyBatch,
    PolicyConfig,
    change_parts,
    check_finite,
    full_parts,
    mean_kl,
    overall_mean,
)
from metarl.learning.bilevel import Params, flatten, unflatten
from metarl.learning.losses import ratio_loss
from metarl.learning.trust_region import LineSearch, VectorProduct, conjugate_gradient, gauss_newton, line_search
from metarl.nets.distributions import AnyDistribution
from metarl.runs import parallel
from metarl.runs.configs import MOST_REPEATS, check_counts, check_not_negative, check_positive

Chunk = list[PolicyBatch]
"""The batches of all adaptation levels, of some of the tasks."""

_ROWS_IN_CACHE = 8_000


@dataclass(frozen=True)
class MamlTrpoConfig(AgentConfig):
    """MAML-TRPO's hyperparameters, with the defaults of Finn et al. 2017.

    Attributes:
        policy: Network of the policy.
        adaptation: Settings of the inner loop.
        max_kl: Trust region: limit of the mean KL of the adapted policies, in nats.
        cg_iters: Number of conjugate-gradient iterations.
        cg_damping: Multiple of the identity added to the Fisher matrix.
        backtrack_ratio: Factor by which the line search shrinks a rejected step, in (0, 1).
        max_backtracks: Most steps that the line search tries.
        fisher_fraction: Fraction of the steps that the Fisher matrix is estimated on, in (0, 1].
    """

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    max_kl: float = 0.01
    cg_iters: int = 10
    cg_damping: float = 1e-5
    backtrack_ratio: float = 0.8
    max_backtracks: int = 15
    fisher_fraction: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, "max_kl")
        check_not_negative(self, "cg_damping")
        check_counts(self, "cg_iters", "max_backtracks", most=MOST_REPEATS)
        if not (0 < self.backtrack_ratio < 1 and 0 < self.fisher_fraction <= 1):
            raise ValueError(
                "backtrack_ratio must be in (0, 1) and fisher_fraction in (0, 1], "
                f"got {self.backtrack_ratio} and {self.fisher_fraction}"
            )
        if self.adaptation.inner_loss == "dice" and self.fisher_fraction < 1:
            raise ValueError(
                "fisher_fraction must be 1 with inner_loss dice, which needs whole episodes, "
                f"got {self.fisher_fraction}"
            )

    def make(self, setup: AgentSetup) -> "MamlTrpo":
        """Make an untrained agent with this configuration."""
        return MamlTrpo(setup.env, self, seed=setup.seed, device=setup.device)


class TrustRegionStep(NamedTuple):
    """The result of one trust-region update.

    Attributes:
        params: New parameters theta, a flat vector.
        search: Result of the line search.
        loss_before: Surrogate loss at the old parameters.
        grad_norm: Norm of the surrogate's gradient.
    """

    params: Tensor
    search: LineSearch
    loss_before: float
    grad_norm: float


class MamlTrpo(GradientAgent[MamlTrpoConfig]):
    """A MAML-TRPO agent; see `metarl.agent.Agent`."""

    algorithm: ClassVar[str] = "MAML-TRPO"
    data_parallel = True

    def update(self, experience: MetaBatch) -> dict[str, float]:
        """One trust-region step on theta."""
        theta = self.learner.params()
        step = self.trust_region_step(experience)
        with torch.no_grad():
            for name, value in unflatten(step.params, theta).items():
                theta[name].copy_(value)
        return {
            "loss/outer": step.loss_before,
            "loss/outer_after": step.search.loss,
            "loss/grad_norm": step.grad_norm,
            "trust_region/kl": step.search.kl,
            "trust_region/accepted": float(step.search.accepted),
            "trust_region/fraction": step.search.fraction,
            **experience.metrics(self.learner.policy),
        }

    def trust_region_step(self, experience: MetaBatch) -> TrustRegionStep:
        """The step from the present theta; nothing is changed."""
        theta = self.learner.params()
        chunks = self._chunks(experience.batches)
        losses, gradient, product = self.linearise(theta, chunks)
        check_finite(losses, experience.trajectories[0].tasks, "the surrogate")
        direction, residual = conjugate_gradient(product, gradient, iterations=self.config.cg_iters)
        curvature = direction.dot(gradient - residual)  # x^T F x without one more product
        scale = torch.sqrt(2 * self.config.max_kl / curvature.clamp(min=1e-12))
        full_step = -scale * direction
        if not torch.isfinite(full_step).all():
            raise FloatingPointError("the trust-region step is not finite; lower inner_lr or raise cg_damping")
        loss_before = overall_mean(losses)
        params, search = line_search(
            lambda vector: self._evaluate(unflatten(vector, theta), chunks),
            flatten(theta).detach(),
            full_step,
            loss_before=loss_before,
            max_kl=self.config.max_kl,
            backtrack_ratio=self.config.backtrack_ratio,
            max_backtracks=self.config.max_backtracks,
        )
        return TrustRegionStep(params, search, loss_before, float(gradient.norm()))

    def linearise(self, theta: Params, chunks: Sequence[Chunk]) -> tuple[Tensor, Tensor, VectorProduct]:
        """The surrogate [task], the gradient of its mean, and the damped Fisher product, at theta.

        The surrogate is that of this process's tasks; the others are of all tasks, and the same in all processes.
        """
        leaves = list(theta.values())
        num_tasks = sum(len(chunk[-1].mask) for chunk in chunks)
        losses, gradients, products = [], [], []
        for chunk in chunks:
            adapted, distribution, exploration = self._adapt(theta, chunk)
            loss = _surrogate(distribution, chunk[-1]) + exploration
            losses.append(loss.detach())
            exact = self.config.fisher_fraction == 1
            gradients.append(flatten(torch.autograd.grad(loss.sum() / num_tasks, leaves, retain_graph=exact)))
            thinned = chunk if exact else [batch.thin(self.config.fisher_fraction) for batch in chunk]
            if not exact:
                distribution = self._thin_distribution(theta, thinned, adapted)
            products.append(_fisher_product(distribution, thinned[-1].mask, leaves, num_tasks))

        def product(vector: Tensor) -> Tensor:
            total = self.config.cg_damping * vector
            for part in products:
                total = total + part(vector)
            return parallel.mean(total)

        return torch.cat(losses), parallel.mean(torch.stack(gradients).sum(0)), product

    def _evaluate(self, theta: Params, chunks: Sequence[Chunk]) -> tuple[float, float]:
        """Mean surrogate and mean KL of the adapted policies."""
        losses, kls = [], []
        with torch.no_grad():
            for chunk in chunks:
                _, distribution, exploration = self._adapt(theta, chunk)
                losses.append(_surrogate(distribution, chunk[-1]) + exploration)
                kls.append(mean_kl(distribution, chunk[-1]))
        return overall_mean(torch.cat(losses)), overall_mean(torch.cat(kls))

    def _adapt(self, theta: Params, chunk: Chunk) -> tuple[Params, AnyDistribution, Tensor]:
        """Adapted parameters, their policy on the last batch, and E-MAML's part of the loss [task]."""
        *inner, outer = chunk
        trace = self.learner.adapt_through(theta, inner)
        exploration = self.learner.exploration_loss(trace, inner, outer.credit)
        return trace[-1], self.learner.policy.distribution(trace[-1], outer.observations), exploration

    def _thin_distribution(self, theta: Params, thinned: Chunk, adapted: Params) -> AnyDistribution:
        """The policy linearised at the parameters adapted on all steps, with Jacobians from fewer of them."""
        *inner, outer = thinned
        through = self.learner.adapt_through(theta, inner)[-1]
        through = {name: p + (adapted[name] - p).detach() for name, p in through.items()}
        return self.learner.policy.distribution(through, outer.observations)

    def _chunks(self, batches: Sequence[PolicyBatch]) -> list[Chunk]:
        """The batches cut along the task axis into pieces whose activations stay in the processor's cache.

        Everything here is a sum over tasks, so the pieces give the same step. On a CPU a Fisher product of 40
        tasks with 1,000 steps each takes 0.71 s in pieces of 8 tasks, 0.97 s in one.
        """
        num_tasks, num_rows = batches[-1].mask.shape
        size = num_tasks if self.learner.device.type != "cpu" else max(1, _ROWS_IN_CACHE // num_rows)
        return [
            [batch.select(slice(start, start + size)) for batch in batches] for start in range(0, num_tasks, size)
        ]


def _surrogate(distribution: AnyDistribution, batch: PolicyBatch) -> Tensor:
    """S [task]: the likelihood ratio's loss on the last batch."""
    return ratio_loss(distribution.log_prob(batch.actions), batch.old_log_probs, batch.advantages, batch.mask)


def _fisher_product(
    distribution: AnyDistribution, mask: Tensor, leaves: Sequence[Tensor], num_tasks: int
) -> VectorProduct:
    """The product with the Fisher matrix of the mean over num_tasks tasks of each task's mean over its steps."""
    outputs = tuple(full_parts(distribution))
    fixed = change_parts(full_parts(distribution), Tensor.detach)
    real = mask.to(outputs[0].dtype)
    weights = real / real.sum(1, keepdim=True).clamp(min=1) / num_tasks

    def metric(tangents: Sequence[Tensor]) -> list[Tensor]:
        images = fixed.fisher(type(fixed)(*tangents))  # type: ignore[arg-type]  # of the same kind
        return [image * weights.view(*weights.shape, *([1] * (image.dim() - 2))) for image in images]

    return gauss_newton(outputs, leaves, metric)
