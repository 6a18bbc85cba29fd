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

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from metarl.agent import AgentConfig, AgentSetup, Collector
from metarl.agents.maml import (
    AdaptationConfig,
    AdaptivePolicy,
    GradientActor,
    MetaBatch,
    PolicyConfig,
    check_plain,
    collect_levels,
)
from metarl.runs.configs import check_positive
from metarl.tasks import Task, TaskEnv


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


class Reptile:
    """A Reptile agent; see `metarl.agent.Agent`.

    Args:
        env: Environment of the family, for its spaces.
        config: Hyperparameters of the agent.
        seed: Seed of the initial weights.
        device: Device for parameters and losses.
    """

    def __init__(self, env: TaskEnv, config: ReptileConfig, *, seed: int, device: torch.device) -> None:
        self.config = config
        self.learner = AdaptivePolicy(
            env, config.policy, config.adaptation, agent="Reptile", seed=seed, device=device
        )

    def actor(self) -> GradientActor:
        """An actor with the meta-parameters."""
        return GradientActor(self.learner, None)

    def collect(self, collector: Collector, tasks: Sequence[Task], rng: np.random.Generator) -> MetaBatch:
        """Episodes before and after each inner step."""
        return collect_levels(self.learner, collector, tasks, rng)

    def update(self, experience: MetaBatch) -> dict[str, float]:
        """Go the way that the inner steps lead."""
        theta = self.learner.params()
        with torch.no_grad():
            adapted = self.learner.adapt_through(theta, experience.batches[:-1])[-1]
            ways = {name: adapted[name].mean(0) - p for name, p in theta.items()}
            length = torch.stack([way.square().sum() for way in ways.values()]).sum().sqrt()
            if not bool(torch.isfinite(length)):
                raise FloatingPointError("the adapted parameters are not finite; lower inner_lr")
            for name, way in ways.items():
                theta[name].add_(way, alpha=self.config.outer_lr)
        return {"reptile/step": float(length) * self.config.outer_lr, **experience.metrics(self.learner.policy)}

    def state_dict(self) -> dict[str, Any]:
        """The parameters; the algorithm keeps nothing else."""
        return self.learner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.learner.load_state_dict(state)
