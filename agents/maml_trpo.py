"""MAML-TRPO (Finn et al. 2017, arXiv:1703.03400, section 5.3; Schulman et al. 2015, arXiv:1502.05477).

For each meta-iteration:

    collect pre-adaptation episodes with theta and post-adaptation episodes with theta'_i(theta)
    S(theta)  = mean_i -E[ pi_theta'_i(theta)(a|s) / pi_old(a|s) * A ]       on post-adaptation data
    KL(theta) = mean_i  E[ KL(pi_old || pi_theta'_i(theta)) ]
    g = grad S;   x = F^-1 g by conjugate gradient, F the Hessian of KL, through the adaptation
    theta <- theta - ratio^j sqrt(2 max_kl / x^T F x) x    for the least j with S lower and KL <= max_kl

How we differ: F v is the Gauss-Newton product, exact here (see `metarl.trust_region`), where the reference codes
differentiate the KL's gradient once more; on a fraction of the steps if `fisher_fraction` is below one, while the
surrogate and the line search always see all of them. If no step is accepted theta stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Collector
from metarl.agents.maml import (
    AdaptationConfig,
    AdaptivePolicy,
    GaussianActor,
    MetaBatch,
    PolicyConfig,
    check_finite,
    mean_kl,
)
from metarl.bilevel import Params, flatten, unflatten
from metarl.losses import ratio_loss
from metarl.policies import DiagonalGaussian
from metarl.tasks import Task, TaskEnv
from metarl.trust_region import LineSearch, VectorProduct, conjugate_gradient, gauss_newton, line_search


@dataclass(frozen=True)
class MamlTrpoConfig:
    """MAML-TRPO's hyperparameters, with the defaults of Finn et al. 2017.

    Attributes:
        policy: the policy.
        adaptation: the inner loop.
        max_kl: trust region, in nats, on the mean KL of the adapted policies.
        cg_iters: conjugate-gradient iterations.
        cg_damping: multiple of the identity added to the Fisher matrix.
        backtrack_ratio: of the line search.
        max_backtracks: of the line search.
        fisher_fraction: of the steps that the Fisher matrix is estimated on, in (0, 1].
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
        if not (self.max_kl > 0 and self.cg_damping >= 0):
            raise ValueError(
                f"max_kl must be positive and cg_damping not negative, got {self.max_kl} and {self.cg_damping}"
            )
        if self.cg_iters < 1 or self.max_backtracks < 1:
            raise ValueError(
                f"cg_iters and max_backtracks must be at least 1, got {self.cg_iters} and {self.max_backtracks}"
            )
        if not (0 < self.backtrack_ratio < 1 and 0 < self.fisher_fraction <= 1):
            raise ValueError(
                "backtrack_ratio must be in (0, 1) and fisher_fraction in (0, 1], "
                f"got {self.backtrack_ratio} and {self.fisher_fraction}"
            )


class TrustRegionStep(NamedTuple):
    """What one trust-region update did.

    Attributes:
        params: theta to go on with, a flat vector.
        search: result of the line search.
        loss_before: the surrogate at the old theta.
        grad_norm: of the surrogate.
    """

    params: Tensor
    search: LineSearch
    loss_before: float
    grad_norm: float


class MamlTrpo:
    """A MAML-TRPO agent; see `metarl.agent.Agent`.

    Args:
        env: any environment of the family, for its spaces.
        config: hyperparameters.
        seed: of the initial weights.
        device: for parameters and losses.
    """

    def __init__(self, env: TaskEnv, config: MamlTrpoConfig, *, seed: int, device: torch.device) -> None:
        self.config = config
        self.learner = AdaptivePolicy(env, config.policy, config.adaptation, seed=seed, device=device)

    def actor(self) -> GaussianActor:
        """An actor with the meta-parameters."""
        return GaussianActor(self.learner, None)

    def collect(self, collector: Collector, tasks: Sequence[Task], rng: np.random.Generator) -> MetaBatch:
        """Episodes before and after adaptation."""
        return self.learner.collect(collector, tasks, rng)

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
            "policy/std": float(self.learner.policy.log_std.detach().exp().mean()),
            **experience.return_metrics(),
        }

    def trust_region_step(self, experience: MetaBatch) -> TrustRegionStep:
        """The step from the present theta; nothing is changed."""
        theta = self.learner.params()
        tasks = experience.trajectories[0].tasks
        losses, _, adapted = self._surrogate(theta, experience)
        check_finite(losses, tasks, "the surrogate")
        loss = losses.mean()
        gradient = flatten(torch.autograd.grad(loss, list(theta.values()))).detach()
        product = self.fisher_product(theta, experience, adapted)
        direction = conjugate_gradient(product, gradient, iterations=self.config.cg_iters)
        curvature = direction.dot(product(direction))
        scale = torch.sqrt(2 * self.config.max_kl / curvature.clamp(min=1e-12))
        full_step = -scale * direction
        if not torch.isfinite(full_step).all():
            raise FloatingPointError("the trust-region step is not finite; lower inner_lr or raise cg_damping")

        def evaluate(vector: Tensor) -> tuple[float, float]:
            with torch.no_grad():
                candidate, kls, _ = self._surrogate(unflatten(vector, theta), experience)
            return float(candidate.mean()), float(kls.mean())

        params, search = line_search(
            evaluate,
            flatten(theta).detach(),
            full_step,
            loss_before=float(loss.detach()),
            max_kl=self.config.max_kl,
            backtrack_ratio=self.config.backtrack_ratio,
            max_backtracks=self.config.max_backtracks,
        )
        return TrustRegionStep(params, search, float(loss.detach()), float(gradient.norm()))

    def fisher_product(self, theta: Params, experience: MetaBatch, adapted: Params) -> VectorProduct:
        """The damped product with the Fisher matrix of the adapted policies, on `fisher_fraction` of the steps.

        The policies are linearised at `adapted`, the parameters adapted on all steps; only the Jacobians of the
        adaptation and of the policy see fewer.
        """
        stride = max(1, round(1 / self.config.fisher_fraction))
        *inner, outer = [batch.thin(stride) for batch in experience.batches]
        policy = self.learner.policy
        through = self.learner.adapt_through(theta, inner)[-1]
        if stride > 1:
            through = {name: p + (adapted[name] - p).detach() for name, p in through.items()}
        distribution = policy.distribution(through, outer.observations)
        log_std = distribution.log_std.expand_as(distribution.mean)
        fixed = DiagonalGaussian(distribution.mean.detach(), log_std.detach())
        weights = outer.mask / outer.mask.sum(1, keepdim=True).clamp(min=1) / len(outer.mask)

        def metric(tangents: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
            mean, spread = fixed.fisher(DiagonalGaussian(*tangents))
            return mean * weights.unsqueeze(-1), spread * weights.unsqueeze(-1)

        return gauss_newton(
            (distribution.mean, log_std), list(theta.values()), metric, damping=self.config.cg_damping
        )

    def _surrogate(self, theta: Params, experience: MetaBatch) -> tuple[Tensor, Tensor, Params]:
        """Loss [task] and KL [task] of the adapted policies on the last batch, and their parameters."""
        *inner, outer = experience.batches
        adapted = self.learner.adapt_through(theta, inner)[-1]
        distribution = self.learner.policy.distribution(adapted, outer.observations)
        losses = ratio_loss(
            distribution.log_prob(outer.actions), outer.old_log_probs, outer.advantages, outer.mask
        )
        return losses, mean_kl(distribution, outer), adapted

    def state_dict(self) -> dict[str, Any]:
        """The parameters; the algorithm keeps nothing else."""
        return {"policy": self.learner.policy.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.learner.policy.load_state_dict(state["policy"])
