"""Update rules with meta-parameters of their own: learned step sizes and Meta-Curvature."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metarl.learning.bilevel import Params, UpdateRule, init_rates, learned_rates, sgd

Rates = Literal["fixed", "per_entry", "per_tensor_and_step"]
"""fixed: one step size; per_entry: learned for every weight (Meta-SGD, Li et al. 2017); per_tensor_and_step:
learned for every tensor and inner step (MAML++, Antoniou et al. 2019)."""


def make_rule(
    params: Params, lr: float, *, rates: Rates, num_steps: int, curvature: bool
) -> tuple[UpdateRule, Params]:
    """An update rule and the meta-parameters that it uses, which are leaves to train beside the weights.

    Args:
        params: Parameters that adapt, without a task axis.
        lr: Step size, at the start if it is learned.
        rates: Step sizes that are learned.
        num_steps: Number of inner steps in training.
        curvature: Whether gradients are transformed by learned matrices first (Meta-Curvature, Park & Oliva 2019).
    """
    meta: Params = {}
    rule = sgd(lr)
    if rates != "fixed":
        per_entry = rates == "per_entry"
        learned = init_rates(params, lr, steps=1 if per_entry else num_steps, per_entry=per_entry)
        meta |= {f"rate.{name}": rate for name, rate in learned.items()}
        rule = learned_rates(learned)
    if curvature:
        matrices = init_curvature(params)
        meta |= {f"curvature.{name}.{i}": m for name, ms in matrices.items() for i, m in enumerate(ms)}
        rule = Curved(rule, matrices)
    return rule, meta


def init_curvature(params: Params) -> dict[str, list[Tensor]]:
    """Identity matrices for every axis of every tensor; the places of a convolution's kernel count as one axis."""
    matrices = {}
    for name, p in params.items():
        shape = _modes(p.shape)
        matrices[name] = [torch.eye(n, dtype=p.dtype, device=p.device).requires_grad_() for n in shape]
    return matrices


@dataclass(frozen=True, eq=False)
class Curved:
    """A rule applied to the gradient multiplied by a matrix along each of its axes.

    Attributes:
        rule: Rule that takes the transformed gradient.
        matrices: Matrices of every parameter, one [size, size] per axis.
    """

    rule: UpdateRule
    matrices: Mapping[str, list[Tensor]]

    def __call__(self, step: int, name: str, param: Tensor, grad: Tensor) -> Tensor:
        """The updated parameter [task, ...]."""
        turned = grad.reshape(len(grad), *_modes(grad.shape[1:]))
        for matrix in self.matrices[name]:
            # The product moves its axis to the end, so that after all of them the order is what it was.
            turned = torch.tensordot(turned, matrix, dims=([1], [1]))
        return self.rule(step, name, param, turned.reshape(grad.shape))


def _modes(shape: torch.Size) -> tuple[int, ...]:
    """[out], [out, in] or [out, in, places]."""
    return tuple(shape) if len(shape) <= 2 else (*shape[:2], math.prod(shape[2:]))
