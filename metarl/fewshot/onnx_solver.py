"""Linear systems in ONNX, which has no solver: by X = X (2 - A X), which squares the error (Schulz 1933).

Needs onnxscript, and is imported by an export alone. Sixty steps lead to a relative error of 1e-15 where the
condition is at most about 1e8.
"""

from typing import Any

from onnxscript import DOUBLE, opset18, script

op: Any = opset18


@script()
def _refined(matrices: DOUBLE[...], start: DOUBLE[...]) -> DOUBLE[...]:  # type: ignore[misc, type-arg]  # a shape of the library's own notation
    inverse = start
    for _ in range(60):
        inverse = op.Sub(op.Add(inverse, inverse), op.MatMul(inverse, op.MatMul(matrices, inverse)))
    return inverse


def solve(matrices: Any, values: Any, left: bool = True, check_errors: bool = False) -> tuple[Any, ...]:
    """ONNX of `torch.ops.aten._linalg_solve_ex` for float64; of its outputs the first alone is right."""
    sizes = op.Abs(matrices)
    rows, columns = op.Constant(value_ints=[-2]), op.Constant(value_ints=[-1])
    largest_row = op.ReduceMax(op.ReduceSum(sizes, columns, keepdims=1), rows, keepdims=1)
    largest_column = op.ReduceMax(op.ReduceSum(sizes, rows, keepdims=1), columns, keepdims=1)
    turned = op.Einsum(matrices, equation="...ij->...ji")
    inverse = _refined(matrices, op.Div(turned, op.Mul(largest_row, largest_column)))
    # The factors, pivots and codes of errors that torch puts out are read by nobody.
    return op.MatMul(inverse, values), *(op.Identity(matrices) for _ in range(3))
