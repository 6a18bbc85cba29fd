"""CAVIA: a few context numbers adapt, the network is shared (Zintgraf et al. 2019, arXiv:1810.03642).

For a batch of tasks, all of them at once:

    phi_i = 0;  inner_steps times: phi_i = phi_i - alpha grad_phi L(support_i; theta, phi_i)
    theta = Adam(theta, grad mean_i L(query_i; theta, phi_i))

Since only the context differs from task to task, the network runs once over the rows of all tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.functional import TaskModule
from metarl.fewshot.inner_loop import StepBatch
from metarl.fewshot.learner import Outcome, OuterConfig, OuterOptimizer, Predictor
from metarl.fewshot.normalisation import Normalisation
from metarl.fewshot.objectives import TaskObjective, task_losses
from metarl.learning.bilevel import Order, Params, adapt, sgd
from metarl.runs.configs import check_counts, check_positive


@dataclass(frozen=True)
class CaviaConfig:
    """CAVIA's hyperparameters, with the published ones for the sinusoid.

    Attributes:
        num_context: numbers that adapt.
        inner_lr: alpha.
        inner_steps: that training differentiates through.
        first_order: leave second derivatives out.
        normalisation: of batch-norm layers.
        outer: the outer optimiser.
    """

    num_context: int = 5
    inner_lr: float = 1.0
    inner_steps: int = 1
    first_order: bool = False
    normalisation: Normalisation = "transductive"
    outer: OuterConfig = field(default_factory=lambda: OuterConfig(max_grad=10.0))

    def __post_init__(self) -> None:
        check_counts(self, "num_context", "inner_steps")
        check_positive(self, "inner_lr")


class ContextAsInput(nn.Module):
    """Gives a network the context as further inputs.

    Batch norm right behind the first layer would take out what is the same in all rows of a task, the context.

    Args:
        network: maps [row, input + context] to [row, out].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, context: Tensor) -> Tensor:
        """Map inputs [row, input] and their context [row, context] to [row, out]."""
        outputs: Tensor = self.network(torch.cat([inputs, context], -1))
        return outputs


class Cavia:
    """A CAVIA learner; see `metarl.fewshot.learner.Learner`.

    Args:
        module: maps [row, *input] and the rows' context [row, context] to [row, out]; its parameters are trained
            in place. See `ContextAsInput`, and `metarl.fewshot.backbones.FilmConv4` for images.
        config: hyperparameters.
        objective: cross-entropy for integer targets and squared error for others by default.
    """

    def __init__(self, module: nn.Module, config: CaviaConfig, *, objective: TaskObjective = task_losses) -> None:
        self.config = config
        self.num_steps = config.inner_steps
        self.network = TaskModule(module, normalisation=config.normalisation, num_steps=config.inner_steps)
        self.objective = objective
        self.outer = OuterOptimizer(list(self.network.params.values()), config.outer)

    @property
    def normalisation(self) -> Normalisation | None:
        """Of batch-norm layers, or None without any."""
        return self.config.normalisation if self.network.has_norms else None

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """One outer step."""
        context = self._context(episodes.support)["context"]
        rows = self._rows(context, episodes.support.inputs)
        self.network.track(self.network.params, episodes.support.inputs, rows)
        return self.outer.update(self.outcome, episodes)

    def outcome(self, episodes: Episodes) -> Outcome:
        """The outer losses of tasks, and the outputs on their query sets after adaptation."""
        steps = self.config.inner_steps
        params = self.network.params
        order: Order = "first" if self.config.first_order else "second"
        context = self._trace(params, episodes.support, steps, order)[-1]
        outputs = self._outputs(params, context, episodes.support, episodes.query.inputs, steps)
        return Outcome(self.objective(outputs, episodes.query.targets), outputs)

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """Predictors after 0, 1, ... `num_steps` steps of the context."""
        params = {name: p.detach() for name, p in self.network.params.items()}
        self.network.training = False
        try:
            trace = self._trace(params, support, num_steps, "none")
        finally:
            self.network.training = True

        def predictor(step: int) -> Predictor:
            @torch.no_grad()
            def predict(inputs: Tensor) -> Tensor:
                self.network.training = False
                try:
                    return self._outputs(params, trace[step], support, inputs, step)
                finally:
                    self.network.training = True

            return predict

        return [predictor(step) for step in range(num_steps + 1)]

    def _trace(
        self, params: Mapping[str, Tensor], support: Examples, num_steps: int, order: Order
    ) -> list[Params]:
        def losses(context: Params, batch: StepBatch) -> Tensor:
            rows = self._rows(context["context"], batch.examples.inputs)
            outputs = self.network(params, batch.examples.inputs, rows, step=batch.step)
            return self.objective(outputs, batch.examples.targets)

        steps = [StepBatch(step, support) for step in range(num_steps)]
        return adapt(losses, self._context(support), steps, sgd(self.config.inner_lr), order=order)

    def _outputs(
        self, params: Mapping[str, Tensor], context: Params, support: Examples, inputs: Tensor, step: int
    ) -> Tensor:
        support_rows = self._rows(context["context"], support.inputs)
        given = self.network.moments(params, support.inputs, support_rows, step=step)
        return self.network(params, inputs, self._rows(context["context"], inputs), step=step, given=given)

    def _context(self, support: Examples) -> Params:
        """The context before adaptation, zeros."""
        like = next(iter(self.network.params.values()))
        return {"context": like.new_zeros(len(support.inputs), self.config.num_context)}

    def _rows(self, context: Tensor, inputs: Tensor) -> Tensor:
        """Every task's context for each of its rows, [task, row, context]."""
        return context.unsqueeze(1).expand(-1, inputs.shape[1], -1)

    def state_dict(self) -> dict[str, Any]:
        """Weights and the outer optimiser."""
        return {"module": self.network.module.state_dict(), "outer": self.outer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.network.module.load_state_dict(state["module"])
        self.outer.load_state_dict(state["outer"])
