"""A learner that was adapted to one task, as a module of its own: it is saved, pickled and moved like any other.

It shares nothing with the learner, which may go on training. Of a learner that takes gradient steps it is the
network with the weights that the steps made, under the names that they have in the network; of one that compares
features the embedding, and what the support set decided.
"""

import copy
from typing import Self

import torch
from torch import Tensor, nn

from metarl.fewshot.episodes import Examples
from metarl.fewshot.evaluation import check_views
from metarl.fewshot.inner_loop import GradientLearner, InnerLoop
from metarl.fewshot.layers import results_left
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.fine_tuning import FineTuning
from metarl.fewshot.learners.reptile import Reptile
from metarl.fewshot.metric import MetricLearner, check_classes, one_hot
from metarl.fewshot.objectives import is_classification


class Adapted(nn.Module):
    """Maps inputs [row, *input] to outputs [row, out] of one task, as the learner's predictor does."""

    def train(self, mode: bool = True) -> Self:
        """The module itself, which is in evaluation whatever the mode: nothing of it is trained."""
        return super().train(mode=False)


class AdaptedNetwork(Adapted):
    """The network that gradient steps on one task made.

    Args:
        inner: Inner loop of the learner; it is left as it is.
        support: Examples of the task.
        num_steps: Number of steps.

    Attributes:
        network: The network with the adapted weights.
    """

    def __init__(self, inner: InnerLoop, support: Examples, num_steps: int) -> None:
        super().__init__()
        support = support.kept()
        with inner.network.evaluating():
            trace = inner.trace(support, num_steps, "none")[-1]
            own, arguments = inner.arguments(trace, support.inputs)
            with torch.no_grad():
                fixed = inner.network.moments(own, *arguments)
        self._inner: InnerLoop = copy.deepcopy(inner, results_left(inner.network.module))
        self._step = num_steps
        self.network = self._inner.network.module.requires_grad_(False)
        weights = dict(self.network.named_parameters())
        with torch.no_grad():
            for name in weights.keys() & trace.keys():
                weights[name].copy_(trace[name].reshape(weights[name].shape))
        self._beside = [name for name in trace if name not in weights]
        """Names of what adapted and is no weight of the network, such as a context."""
        self.beside = nn.ParameterList(_constant(trace[name]) for name in self._beside)
        self.means = nn.ParameterList(_constant(mean) for mean, _ in fixed or [])
        self.variances = nn.ParameterList(_constant(variance) for _, variance in fixed or [])
        self._has_moments = fixed is not None
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """The outputs [row, out] for inputs [row, *input]."""
        beside = dict(zip(self._beside, self.beside, strict=True))
        fixed = list(zip(self.means, self.variances, strict=True)) if self._has_moments else None
        with self._inner.network.evaluating():
            params = dict(self.network.named_parameters()) | beside
            return self._inner.call(params, inputs.unsqueeze(0), self._step, fixed).squeeze(0)


class Embedding(Adapted):
    """The features of inputs, each by itself.

    Args:
        learner: Learner that compares features.
        views: Number of views of an image, itself and distorted copies, whose mean features stand for it.
    """

    def __init__(self, learner: MetricLearner, views: int = 1) -> None:
        super().__init__()
        self._learner, self.network, self._views = learner, learner.network.module, views
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """The features [row, *feature] of inputs [row, *input]; without gradients of several views."""
        if self._views > 1:
            return self._learner.features(inputs, views=self._views)
        with self._learner.network.evaluating(self._learner.head):
            return self._learner.network.pooled(inputs)


class Compared(Adapted):
    """The scores of inputs by a support set.

    Args:
        learner: Learner that compares features, whose rows are embedded by themselves; it is part of this.
        support: Examples of one task.
        views: Number of views of an image.
    """

    def __init__(self, learner: MetricLearner, support: Examples, views: int = 1) -> None:
        super().__init__()
        self._learner, self.head = learner, learner.head
        self.embedding = Embedding(learner, views)
        with torch.no_grad():
            features = self.embedding(support.inputs[0]).unsqueeze(0)
            solution = learner.solve(features, target_values(support.targets))
        self.solution = nn.ParameterList(_constant(part) for part in solution)
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """The scores [row, way] of inputs [row, *input]."""
        features = self.embedding(inputs)
        with self._learner.network.evaluating(self._learner.head):
            return self._learner.judge(tuple(self.solution), features.unsqueeze(0)).squeeze(0)


def adapted_network(learner: Learner, support: Examples, num_steps: int, *, views: int = 1) -> Adapted:
    """A learner after some adaptation steps on one task, as a module that shares nothing with it.

    Args:
        learner: Trained learner; it is left as it is.
        support: Examples of one task.
        num_steps: Number of steps.
        views: Number of views of an image whose mean features a learner that compares them takes, see
            `MetricLearner.embed_classes`.

    Raises:
        TypeError: If the learner has no such module.
        ValueError: If predictions depend on the other queries, or the support set is not one that it learns.
    """
    name = type(learner).__name__
    if len(support.inputs) != 1:
        raise ValueError(f"expected the examples of one task, [1, row, ...], got {len(support.inputs)} tasks")
    check_views(learner, tuple(support.inputs.shape[2:]), views)
    with torch.inference_mode(mode=False), torch.enable_grad():
        if isinstance(learner, GradientLearner | Reptile):
            return AdaptedNetwork(learner.inner, support, num_steps)
        if not isinstance(learner, MetricLearner | FineTuning):
            raise TypeError(f"{name} must take gradient steps or compare features to be a module of one task")
        if learner.judges_queries_together:
            raise ValueError(f"{name} is no module of one task: it solves a problem of all queries together")
        if isinstance(learner, FineTuning):
            return _fine_tuned(learner, support.kept(), num_steps)
        if not learner.embeds_rows_alone:
            raise ValueError(
                f"{name} is no module of one task: its batch norm is {learner.normalisation}, so that features "
                "depend on other examples; train it with running or frozen"
            )
        if learner.needs_all_classes:
            check_classes(support.targets)
        return Compared(_copied(learner), support.kept(), views)


def _fine_tuned(learner: FineTuning, support: Examples, num_steps: int) -> Adapted:
    check_classes(support.targets)
    params, base = learner.fine_tuned(support, num_steps)[-1], _copied(learner.base)
    with torch.no_grad():
        for name, p in base.network.weights.items():
            if name in params:
                p.copy_(params[name])
    return Compared(base, support)


def _copied(learner: MetricLearner) -> MetricLearner:
    """A copy that shares no weights, without the optimiser."""
    copied = copy.deepcopy(learner, {**results_left(learner.network.module), id(learner.outer): None})
    for module in (copied.network.module, copied.head):
        module.requires_grad_(False)
    return copied


def _constant(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().clone(), requires_grad=False)


def target_values(targets: Tensor) -> Tensor:
    """Class indices as bool with an axis of classes, or the numbers."""
    return one_hot(targets, torch.empty(0)).bool() if is_classification(targets) else targets
