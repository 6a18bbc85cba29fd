"""Proto-MAML: MAML whose last layer starts from prototypes (Triantafillou et al. 2020, arXiv:1903.03096).

For a batch of tasks, all of them at once:

    p_c = mean of f(x; theta) over the support examples of class c
    w_c = 2 p_c, b_c = -|p_c|^2                    a prototypical network, written as a linear layer
    (theta_i, w, b) = inner_steps gradient steps on the support loss from (theta, w, b)
    theta = Adam(theta, grad mean_i L(query_i; theta_i, w, b)),     through the prototypes too

Any number of ways will do, and may differ from batch to batch.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.functional import TaskModule
from metarl.fewshot.inner_loop import InnerLoop, StepBatch, names_to_adapt
from metarl.fewshot.learner import Outcome, OuterConfig, OuterOptimizer, Predictor
from metarl.fewshot.metric import check_classes, check_vectors, class_means
from metarl.fewshot.normalisation import Normalisation
from metarl.fewshot.objectives import task_losses
from metarl.learning.bilevel import Order, Params, adapt, sgd
from metarl.runs.configs import check_counts, check_positive

_WEIGHT, _BIAS = "prototypes.weight", "prototypes.bias"


@dataclass(frozen=True)
class ProtoMamlConfig:
    """Proto-MAML's hyperparameters.

    Attributes:
        inner_lr: step size.
        inner_steps: that training differentiates through.
        first_order: leave second derivatives of the steps out; prototypes are differentiated through all the same.
        normalisation: of batch-norm layers.
        outer: the outer optimiser.
    """

    inner_lr: float = 0.05
    inner_steps: int = 3
    first_order: bool = True
    normalisation: Normalisation = "transductive"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_positive(self, "inner_lr")
        check_counts(self, "inner_steps")


class PrototypeLoop(InnerLoop):
    """An inner loop over an embedding and a linear layer that starts from prototypes.

    Args:
        network: the embedding.
        inner_lr: step size.
    """

    def __init__(self, network: TaskModule, inner_lr: float) -> None:
        super().__init__(network, sgd(inner_lr), names_to_adapt(network, "all"), task_losses)

    def trace(self, support: Examples, num_steps: int, order: Order) -> list[Params]:
        """The parameters after 0, 1, ... `num_steps` steps on the support set."""
        params = self.network.params
        with torch.set_grad_enabled(order != "none" and torch.is_grad_enabled()):
            features = self.network(params, support.inputs)
            check_vectors((features,))
            prototypes = class_means(features, support.targets)
            head = {_WEIGHT: 2 * prototypes, _BIAS: -prototypes.square().sum(-1)}
        start = self.start(len(support.inputs)) | head
        steps = [StepBatch(step, support) for step in range(num_steps)]
        return adapt(self.losses, start, steps, self.rule, order=order, adapted=[*self.adapted, _WEIGHT, _BIAS])

    def losses(self, params: Params, batch: StepBatch) -> Tensor:
        """The loss of every task, [task]."""
        outputs = self._classify(params, batch.examples.inputs, batch.step, None)
        return self.objective(outputs, batch.examples.targets)

    def outputs(self, params: Params, support: Examples, inputs: Tensor, step: int) -> Tensor:
        """Logits of query inputs after some steps, [task, row, way]."""
        given = self.network.moments(self._body(params), support.inputs, step=step)
        return self._classify(params, inputs, step, given)

    def _classify(self, params: Params, inputs: Tensor, step: int, given: Any) -> Tensor:
        features = self.network(self._body(params), inputs, step=step, given=given)
        return torch.baddbmm(params[_BIAS].unsqueeze(1), features, params[_WEIGHT].transpose(1, 2))

    def _body(self, params: Params) -> Params:
        return {name: p for name, p in params.items() if name not in (_WEIGHT, _BIAS)}


class ProtoMaml:
    """A Proto-MAML learner; see `metarl.fewshot.learner.Learner`.

    Args:
        module: maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: hyperparameters.
    """

    def __init__(self, module: nn.Module, config: ProtoMamlConfig) -> None:
        self.config = config
        self.num_steps = config.inner_steps
        self.network = TaskModule(module, normalisation=config.normalisation, num_steps=config.inner_steps)
        self.inner = PrototypeLoop(self.network, config.inner_lr)
        self.outer = OuterOptimizer(list(self.network.params.values()), config.outer)

    @property
    def normalisation(self) -> Normalisation | None:
        """Of batch-norm layers, or None without any."""
        return self.config.normalisation if self.network.has_norms else None

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """One outer step."""
        self.network.track(self.network.params, episodes.support.inputs)
        return self.outer.update(self.outcome, episodes)

    def outcome(self, episodes: Episodes) -> Outcome:
        """The outer losses of tasks, and the outputs on their query sets after adaptation."""
        steps = self.config.inner_steps
        order: Order = "first" if self.config.first_order else "second"
        params = self.inner.trace(episodes.support, steps, order)[-1]
        outputs = self.inner.outputs(params, episodes.support, episodes.query.inputs, steps)
        return Outcome(task_losses(outputs, episodes.query.targets), outputs)

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """Predictors after 0, 1, ... `num_steps` gradient steps; the first is the prototypical network.

        Raises:
            ValueError: if targets are not 0 to N - 1, or a class has no example.
        """
        check_classes(support.targets)
        return self.inner.predictors(support, num_steps, self.config.outer.tasks_at_once)

    def state_dict(self) -> dict[str, Any]:
        """Weights and the outer optimiser."""
        return {"module": self.network.module.state_dict(), "outer": self.outer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.network.module.load_state_dict(state["module"])
        self.outer.load_state_dict(state["outer"])
