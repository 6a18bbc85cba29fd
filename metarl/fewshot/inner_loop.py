"""The inner loop of the gradient-based learners: which weights adapt, by what rule, on what loss."""

from collections.abc import Collection
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.functional import TaskModule
from metarl.fewshot.learner import Predictor, in_pieces
from metarl.fewshot.objectives import TaskObjective
from metarl.learning.bilevel import Order, Params, UpdateRule, adapt, expand

Adapted = Literal["all", "head"]


class StepBatch(NamedTuple):
    """The data of one inner step, and which step it is."""

    step: int
    examples: Examples


class InnerLoop:
    """Adapts a network to tasks by gradient steps.

    Args:
        network: whose parameters adapt.
        rule: the update rule.
        adapted: names of the parameters that adapt.
        objective: the loss.
    """

    def __init__(
        self, network: TaskModule, rule: UpdateRule, adapted: Collection[str], objective: TaskObjective
    ) -> None:
        self.network = network
        self.rule = rule
        self.adapted = list(adapted)
        self.objective = objective

    def start(self, num_tasks: int) -> Params:
        """The meta-parameters; those that adapt have a task axis."""
        params = self.network.params
        return params | expand({name: params[name] for name in self.adapted}, num_tasks)

    def losses(self, params: Params, batch: StepBatch) -> Tensor:
        """The loss of every task, [task]."""
        outputs = self.network(params, batch.examples.inputs, step=batch.step)
        return self.objective(outputs, batch.examples.targets)

    def trace(self, support: Examples, num_steps: int, order: Order) -> list[Params]:
        """The parameters after 0, 1, ... `num_steps` steps on the support set."""
        return self.trace_on([support] * num_steps, len(support.inputs), order)

    def trace_on(self, batches: list[Examples], num_tasks: int, order: Order) -> list[Params]:
        """The parameters after each step, with a batch for every step."""
        steps = [StepBatch(step, examples) for step, examples in enumerate(batches)]
        return adapt(self.losses, self.start(num_tasks), steps, self.rule, order=order, adapted=self.adapted)

    def outputs(self, params: Params, support: Examples, inputs: Tensor, step: int) -> Tensor:
        """What the network adapted by some steps says of query inputs, [task, row, out]."""
        given = self.network.moments(params, support.inputs, step=step)
        return self.network(params, inputs, step=step, given=given)

    def predictors(self, support: Examples, num_steps: int, tasks_at_once: int | None) -> list[Predictor]:
        """Predictors after 0, 1, ... `num_steps` steps, for evaluation."""
        self.network.training = False
        try:
            nothing = Examples(support.inputs[:, :0], support.targets[:, :0])
            pieces = [part.support for _, part in in_pieces(Episodes(support, nothing), tasks_at_once)]
            traces = [self.trace(piece, num_steps, "none") for piece in pieces]
        finally:
            self.network.training = True

        def predictor(step: int) -> Predictor:
            @torch.no_grad()
            def predict(inputs: Tensor) -> Tensor:
                self.network.training = False
                try:
                    cuts = torch.split(inputs, [len(piece.inputs) for piece in pieces])
                    parts = zip(traces, pieces, cuts, strict=True)
                    return torch.cat([self.outputs(trace[step], piece, x, step) for trace, piece, x in parts])
                finally:
                    self.network.training = True

            return predict

        return [predictor(step) for step in range(num_steps + 1)]


def names_to_adapt(network: TaskModule, adapted: Adapted) -> list[str]:
    """The parameters that adapt: all but batch norm's gains and shifts, or those of the last layer only.

    Gains and shifts are meta-learned and stay as they are in the inner loop, as in MAML's and MAML++'s code.
    """
    names = [name for name in network.params if name not in network.norm_params]
    if not names:
        raise ValueError("the module has no trainable parameters that could adapt; unfreeze some")
    if adapted == "all":
        return names
    layer = names[-1].rpartition(".")[0]
    return [name for name in names if name.startswith(f"{layer}.")] if layer else names[-2:]
