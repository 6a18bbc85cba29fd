"""Linear systems of support sets, in training and in exported models."""

import torch
from torch import Tensor


def solve(matrices: Tensor, values: Tensor) -> Tensor:
    """The solutions of matrices [..., row, row] times solutions = values [..., row, out]."""
    if torch.compiler.is_exporting():  # no check of singular matrices, which ONNX could not say anything about
        unchecked: Tensor = torch.linalg.solve_ex(matrices, values).result
        return unchecked
    solutions: Tensor = torch.linalg.solve(matrices, values)
    return solutions
