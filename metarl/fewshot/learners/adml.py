"""ADML: meta-learning from clean and adversarial examples, crossed (Yin et al. 2018, arXiv:1806.03316).

For a batch of tasks, all of them at once:

    S', Q' = adversarial copies of the support and query sets S, Q, by one step along the sign of the gradient
    theta_adv   = theta - alpha_1 grad L(S'; theta),      theta_clean = theta - alpha_2 grad L(S; theta)
    theta = Adam(theta, grad mean_i [ L(Q; theta_adv) + L(Q'; theta_clean) ] / 2)

How we differ: one step on both outer losses, where the paper takes one on each in turn; Adam for both.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.learner import Outcome, Predictor
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.normalisation import Normalisation
from metarl.fewshot.objectives import TaskObjective, task_losses
from metarl.runs.configs import check_not_negative


@dataclass(frozen=True)
class AdmlConfig:
    """ADML's hyperparameters.

    Attributes:
        maml: the inner and the outer loop.
        attack_size: largest change of an input's entry by an adversary, in the input's units.
    """

    maml: MamlConfig = field(default_factory=MamlConfig)
    attack_size: float = 0.1

    def __post_init__(self) -> None:
        check_not_negative(self, "attack_size")


class Adml:
    """An ADML learner; see `metarl.fewshot.learner.Learner`.

    Args:
        module: maps [row, *input] to [row, out]; its parameters are trained in place.
        config: hyperparameters.
        objective: cross-entropy for integer targets and squared error for others by default.
    """

    def __init__(self, module: nn.Module, config: AdmlConfig, *, objective: TaskObjective = task_losses) -> None:
        self.config = config
        self.maml = Maml(module, config.maml, objective=objective)
        self.num_steps = self.maml.num_steps

    @property
    def normalisation(self) -> Normalisation | None:
        """Of batch-norm layers, or None without any."""
        return self.maml.normalisation

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """One outer step."""
        self.maml.network.track(self.maml.network.params, episodes.support.inputs)
        return self.maml.outer.update(self.outcome, episodes)

    def outcome(self, episodes: Episodes) -> Outcome:
        """The mean of both outer losses, and the outputs on clean queries of what learned from attacks."""
        support, query = (self.attacked(examples) for examples in episodes)
        clean = self.maml.outcome(Episodes(support, episodes.query))
        attacked = self.maml.outcome(Episodes(episodes.support, query))
        return Outcome((clean.losses + attacked.losses) / 2, clean.outputs)

    def attacked(self, examples: Examples) -> Examples:
        """The examples, each moved by the attack's size where it raises the loss of the meta-parameters."""
        inputs = examples.inputs.detach().clone().requires_grad_()
        params = {name: p.detach() for name, p in self.maml.network.params.items()}
        losses = self.maml.inner.objective(self.maml.network(params, inputs), examples.targets)
        (slope,) = torch.autograd.grad(losses.sum(), inputs)
        return Examples(examples.inputs + self.config.attack_size * slope.sign(), examples.targets)

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """Predictors after 0, 1, ... `num_steps` gradient steps."""
        return self.maml.adapt(support, num_steps)

    def state_dict(self) -> dict[str, Any]:
        """As of the MAML learner inside."""
        return self.maml.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.maml.load_state_dict(state)
