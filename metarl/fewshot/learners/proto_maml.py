"""Proto-MAML: MAML whose last layer starts from prototypes (Triantafillou et al. 2020, arXiv:1903.03096).

For a batch of tasks, all of them at once:

    p_c = mean of f(x; theta) over the support examples of class c
    w_c = 2 p_c, b_c = -|p_c|^2                    a prototypical network, written as a linear layer
    (theta_i, w, b) = inner_steps gradient steps on the support loss from (theta, w, b)
    theta = Adam(theta, grad mean_i L(query_i; theta_i, w, b)),     through the prototypes too

Any number of ways will do, and may differ from batch to batch.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from metarl.fewshot.episodes import Examples
from metarl.fewshot.functional import TaskModule
from metarl.fewshot.inner_loop import GradientLearner, InnerLoop, names_to_adapt, without
from metarl.fewshot.learner import LearnerConfig, LearnerSetup, Predictor
from metarl.fewshot.metric import check_classes, check_vectors, class_means
from metarl.fewshot.normalisation import Moments, NormStatistics
from metarl.fewshot.objectives import Objective, TaskObjective, as_objective, task_losses
from metarl.fewshot.outer import OuterConfig, OuterOptimizer
from metarl.learning.bilevel import Order, Params, sgd
from metarl.runs.configs import MOST_REPEATS, check_counts, check_positive

_WEIGHT, _BIAS = "prototypes.weight", "prototypes.bias"


@dataclass(frozen=True)
class ProtoMamlConfig(LearnerConfig):
    """The hyperparameters of Proto-MAML.

    Attributes:
        inner_lr: Step size of the inner loop.
        inner_steps: Number of inner steps that training differentiates through; adaptation may take more.
        first_order: Whether second derivatives of the inner steps are left out; prototypes are differentiated
            through all the same.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    inner_lr: float = 0.05
    inner_steps: int = 3
    first_order: bool = True
    normalisation: NormStatistics = "transductive"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_positive(self, "inner_lr")
        check_counts(self, "inner_steps", most=MOST_REPEATS)

    def make(self, setup: LearnerSetup) -> "ProtoMaml":
        """The untrained learner, whose network puts out features."""
        setup.require("classification", self)
        config = replace(self, outer=self.outer.over(setup.num_updates))
        return ProtoMaml(setup.feature_network(exact=True), config, objective=setup.objective)


class PrototypeLoop(InnerLoop):
    """An inner loop over an embedding and a linear layer that starts from prototypes.

    Args:
        network: The embedding.
        inner_lr: Step size.
        objective: Loss of every task.
    """

    def __init__(self, network: TaskModule, inner_lr: float, objective: Objective) -> None:
        super().__init__(network, sgd(inner_lr), names_to_adapt(network, "all"), objective)

    def trace(self, support: Examples, num_steps: int, order: Order) -> list[Params]:
        """The parameters after 0, 1, ... `num_steps` steps on the support set."""
        with torch.set_grad_enabled(order != "none" and torch.is_grad_enabled()):
            features = self.network(self.network.params, support.inputs)
            check_vectors((features,))
            prototypes = class_means(features, support.targets)
            head = {_WEIGHT: 2 * prototypes, _BIAS: -prototypes.square().sum(-1)}
        start = self.start(len(support.inputs)) | head
        return self.descend(self.losses, start, [support] * num_steps, order, added=(_WEIGHT, _BIAS))

    def arguments(self, params: Params, inputs: Tensor) -> tuple[Params, tuple[Tensor, ...]]:
        """The embedding's own parameters, and the inputs."""
        return without(params, _WEIGHT, _BIAS), (inputs,)

    def call(self, params: Params, inputs: Tensor, step: int, fixed: list[Moments] | None = None) -> Tensor:
        """Logits [task, row, way] of the linear layer on the embedding."""
        features = super().call(params, inputs, step, fixed)
        return torch.baddbmm(params[_BIAS].unsqueeze(1), features, params[_WEIGHT].transpose(1, 2))


class ProtoMaml(GradientLearner):
    """A Proto-MAML learner; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: Hyperparameters.
        objective: Loss of every task; cross-entropy by default.
    """

    def __init__(
        self, module: nn.Module, config: ProtoMamlConfig, *, objective: Objective | TaskObjective = task_losses
    ) -> None:
        network = TaskModule(
            module,
            normalisation=config.normalisation,
            num_steps=config.inner_steps,
            twice=not config.first_order,
        )
        outer = OuterOptimizer(list(network.weights.values()), config.outer)
        inner = PrototypeLoop(network, config.inner_lr, as_objective(objective))
        super().__init__(inner, outer, config.inner_steps, first_order=config.first_order)

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """Predictors after 0, 1, ... `num_steps` gradient steps; the first is the prototypical network.

        Raises:
            ValueError: if targets are not 0 to N - 1, or a class has no example.
        """
        check_classes(support.targets)
        return super().adapt(support, num_steps)
