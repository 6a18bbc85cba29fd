"""ProMP: proximal meta-policy search (Rothfuss et al. 2019, arXiv:1810.06784, algorithm 1), and MAML-PPO.

For each meta-iteration:

    collect pre-adaptation episodes with theta_old and post-adaptation episodes with theta'_i(theta_old)
    repeat outer_steps times:
        theta'_i = theta - alpha * grad L_i(theta)                         all tasks at once, with a graph
        J = mean_i [ -E min(r A, clip(r, 1 - eps, 1 + eps) A)              r = pi_theta'_i / pi_theta'_i,old
                     + eta * mean_k KL(pi_theta_old^k || pi_theta^k) ]     on the data of inner step k
        theta = Adam(theta, grad J)                                        step size annealed if asked

MAML-PPO is the same without the inner KL penalty: `inner_kl_coef = 0`.

How we differ: the KL is exact where the reference code adds 1e-8 to its denominator. Its default of a fixed eta
is ours too, its adaptive rule is `adaptive_kl`.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.agent import AgentConfig, AgentSetup
from metarl.agents.maml import (
    AdaptationConfig,
    GradientAgent,
    MetaBatch,
    PolicyConfig,
    check_finite,
    mean_kl,
    overall_mean,
)
from metarl.learning.failures import unchanged_on_failure
from metarl.learning.losses import clipped_ratio_loss
from metarl.learning.schedules import linear, set_step_size
from metarl.runs import parallel
from metarl.runs.configs import MOST_REPEATS, check_counts, check_not_negative, check_positive
from metarl.tasks import TaskEnv


@dataclass(frozen=True)
class PrompConfig(AgentConfig):
    """ProMP's hyperparameters, with the defaults of Rothfuss et al. 2019.

    Attributes:
        policy: Network of the policy.
        adaptation: Settings of the inner loop.
        outer_lr: Adam step size of the outer loop.
        final_outer_lr: Adam step size at the end of the run, reached linearly; None for no change.
        outer_steps: Number of Adam steps on each meta-batch.
        clip_ratio: Clipping range epsilon of the probability ratio, in (0, 1).
        inner_kl_coef: Initial weight eta of the inner KL penalty; 0 gives MAML-PPO.
        adaptive_kl: Whether eta is halved or doubled when the inner KL leaves the target by a factor of 1.5.
        target_inner_kl: Target of the inner KL for the adaptive rule, in nats.
    """

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    outer_lr: float = 1e-3
    final_outer_lr: float | None = None
    outer_steps: int = 5
    clip_ratio: float = 0.3
    inner_kl_coef: float = 5e-4
    adaptive_kl: bool = False
    target_inner_kl: float = 0.01

    def __post_init__(self) -> None:
        check_positive(self, "outer_lr", "clip_ratio", "target_inner_kl")
        check_counts(self, "outer_steps", most=MOST_REPEATS)
        check_not_negative(self, "inner_kl_coef")
        check_not_negative(self, "final_outer_lr", optional=True)

    def make(self, setup: AgentSetup) -> "Promp":
        """Make an untrained agent with this configuration."""
        return Promp(setup.env, self, iterations=setup.iterations, seed=setup.seed, device=setup.device)


class Promp(GradientAgent[PrompConfig]):
    """A ProMP agent; see `metarl.agent.Agent`.

    Args:
        env: Environment of the family, for its spaces.
        config: Hyperparameters of the agent.
        iterations: Number of updates of the whole run, for annealing.
        seed: Seed of the initial weights.
        device: Device for parameters and losses.
    """

    algorithm: ClassVar[str] = "ProMP"
    data_parallel = True

    def __init__(
        self, env: TaskEnv, config: PrompConfig, *, iterations: int, seed: int, device: torch.device
    ) -> None:
        super().__init__(env, config, seed=seed, device=device)
        self.iterations, self.updates = iterations, 0
        self.optimizer = torch.optim.Adam(self.learner.params().values(), lr=config.outer_lr)
        self.inner_kl_coefs = [config.inner_kl_coef] * config.adaptation.inner_steps

    def update(self, experience: MetaBatch) -> dict[str, float]:
        """`outer_steps` Adam steps on the clipped objective; an update that fails leaves the agent as it was.

        Raises:
            FloatingPointError: if a loss is not finite, naming the task.
        """
        config = self.config
        rate = linear(config.outer_lr, config.final_outer_lr, self.updates, self.iterations)
        set_step_size(self.optimizer, rate)
        with unchanged_on_failure(self):
            metrics = self._descend(experience)
        self.updates += 1
        return metrics

    def _descend(self, experience: MetaBatch) -> dict[str, float]:
        """All Adam steps of an update, and the metrics of the last."""
        tasks = experience.trajectories[0].tasks
        metrics: dict[str, float] = {}
        for step in range(self.config.outer_steps):
            losses, _, inner_kls = self.outer_losses(experience)
            check_finite(losses, tasks, "the outer loss")
            penalty = sum(
                (coef * kl.mean() for coef, kl in zip(self.inner_kl_coefs, inner_kls, strict=True)),
                start=losses.new_zeros(()),
            )
            loss = losses.mean() + penalty / len(inner_kls)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            parallel.average_gradients(list(self.learner.params().values()))
            norm = torch.nn.utils.get_total_norm(
                [p.grad for p in self.learner.params().values() if p.grad is not None]
            )
            if not bool(torch.isfinite(norm)):
                raise FloatingPointError("the gradient of ProMP's loss is not finite; lower inner_lr or outer_lr")
            self.optimizer.step()
            if step == 0:
                metrics = {"loss/outer": float(parallel.mean(loss.detach())), "loss/grad_norm": float(norm)}
        with torch.no_grad():
            after, kls, inner_kls = self.outer_losses(experience)
        check_finite(after, tasks, "the outer loss after the update")
        metrics["loss/outer_after"] = overall_mean(after)
        metrics["promp/kl"] = overall_mean(kls)
        for index, inner_kl in enumerate(inner_kls):
            kl = metrics[f"promp/inner_kl_{index}"] = overall_mean(inner_kl)
            self._adapt_coef(index, kl)
            metrics[f"promp/inner_kl_coef_{index}"] = self.inner_kl_coefs[index]
        return metrics | experience.metrics(self.learner.policy)

    def outer_losses(self, experience: MetaBatch) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The adapted policies' clipped loss [task] and KL [task], and the inner KL [task] of each inner step."""
        *inner, outer = experience.batches
        learner = self.learner
        trace = learner.adapt_through(learner.params(), inner)
        distribution = learner.policy.distribution(trace[-1], outer.observations)
        losses = clipped_ratio_loss(
            distribution.log_prob(outer.actions),
            outer.old_log_probs,
            outer.advantages,
            outer.mask,
            clip_ratio=self.config.clip_ratio,
        )
        inner_kls = [
            mean_kl(learner.policy.distribution(params, batch.observations), batch)
            for params, batch in zip(trace, inner, strict=False)
        ]
        losses = losses + learner.exploration_loss(trace, inner, outer.credit)
        return losses, mean_kl(distribution, outer), inner_kls

    def _adapt_coef(self, index: int, kl: float) -> None:
        if not self.config.adaptive_kl:
            return
        if kl < self.config.target_inner_kl / 1.5:
            self.inner_kl_coefs[index] /= 2
        elif kl > self.config.target_inner_kl * 1.5:
            self.inner_kl_coefs[index] *= 2

    def state_dict(self) -> dict[str, Any]:
        """Parameters, Adam's moments, the KL coefficients and the number of updates."""
        return super().state_dict() | {
            "optimizer": self.optimizer.state_dict(),
            "inner_kl_coefs": list(self.inner_kl_coefs),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        super().load_state_dict(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.inner_kl_coefs = list(state["inner_kl_coefs"])
        self.updates = int(state.get("updates", 0))  # none was counted before the step size could be annealed
