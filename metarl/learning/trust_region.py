"""Trust-region machinery: conjugate gradient, Gauss-Newton products through any computation, line search.

Schulman et al. 2015 (arXiv:1502.05477), appendix C. The Fisher-vector product is F v = J^T M J v, where J is the
Jacobian of the policy's distribution parameters with respect to theta (through the adaptation, where there is
one) and M the Fisher matrix of the output distribution. At the old parameters the KL's gradient with respect to
the distribution parameters vanishes, so this equals the KL's Hessian exactly, and it costs one product with J
and one with J^T on a graph that is built once, instead of a backward pass through a backward pass through KL.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

VectorProduct = Callable[[Tensor], Tensor]


class Solution(NamedTuple):
    """An approximate solution x of A x = b, and its residual b - A x."""

    x: Tensor
    residual: Tensor


class LineSearch(NamedTuple):
    """The result of a line search.

    Attributes:
        accepted: Whether a step met both conditions; if none did, the parameters are unchanged.
        fraction: Fraction of the full step that was taken, in [0, 1]; 0 if no step was accepted.
        loss: Loss at the resulting parameters.
        kl: KL divergence at the resulting parameters, in nats.
    """

    accepted: bool
    fraction: float
    loss: float
    kl: float


def conjugate_gradient(
    product: VectorProduct, b: Tensor, *, iterations: int, tolerance: float = 1e-10
) -> Solution:
    """Solve A x = b for a symmetric positive definite A, given v -> A v; or one such system for every row of b.

    Args:
        product: Function that multiplies A with a vector of b's shape, or each system's A with its row.
        b: Right-hand side, [entry] or [system, entry].
        iterations: Most products with A.
        tolerance: Squared residual at which a system counts as solved; iteration stops when all systems are.
    """
    x = torch.zeros_like(b)
    residual = b.clone()
    direction = b.clone()
    squared = torch.linalg.vecdot(residual, residual)
    for _ in range(iterations):
        active = squared > tolerance
        if not active.any():
            break
        image = product(direction)
        # A system that is solved has a direction near zero: it takes no further step.
        step = torch.where(active, squared / torch.linalg.vecdot(direction, image), 0.0).unsqueeze(-1)
        x = x + step * direction
        residual = residual - step * image
        following = torch.linalg.vecdot(residual, residual)
        direction = residual + torch.where(active, following / squared, 0.0).unsqueeze(-1) * direction
        squared = following
    return Solution(x, residual)


def gauss_newton(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    metric: Callable[[Sequence[Tensor]], Sequence[Tensor]],
) -> VectorProduct:
    """The product v -> J^T M J v on a retained graph, J being d(outputs)/d(inputs).

    J v is found by differentiating u -> J^T u, which is linear, with respect to u: no forward-mode rules are
    needed, so every operation with a second derivative will do, gradient steps inside the graph included.

    Args:
        outputs: Tensors computed from the inputs, with their graph.
        inputs: Leaf tensors, in the order in which vectors are flattened.
        metric: Linear map M from tangents of the outputs to cotangents.
    """
    cotangents = [torch.zeros_like(out, requires_grad=True) for out in outputs]
    transposed = torch.autograd.grad(
        outputs, inputs, cotangents, create_graph=True, allow_unused=True, materialize_grads=True
    )
    sizes = [x.numel() for x in inputs]

    def product(vector: Tensor) -> Tensor:
        pieces = [v.view_as(x) for v, x in zip(torch.split(vector, sizes), inputs, strict=True)]
        tangents = torch.autograd.grad(transposed, cotangents, pieces, retain_graph=True)
        with torch.no_grad():
            weighted = metric(tangents)
        image = torch.autograd.grad(
            outputs, inputs, weighted, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([g.reshape(-1) for g in image])

    return product


def line_search(
    evaluate: Callable[[Tensor], tuple[float, float]],
    start: Tensor,
    full_step: Tensor,
    *,
    loss_before: float,
    max_kl: float,
    backtrack_ratio: float = 0.8,
    max_backtracks: int = 15,
) -> tuple[Tensor, LineSearch]:
    """The largest step start + ratio^j full_step that lowers the loss within the trust region.

    Args:
        evaluate: Function that returns loss and KL divergence at a flat parameter vector.
        start: Current parameters as a flat vector.
        full_step: Longest step, a flat vector to be added to the parameters.
        loss_before: Loss at the current parameters.
        max_kl: Limit of the KL divergence, in nats.
        backtrack_ratio: Factor by which the step shrinks after each rejection, in (0, 1).
        max_backtracks: Most steps that are tried.

    Returns:
        New parameters (the old ones if no step was accepted), and the result of the search.
    """
    for power in range(max_backtracks):
        fraction = backtrack_ratio**power
        candidate = start + fraction * full_step
        loss, kl = evaluate(candidate)
        if loss < loss_before and kl <= max_kl:
            return candidate, LineSearch(True, fraction, loss, kl)
    return start, LineSearch(False, 0.0, loss_before, 0.0)
