"""The inner loop of the gradient-based learners: which weights adapt, by what rule, on what loss."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.call_order import check_averages
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.functional import TaskModule
from metarl.fewshot.layers import check_second_derivatives, owner, second_derivatives_explained
from metarl.fewshot.learner import ModuleLearner, Predictor, differentiable_in_queries
from metarl.fewshot.normalisation import Moments
from metarl.fewshot.objectives import Objective, TaskObjective
from metarl.fewshot.outer import OuterConfig, OuterLosses, OuterOptimizer, in_pieces
from metarl.learning.bilevel import Order, Params, TaskLoss, UpdateRule, adapt_params, expand

Adapted = Literal["all", "head"]


class StepBatch(NamedTuple):
    """The data of one inner step, and which step it is."""

    step: int
    examples: Examples


class InnerLoop:
    """Adapts a network to tasks by gradient steps.

    Args:
        network: The network whose parameters adapt.
        rule: The update rule.
        adapted: Names of the parameters that adapt, unless they are frozen.
        objective: The loss of every task.
        head: Layer that adapts because it is registered last, which a first batch may show not to be called last;
            None if another reason chose what adapts.
    """

    def __init__(
        self,
        network: TaskModule,
        rule: UpdateRule,
        adapted: Collection[str],
        objective: Objective,
        *,
        head: str | None = None,
    ) -> None:
        self.network = network
        self.rule = rule
        self._adapted = set(adapted)
        self._head = head
        if network.normalisation == "running":
            check_averages(network.module, adapted)
        self.objective = objective

    @property
    def adapted(self) -> list[str]:
        """The names of the parameters that adapt: of those to adapt, the ones that are not frozen at present."""
        weights = self.network.weights.items()
        return [name for name, p in weights if p.requires_grad and name in self._adapted]

    def start(self, num_tasks: int) -> Params:
        """The meta-parameters; those that adapt have a task axis."""
        params = self.network.params
        return params | expand({name: params[name] for name in self.adapted}, num_tasks)

    def _check(self, support: Examples) -> None:
        """Raise a ValueError if a first batch shows that other weights should adapt; for every batch."""
        network = self.network
        if not network.needs_check or (self._head is None and network.normalisation != "running"):
            return
        names = set(self.adapted)
        params = {name: p.detach().clone().requires_grad_(name in names) for name, p in self.start(1).items()}
        own, arguments = self.arguments(params, support.inputs[:1])
        one = {name: p[0] if name in names else p for name, p in own.items()}
        adapted = {name: params[name] for name in names}
        network.check_order(one, *(x[0] for x in arguments), adapted=adapted, head=self._head)
        network.needs_check = False

    def arguments(self, params: Params, inputs: Tensor) -> tuple[Params, tuple[Tensor, ...]]:
        """The network's own parameters, and what it is called with; all and the inputs unless overridden."""
        return params, (inputs,)

    def call(self, params: Params, inputs: Tensor, step: int, fixed: list[Moments] | None = None) -> Tensor:
        """The outputs [task, row, out] of parameters after some steps, see `TaskModule`."""
        own, arguments = self.arguments(params, inputs)
        return self.network(own, *arguments, step=step, fixed=fixed)

    def losses(self, params: Params, batch: StepBatch) -> Tensor:
        """The loss of every task, [task]."""
        outputs = self.call(params, batch.examples.inputs, batch.step)
        return self.objective.losses(outputs, batch.examples.targets)

    def trace(self, support: Examples, num_steps: int, order: Order) -> list[Params]:
        """The parameters after 0, 1, ... `num_steps` steps on the support set."""
        return self.trace_on([support] * num_steps, len(support.inputs), order)

    def trace_on(self, batches: list[Examples], num_tasks: int, order: Order) -> list[Params]:
        """The parameters after each step, with a batch for every step."""
        return self.descend(self.losses, self.start(num_tasks), batches, order)

    def descend(
        self,
        losses: TaskLoss[StepBatch],
        start: Params,
        batches: Sequence[Examples],
        order: Order,
        *,
        added: Collection[str] = (),
    ) -> list[Params]:
        """The parameters after each step on some losses.

        Args:
            losses: Function of parameters and a batch to the loss of every task, [task].
            start: Parameters to start from.
            batches: Data of the steps.
            order: Part of the inner loop that stays in the autograd graph.
            added: Names of parameters of the start that adapt and are not the network's.
        """
        if batches:
            self._check(batches[0])
        steps = [StepBatch(step, examples) for step, examples in enumerate(batches)]
        adapted = [*self.adapted, *added]
        return adapt_params(losses, start, steps, self.rule, order=order, adapted=adapted, allow_unused=True)

    def outputs(self, params: Params, support: Examples, inputs: Tensor, step: int) -> Tensor:
        """The outputs for query inputs, [task, row, out], of a network that was adapted by some steps."""
        own, arguments = self.arguments(params, support.inputs)
        return self.call(params, inputs, step, self.network.moments(own, *arguments))

    def track(self, support: Examples) -> None:
        """Move batch norm's running averages, if they are used, towards the statistics of support sets."""
        self._check(support)
        own, arguments = self.arguments(self.start(len(support.inputs)) | self.network.params, support.inputs)
        self.network.track(own, *arguments)

    def predictors(self, support: Examples, num_steps: int, tasks_at_once: int | None) -> list[Predictor]:
        """Predictors after 0, 1, ... `num_steps` steps, for evaluation."""
        with torch.inference_mode(mode=False):  # which is without gradients, by which this adapts
            return self._predictors(support.kept(), num_steps, tasks_at_once)

    def _predictors(self, support: Examples, num_steps: int, tasks_at_once: int | None) -> list[Predictor]:
        nothing = Examples(support.inputs[:, :0], support.targets[:, :0])
        pieces = [part.support for _, part in in_pieces(Episodes(support, nothing), tasks_at_once)]
        with self.network.evaluating():
            traces = [self.trace(piece, num_steps, "none") for piece in pieces]

        def predictor(step: int) -> Predictor:
            @differentiable_in_queries
            @self.network.evaluating()
            def predict(inputs: Tensor) -> Tensor:
                cuts = torch.split(inputs, [len(piece.inputs) for piece in pieces])
                parts = zip(traces, pieces, cuts, strict=True)
                return torch.cat([self.outputs(trace[step], piece, x, step) for trace, piece, x in parts])

            return predict

        return [predictor(step) for step in range(num_steps + 1)]


class GradientLearner(ModuleLearner):
    """A learner that adapts by gradient steps and differentiates through them.

    Args:
        inner: The inner loop.
        outer: The outer optimiser.
        num_steps: Number of inner steps in training.
        first_order: Whether second derivatives are left out.
    """

    data_parallel = True

    def __init__(self, inner: InnerLoop, outer: OuterOptimizer, num_steps: int, *, first_order: bool) -> None:
        super().__init__(inner.network, {"outer": outer})
        if not first_order:
            check_second_derivatives(inner.network.module, set(inner.adapted))
        self.inner = inner
        self.objective = inner.objective
        self.outer = outer
        self.num_steps = num_steps
        self._first_order = first_order

    def trained_by(self, objective: Objective | TaskObjective) -> Self:
        """The learner itself, with the loss of both loops and the score of an objective."""
        super().trained_by(objective)
        self.inner.objective = self.objective
        return self

    @property
    def order(self) -> Order:
        """Order of the derivatives at this update."""
        return "first" if self._first_order else "second"

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """Take one outer step; returns metrics by name."""
        for part in episodes.alone() if episodes.is_ragged else [episodes]:
            self.inner.track(part.support)
        with second_derivatives_explained():
            return self.outer.update(self.outer_losses, episodes, self.objective)

    def outer_losses(self, episodes: Episodes) -> OuterLosses:
        """The outer losses of tasks, and the outputs on their query sets after adaptation."""
        params = self.inner.trace(episodes.support, self.num_steps, self.order)[-1]
        outputs = self.inner.outputs(params, episodes.support, episodes.query.inputs, self.num_steps)
        return OuterLosses(self.objective.losses(outputs, episodes.query.targets), outputs)

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """Predictors after 0, 1, ... `num_steps` gradient steps."""
        return self.inner.predictors(support, num_steps, self.outer.config.tasks_at_once)


def names_to_adapt(network: TaskModule, adapted: Adapted, head: str | None = None) -> list[str]:
    """The parameters to adapt: all but batch norm's gains and shifts, or those of the head only.

    Frozen ones are among them, and adapt once they are unfrozen. Gains and shifts are meta-learned and stay as
    they are in the inner loop, as in MAML's and MAML++'s code.

    Args:
        network: The network whose parameters adapt.
        adapted: Whether all of it or the head alone adapts.
        head: Name of the head, a layer or a module of layers; None for the layer registered last of those that
            are not frozen.

    Raises:
        ValueError: If nothing can adapt, or there is no such head, or it is frozen.
    """
    names = [name for name in network.weights if name not in network.norm_params]
    if not network.params.keys() - network.norm_params:
        raise ValueError("the module has no trainable parameters that could adapt; unfreeze some")
    if adapted == "all":
        return names
    trainable = [name for name in names if name in network.params]
    layer = last_registered(network) if head is None else head
    of_head = [name for name in names if name.startswith(f"{layer}.")] if layer else names[-2:]
    if not of_head:
        layers = ", ".join(dict.fromkeys(owner(name) for name in names))
        raise ValueError(f"head must be the name of a layer that has weights, got {head!r}; such are {layers}")
    if not set(of_head) & set(trainable):
        raise ValueError(f"head must be a layer that is trained, got {head!r}, which is frozen; unfreeze it")
    return of_head


def head_of(network: TaskModule, outer: OuterConfig, head: str | None = None) -> list[Tensor]:
    """The weights of the head, see `names_to_adapt`, where the outer optimiser tells it from the backbone."""
    if not outer.has_groups or not network.params.keys() - network.norm_params:
        return []
    return [network.weights[name] for name in names_to_adapt(network, "head", head)]


def last_registered(network: TaskModule) -> str:
    """The name of the layer, batch norm left out, that is registered last of those that are not frozen."""
    return owner([name for name in network.params if name not in network.norm_params][-1])


def without(params: Mapping[str, Tensor], *names: str) -> Params:
    """The parameters but for some."""
    return {name: p for name, p in params.items() if name not in names}
