"""MAML and its family: an initialisation that a few gradient steps adapt (Finn et al. 2017, arXiv:1703.03400).

For a batch of tasks, all of them at once:

    theta_i^{k+1} = theta_i^k - alpha_k * M grad L(support_i; theta_i^k)          k = 0 ... inner_steps - 1
    theta = Adam(theta, grad mean_i sum_k w_k L(query_i; theta_i^k))              w_k = 1 for the last step, else 0

The family differs in what of this is learned and differentiated:

    first-order MAML        the inner gradients are constants
    ANIL                    only the last layer adapts (Raghu et al. 2020)
    Meta-SGD                alpha is learned for every weight (Li et al. 2017)
    MAML++                  alpha for every tensor and step; w_k falls from equal weights to the last step's; first
                            order before second; batch norm's gain and shift for every step; cosine annealing
                            (Antoniou et al. 2019)
    Meta-Curvature          M, a learned matrix along every axis of every tensor (Park & Oliva 2019)

How we differ: losses are means over examples, where the original's is N times that for N-way tasks; its step size
0.4 is 2.0 here. MAML++'s per-step statistics are not kept, as its code never normalises by them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from metarl.fewshot.call_order import called_last
from metarl.fewshot.episodes import Episodes
from metarl.fewshot.functional import TaskModule
from metarl.fewshot.inner_loop import Adapted, GradientLearner, InnerLoop, head_of, last_registered, names_to_adapt
from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.objectives import Objective, TaskObjective, as_objective, task_losses
from metarl.fewshot.outer import OuterConfig, OuterLosses, OuterOptimizer
from metarl.fewshot.rules import Rates, make_rule
from metarl.fewshot.weights import check_tensors
from metarl.learning.bilevel import Order
from metarl.runs.configs import MOST_REPEATS, MOST_UPDATES, check_counts, check_positive


@dataclass(frozen=True)
class MamlConfig(LearnerConfig):
    """The member of MAML's family, and its hyperparameters.

    Attributes:
        inner_lr: Step size of the inner loop, alpha, at the start if it is learned.
        inner_steps: Number of inner steps that training differentiates through; adaptation may take more.
        first_order: Whether second derivatives are left out of the outer gradient.
        adapted: Weights that adapt, all of them or the head's; gains and shifts of batch norm never do.
        head: Name of the layer that adapts if only the head does, such as "fc"; None for the layer
            called last of those that are not frozen.
        rates: Step sizes that are learned: none, one per weight, or one per tensor and inner step.
        curvature: Whether the matrices M, which multiply inner gradients, are learned.
        rule_lr_factor: Outer step size of learned rates and matrices, as a multiple of that of the weights. Adam
            moves every number by about its step size: rates of 0.01 are lost within a few steps of 1e-3.
        multi_step_updates: Number of updates until only the last inner step's query loss counts; 0 for the last
            step's alone from the start.
        first_order_updates: Number of updates without second derivatives before those with them.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    inner_lr: float = 0.4
    inner_steps: int = 1
    first_order: bool = False
    adapted: Adapted = "all"
    head: str | None = None
    rates: Rates = "fixed"
    curvature: bool = False
    rule_lr_factor: float = 1.0
    multi_step_updates: int = 0
    first_order_updates: int = 0
    normalisation: NormStatistics = "transductive"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_positive(self, "inner_lr", "rule_lr_factor")
        check_counts(self, "inner_steps", most=MOST_REPEATS)
        check_counts(self, "multi_step_updates", "first_order_updates", least=0, most=MOST_UPDATES)

    def make(self, setup: LearnerSetup) -> "Maml":
        """The untrained learner, whose network has an output per way or predicted number."""
        network, head = setup.output_network(), self.head
        if self.adapted == "head" and head is None:
            head = called_last(network, setup.tasks.input_shape, setup.device, setup.tasks.input_dtype)
        config = replace(self, head=head, outer=self.outer.over(setup.num_updates))
        return Maml(network, config, objective=setup.objective)


class Maml(GradientLearner):
    """A learner of the MAML family; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, out]; its parameters are trained in place.
        config: Hyperparameters. Without its name, the head is the layer that is registered last of those that are
            not frozen, and a module that is seen to call another one last is refused at the first batch.
        objective: Loss of every task; cross-entropy for integer targets and squared error for others by default.
        adapted: Names of the parameters that adapt, instead of what the configuration says.

    Raises:
        ValueError: If nothing can adapt, or names are not those of the module.
    """

    def __init__(
        self,
        module: nn.Module,
        config: MamlConfig,
        *,
        objective: Objective | TaskObjective = task_losses,
        adapted: Collection[str] | None = None,
    ) -> None:
        self.config = config
        network = TaskModule(
            module,
            normalisation=config.normalisation,
            num_steps=config.inner_steps,
            twice=not config.first_order,
        )
        params = network.weights
        names = names_to_adapt(network, config.adapted, config.head) if adapted is None else list(adapted)
        unknown = [name for name in names if name not in params]
        if unknown or not names:
            raise ValueError(
                f"adapted must name parameters of the module, got {unknown or names}; such are {list(params)[:5]}"
            )
        unnamed = adapted is None and config.adapted == "head" and config.head is None
        rule, self.meta = make_rule(
            {name: params[name] for name in names},
            config.inner_lr,
            rates=config.rates,
            num_steps=config.inner_steps,
            curvature=config.curvature,
        )
        outer = OuterOptimizer(
            list(params.values()),
            config.outer,
            head=head_of(network, config.outer, config.head),
            rule=list(self.meta.values()),
            rule_lr_factor=config.rule_lr_factor,
        )
        head = last_registered(network) if unnamed else None
        inner = InnerLoop(network, rule, names, as_objective(objective), head=head)
        super().__init__(inner, outer, config.inner_steps, first_order=config.first_order)

    @property
    def order(self) -> Order:
        """Order of the derivatives at this update."""
        return "first" if self.outer.updates < self.config.first_order_updates else super().order

    def outer_losses(self, episodes: Episodes) -> OuterLosses:
        """The outer losses of tasks, and the outputs on their query sets after adaptation."""
        trace = self.inner.trace(episodes.support, self.num_steps, self.order)
        *early, last = self.step_weights()
        outputs = self.inner.outputs(trace[-1], episodes.support, episodes.query.inputs, self.num_steps)
        losses = self.objective.losses(outputs, episodes.query.targets)
        if any(early):
            losses = last * losses
        for step, weight in enumerate(early, start=1):
            if weight:
                before = self.inner.outputs(trace[step], episodes.support, episodes.query.inputs, step)
                losses = losses + weight * self.objective.losses(before, episodes.query.targets)
        return OuterLosses(losses, outputs)

    def step_weights(self) -> list[float]:
        """The query loss's weight after each inner step at this update (MAML++'s multi-step loss), of sum 1."""
        steps, updates = self.num_steps, self.config.multi_step_updates
        if self.outer.updates >= updates or steps == 1:
            return [0.0] * (steps - 1) + [1.0]
        early = max(1 / steps - self.outer.updates / (steps * updates), 0.03 / steps)
        return [early] * (steps - 1) + [1 - early * (steps - 1)]

    def state_dict(self) -> dict[str, Any]:
        """Weights, learned rates and matrices, and the outer optimiser."""
        meta = {name: value.detach().clone() for name, value in self.meta.items()}
        return super().state_dict() | {"meta": meta}

    def _check_state(self, state: Mapping[str, Any]) -> None:
        super()._check_state(state)
        check_tensors("meta", self.meta, state.get("meta"))
        wrong = [name for name, value in state["meta"].items() if not bool(value.isfinite().all())]
        if wrong:
            raise ValueError(f"{wrong[0]!r} of meta in the state is not finite; load an earlier one")

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave; nothing, with an error in one line, if it is another learner's."""
        super().load_state_dict(state)
        for name, value in self.meta.items():
            value.copy_(state["meta"][name])
