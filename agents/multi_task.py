"""Multi-task pre-training with fine-tuning: PPO on all tasks together, then gradient steps on one.

For each meta-iteration:

    collect episodes of all tasks with theta;   A = advantages against each task's own linear baseline
    repeat outer_steps times:   theta = Adam(theta, grad mean_i -E min(r A, clip(r, 1 - eps, 1 + eps) A))

Training knows nothing of adaptation; evaluation fine-tunes the policy by ProMP's inner steps. It is the baseline
that meta-learning has to beat: in environments that reveal the task it is hard to (Mandi et al. 2022,
arXiv:2206.03271), and where the best mean policy is no start for any task it learns nothing.

How we differ: fine-tuning takes the inner loop's few large steps of plain gradient descent, on the budget that the
meta-learners get, instead of as many steps of PPO as it wants.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from metarl.agent import AgentConfig, AgentSetup, Collector
from metarl.agents.maml import (
    AdaptationConfig,
    GradientAgent,
    MetaBatch,
    PolicyConfig,
    check_finite,
    check_plain,
    collect_levels,
    mean_kl,
    overall_mean,
)
from metarl.learning.failures import unchanged_on_failure
from metarl.learning.losses import clipped_ratio_loss
from metarl.runs import parallel
from metarl.runs.configs import MOST_REPEATS, check_counts, check_positive
from metarl.tasks import Task, TaskEnv


@dataclass(frozen=True)
class MultiTaskConfig(AgentConfig):
    """Hyperparameters of multi-task pre-training with fine-tuning.

    Attributes:
        policy: Network of the policy.
        adaptation: Settings of fine-tuning and of the advantages; training takes no inner steps.
        outer_lr: Adam step size of pre-training.
        outer_steps: Number of Adam steps on each batch of tasks.
        clip_ratio: Clipping range epsilon of the probability ratio, in (0, 1).
    """

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    outer_lr: float = 1e-3
    outer_steps: int = 5
    clip_ratio: float = 0.3

    def __post_init__(self) -> None:
        check_positive(self, "outer_lr", "clip_ratio")
        check_counts(self, "outer_steps", most=MOST_REPEATS)
        check_plain(self.policy, self.adaptation, "multi-task pre-training")

    def make(self, setup: AgentSetup) -> "MultiTask":
        """Make an untrained agent with this configuration."""
        return MultiTask(setup.env, self, seed=setup.seed, device=setup.device)


class MultiTask(GradientAgent[MultiTaskConfig]):
    """A policy that is pre-trained on all tasks together; see `metarl.agent.Agent`."""

    algorithm: ClassVar[str] = "multi-task pre-training"
    data_parallel = True

    def __init__(self, env: TaskEnv, config: MultiTaskConfig, *, seed: int, device: torch.device) -> None:
        super().__init__(env, config, seed=seed, device=device)
        self.optimizer = torch.optim.Adam(self.learner.params().values(), lr=config.outer_lr)

    def collect(self, collector: Collector, tasks: Sequence[Task], rng: np.random.Generator) -> MetaBatch:
        """Episodes of the policy as it is."""
        return collect_levels(self.learner, collector, tasks, rng, num_levels=1)

    def update(self, experience: MetaBatch) -> dict[str, float]:
        """`outer_steps` Adam steps; a failure leaves the agent as it was."""
        with unchanged_on_failure(self):
            return self._update(experience)

    def _update(self, experience: MetaBatch) -> dict[str, float]:
        metrics: dict[str, float] = {}
        (batch,), policy = experience.batches, self.learner.policy
        for step in range(self.config.outer_steps + 1):
            distribution = policy.distribution(self.learner.params(), batch.observations)
            losses = clipped_ratio_loss(
                distribution.log_prob(batch.actions),
                batch.old_log_probs,
                batch.advantages,
                batch.mask,
                clip_ratio=self.config.clip_ratio,
            )
            check_finite(losses, experience.trajectories[0].tasks, "the loss")
            if step == 0:
                metrics["loss/outer"] = overall_mean(losses)
            if step == self.config.outer_steps:
                metrics["loss/outer_after"] = overall_mean(losses)
                metrics["multi_task/kl"] = overall_mean(mean_kl(distribution, batch))
                break
            self.optimizer.zero_grad()
            losses.mean().backward()  # type: ignore[no-untyped-call]
            parallel.average_gradients(list(self.learner.params().values()))
            self.optimizer.step()
        return metrics | experience.metrics(policy)

    def state_dict(self) -> dict[str, Any]:
        """Parameters and Adam's moments."""
        return super().state_dict() | {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        super().load_state_dict(state)
        self.optimizer.load_state_dict(state["optimizer"])
