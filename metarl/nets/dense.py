"""Dense layers on many rows on the CPU, by oneDNN.

PyTorch multiplies float32 matrices with MKL, which runs at half speed on processors that are not Intel's: on one
core of an AMD EPYC with AVX-512, 4096 x 300 times 300 x 300 takes 9.0 ms with MKL and 4.2 ms with oneDNN, at the
same precision; the gradient of the weights takes 8.7 and 5.7 ms. PyTorch has oneDNN's product for its compiler, as
an operator without a gradient; this file adds the gradient. The product also rectifies at no extra cost.
"""

from typing import Any

import torch
from torch import Tensor

_MIN_ROWS = 128  # with fewer rows, the call costs more than the product


def has_dense(inputs: Tensor) -> bool:
    """Whether `dense` is available and pays off for inputs like these, [row, in]."""
    return (
        inputs.device.type == "cpu"
        and inputs.dtype == torch.float32
        and inputs.shape[0] >= _MIN_ROWS
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def dense(inputs: Tensor, weight: Tensor, bias: Tensor, *, rectified: bool) -> Tensor:
    """inputs @ weight + bias, [row, out], and max(0, x) of it if rectified; differentiable once.

    Args:
        inputs: Inputs of the layer, float32 [row, in].
        weight: Weights of the layer, [in, out].
        bias: Biases of the layer, [out].
        rectified: Whether to apply max(0, x) to the outputs.
    """
    outputs: Tensor = _Dense.apply(inputs, weight, bias, rectified)  # type: ignore[no-untyped-call]
    return outputs


def _product(inputs: Tensor, transposed_weight: Tensor, bias: Tensor | None, rectify: str) -> Tensor:
    """inputs [row, in] times the transpose of [out, in], with a bias and then "relu" or "none"."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, transposed_weight, bias, rectify, [], "")
    return product


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, rectified: bool) -> Tensor:
        outputs = _product(inputs, weight.T, bias, "relu" if rectified else "none")
        ctx.save_for_backward(inputs, weight, outputs if rectified else None)
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, rectified_outputs = ctx.saved_tensors
        if rectified_outputs is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, rectified_outputs, 0.0)
        needed = ctx.needs_input_grad
        return (
            _product(gradient, weight, None, "none") if needed[0] else None,
            _product(inputs.T, gradient.T, None, "none") if needed[1] else None,
            gradient.sum(0) if needed[2] else None,
            None,
        )
