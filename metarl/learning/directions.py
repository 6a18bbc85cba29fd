"""Random directions in a space of parameters, for estimates of gradients from differences."""

import numpy as np
import torch
from torch import Tensor


def draw_directions(rng: np.random.Generator, count: int, size: int, *, orthogonal: bool) -> Tensor:
    """Standard normal directions, float32 [direction, size].

    Orthogonal ones are independent normals that were made orthogonal and have kept their lengths (Choromanski et
    al. 2018, arXiv:1804.02395): each is a standard normal by itself, and together they estimate a gradient with
    less variance. Of more than `size` directions every block of so many is orthogonal.
    """
    normals = rng.standard_normal((count, size))
    if orthogonal:
        for start in range(0, count, size):
            block = normals[start : start + size]
            axes = np.linalg.qr(block.T)[0].T
            signs = np.sign((axes * block).sum(1, keepdims=True))  # the first one stays as it was drawn
            block[:] = axes * signs * np.linalg.norm(block, axis=1, keepdims=True)
    return torch.from_numpy(normals.astype(np.float32))
