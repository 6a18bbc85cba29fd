"""The bi-level core: adapt parameters to many tasks at once, and differentiate through it.

`adapt_params` is the one inner loop of the project. It knows no reinforcement learning: an algorithm supplies a
loss that maps parameters with a leading task axis, and a batch of all tasks, to one loss per task. Since task i's
loss depends on row i of the parameters alone, the gradient of the sum is every task's own gradient, and all tasks
adapt in one batched computation (Finn et al. 2017, arXiv:1703.03400, algorithm 1):

    theta_i^0     = theta
    theta_i^{k+1} = update_k(theta_i^k, grad L_i(theta_i^k; D_i^k)), by default theta_i^k - alpha grad

The outer gradient is an ordinary `backward()` on a loss of the adapted parameters.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.func import vmap

Params = dict[str, Tensor]
Batch = TypeVar("Batch")
TaskLoss = Callable[[Params, Batch], Tensor]
"""Maps parameters [task, ...] and a batch of all tasks to losses [task]."""

UpdateRule = Callable[[int, str, Tensor, Tensor], Tensor]
"""Maps (step, name, parameter [task, ...], gradient [task, ...]) to the updated parameter."""

Order = Literal["second", "first", "none"]
"""second: through the inner gradients; first: inner gradients are constants; none: no graph at all."""


def sgd(lr: float) -> UpdateRule:
    """Plain gradient descent with one step size for all parameters and steps."""
    return _Descent(lr)


def learned_rates(rates: Mapping[str, Tensor]) -> UpdateRule:
    """Gradient descent with step sizes that are themselves learned (Meta-SGD, Li et al. 2017; MAML++'s LSLR).

    Args:
        rates: Step sizes by parameter name: [step] for one rate per tensor and step, or [step, *parameter] for one
            per entry. Later steps use the rates of the last one.
    """
    return _LearnedDescent(rates)


def init_rates(params: Params, lr: float, *, steps: int = 1, per_entry: bool = True) -> Params:
    """Learnable step sizes for `learned_rates`, all equal to lr.

    Args:
        params: Parameters that adapt, without a task axis.
        lr: Initial step size.
        steps: Number of inner steps with rates of their own; 1 shares the rates between all steps.
        per_entry: Whether every entry of a tensor has its own rate, instead of one rate per tensor.
    """
    return {
        name: torch.full((steps, *(p.shape if per_entry else ())), lr, dtype=p.dtype, device=p.device)
        .requires_grad_()
        for name, p in params.items()
    }  # fmt: skip


def expand(params: Mapping[str, Tensor], num_tasks: int) -> Params:
    """The same parameters for every task: [...] becomes [task, ...], without a copy."""
    return {name: p.expand(num_tasks, *p.shape) for name, p in params.items()}


def per_task(loss: Callable[[Params, Any], Tensor]) -> TaskLoss[Any]:
    """Lift a loss of one task, written for any module, to a loss of all tasks (`torch.func.vmap`).

    Args:
        loss: Function of parameters without a task axis and one task's batch (a tree of tensors); its result is a
            scalar.
    """
    lifted: TaskLoss[Any] = vmap(loss, randomness="different")
    return lifted


def adapt_params(
    loss: TaskLoss[Batch],
    params: Params,
    batches: Sequence[Batch],
    update: UpdateRule,
    *,
    order: Order,
    adapted: Collection[str] | None = None,
    allow_unused: bool = False,
) -> list[Params]:
    """Take one inner step per batch, for all tasks at once.

    Args:
        loss: Function of parameters and a batch that returns one loss per task, [task].
        params: Parameters to start from, each [task, ...]; see `expand`.
        batches: Data of the inner steps, one batch of all tasks per step.
        update: Rule that turns a parameter and its gradient into the updated parameter.
        order: Part of the inner loop that stays in the autograd graph. First order detaches the gradients, not the
            parameters, so that learned step sizes still train. Under `torch.no_grad` there is no graph.
        adapted: Names of the parameters that adapt; all by default.
        allow_unused: Whether a parameter that a loss does not depend on has a gradient of zero.

    Returns:
        Parameters before and after each step, len(batches) + 1 dictionaries.

    Raises:
        ValueError: If a name to adapt is unknown, or the losses are not one per task.
        RuntimeError: If a loss does not depend on a parameter that is to adapt, unless that is allowed.
    """
    names = list(params) if adapted is None else [name for name in params if name in adapted]
    if adapted is not None and len(names) != len(set(adapted)):
        raise ValueError(f"cannot adapt {sorted(set(adapted) - set(names))}; the parameters are {sorted(params)}")
    if not names:
        raise ValueError("adapt_params needs at least one parameter to adapt")
    num_tasks = len(params[names[0]])
    tracked = order != "none" and torch.is_grad_enabled()
    trace = [params]
    for step, batch in enumerate(batches):
        current = dict(trace[-1]) if tracked else {name: p.detach() for name, p in trace[-1].items()}
        leaves = [name for name in names if not current[name].requires_grad]
        current |= {name: current[name].detach().requires_grad_() for name in leaves}
        with torch.enable_grad():
            losses = loss(current, batch)
            if losses.shape != (num_tasks,):
                raise ValueError(f"the loss must be one per task, shape ({num_tasks},), got {tuple(losses.shape)}")
            if allow_unused and not losses.requires_grad:
                raise ValueError(f"the loss depends on none of the parameters that adapt: {', '.join(names[:5])}")
            grads = torch.autograd.grad(
                losses.sum(),
                [current[name] for name in names],
                create_graph=tracked and order == "second",
                materialize_grads=allow_unused,
            )
        following = dict(current) if tracked else {name: p.detach() for name, p in current.items()}
        with torch.set_grad_enabled(tracked):
            for name, grad in zip(names, grads, strict=True):
                following[name] = update(step, name, following[name], grad)
        trace.append(following)
    return trace


@dataclass(frozen=True)
class _Descent:
    """The rule of `sgd`; an object, so that learners can be copied and pickled."""

    lr: float

    def __call__(self, step: int, name: str, param: Tensor, grad: Tensor) -> Tensor:
        return torch.sub(param, grad, alpha=self.lr)


@dataclass(frozen=True, eq=False)
class _LearnedDescent:
    """The rule of `learned_rates`, which a copy has with rates of its own."""

    rates: Mapping[str, Tensor]

    def __call__(self, step: int, name: str, param: Tensor, grad: Tensor) -> Tensor:
        rate = self.rates[name]
        return param - rate[min(step, len(rate) - 1)] * grad


def flatten(params: Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor:
    """All entries as one vector, in the mapping's order."""
    tensors = params.values() if isinstance(params, Mapping) else params
    return torch.cat([t.reshape(-1) for t in tensors])


def unflatten(vector: Tensor, like: Params) -> Params:
    """The inverse of `flatten`: a vector cut into the shapes of `like`."""
    pieces = torch.split(vector, [p.numel() for p in like.values()])
    return {name: piece.view_as(p) for (name, p), piece in zip(like.items(), pieces, strict=True)}
