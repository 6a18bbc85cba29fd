"""Reptile for reinforcement learning: move to where adaptation leads (Nichol et al. 2018, arXiv:1803.02999).

For each meta-iteration:

    theta_i^0 = theta;   inner_steps times, for all tasks at once:
        collect episodes with theta_i^k;   theta_i^{k+1} = theta_i^k - alpha * grad L_i(theta_i^k)
    theta = theta + epsilon * (mean_i theta_i^K - theta)

Nothing is differentiated twice, and the episodes after the last step are only reported. With one inner
step this is a policy gradient on all tasks together: more steps are what makes Reptile differ from it. It is a
baseline: ProMP and MAML-TRPO with the same inner loop say what their meta-gradients add.

How we differ: the paper has no reinforcement learning; the inner loop is ProMP's, with new episodes at each step.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from metarl.agent import AgentConfig, AgentSetup
from metarl.agents.maml import (
    AdaptationConfig,
    GradientAgent,
    MetaBatch,
    PolicyConfig,
    check_plain,
)
from metarl.runs import parallel
from metarl.runs.configs import check_positive


@dataclass(frozen=True)
class ReptileConfig(AgentConfig):
    """Reptile's hyperparameters for reinforcement learning.

    Attributes:
        policy: Network of the policy.
        adaptation: Settings of the inner loop.
        outer_lr: Fraction epsilon of the way to the mean of the adapted parameters.
    """

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    adaptation: AdaptationConfig = field(default_factory=lambda: AdaptationConfig(inner_steps=3))
    outer_lr: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, "outer_lr")
        check_plain(self.policy, self.adaptation, "Reptile")

    def make(self, setup: AgentSetup) -> "Reptile":
        """Make an untrained agent with this configuration."""
        return Reptile(setup.env, self, seed=setup.seed, device=setup.device)


class Reptile(GradientAgent[ReptileConfig]):
    """A Reptile agent; see `metarl.agent.Agent`."""

    algorithm: ClassVar[str] = "Reptile"
    data_parallel = True

    def update(self, experience: MetaBatch) -> dict[str, float]:
        """Go the way that the inner steps lead."""
        theta = self.learner.params()
        with torch.no_grad():
            adapted = self.learner.adapt_through(theta, experience.batches[:-1])[-1]
            ways = {name: parallel.mean(adapted[name].mean(0)) - p for name, p in theta.items()}
            length = torch.stack([way.square().sum() for way in ways.values()]).sum().sqrt()
            if not bool(torch.isfinite(length)):
                raise FloatingPointError("the adapted parameters are not finite; lower inner_lr")
            for name, way in ways.items():
                theta[name].add_(way, alpha=self.config.outer_lr)
        return {"reptile/step": float(length) * self.config.outer_lr, **experience.metrics(self.learner.policy)}
