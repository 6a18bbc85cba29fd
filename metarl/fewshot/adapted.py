"""A network that was adapted to one task, as a module of its own."""

import torch
from torch import Tensor, nn

from metarl.fewshot.episodes import Examples
from metarl.fewshot.inner_loop import GradientLearner, InnerLoop
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.reptile import Reptile


class AdaptedNetwork(nn.Module):
    """Maps inputs [row, *input] to outputs [row, out] of one task, as the learner's predictor does.

    Args:
        inner: Inner loop of the learner; it shares what does not adapt.
        support: Examples of the task.
        num_steps: Number of steps.
    """

    def __init__(self, inner: InnerLoop, support: Examples, num_steps: int) -> None:
        super().__init__()
        self._inner, self._step = inner, num_steps
        with inner.network.evaluating():
            trace = inner.trace(support, num_steps, "none")[-1]
            own, arguments = inner.arguments(trace, support.inputs)
            with torch.no_grad():
                self._fixed = inner.network.moments(own, *arguments)
        self._names = list(trace)
        self.adapted = nn.ParameterList([nn.Parameter(p.detach(), requires_grad=False) for p in trace.values()])

    def forward(self, inputs: Tensor) -> Tensor:
        """The outputs [row, out] for inputs [row, *input]."""
        params = dict(zip(self._names, self.adapted, strict=True))
        with self._inner.network.evaluating():
            return self._inner.call(params, inputs.unsqueeze(0), self._step, self._fixed).squeeze(0)


def adapted_network(learner: Learner, support: Examples, num_steps: int) -> AdaptedNetwork:
    """The network of a learner after some gradient steps on one task.

    Args:
        learner: Trained learner; it is left as it is.
        support: Examples of one task.
        num_steps: Number of steps.

    Raises:
        TypeError: If the learner takes no gradient steps.
    """
    if not isinstance(learner, GradientLearner | Reptile):
        raise TypeError(f"{type(learner).__name__} takes no gradient steps that adapt a network")
    return AdaptedNetwork(learner.inner, support, num_steps)
