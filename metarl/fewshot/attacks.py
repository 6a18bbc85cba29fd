"""Adversarial inputs: examples that are moved a little so that a loss rises.

    FGSM (Goodfellow et al. 2015, arXiv:1412.6572)
        x' = clip(x + size sign(grad L(x)))
    PGD (Madry et al. 2018, arXiv:1706.06083), num_steps times from a random place in the box of that size around x
        x' = clip(box(x' + step_size sign(grad L(x'))))

The clip is to the range of inputs, [0, 1] of images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.runs.configs import check_counts, check_not_negative

InputRange = tuple[float, float]
Losses = Callable[[Tensor], Tensor]
"""Maps inputs [task, row, *input] to losses of any shape, whose sum is to rise."""

_REACH = 2.5
"""Sizes of the box that all steps go together, so that they reach its edge from anywhere in it (Madry et al.)."""


@dataclass(frozen=True)
class Attack:
    """An adversary who moves every entry of an input a little.

    Attributes:
        size: Largest change of an entry, in the input's units.
        num_steps: Number of gradient steps, of which one starts from the input itself and more start from a random
            place around it.
        input_range: Least and largest value that an entry may have; None for any.
    """

    size: float
    num_steps: int = 1
    input_range: InputRange | None = None

    def __post_init__(self) -> None:
        check_not_negative(self, "size")
        check_counts(self, "num_steps")
        if self.input_range is not None:
            check_range(self.input_range)

    @property
    def step_size(self) -> float:
        """The change of an entry by one step."""
        return self.size if self.num_steps == 1 else _REACH * self.size / self.num_steps

    def __call__(self, inputs: Tensor, losses: Losses, generator: torch.Generator | None = None) -> Tensor:
        """Inputs [task, row, *input], moved so that the losses rise.

        Args:
            inputs: Inputs to move.
            losses: Losses of inputs of that shape.
            generator: Random stream of the places that several steps start from.

        Raises:
            ValueError: If inputs are integers, or out of their range.
        """
        if not inputs.is_floating_point():
            raise ValueError(f"an attack moves inputs a little, got integers of {inputs.dtype}; embed them before")
        clean = inputs.detach()
        low, high = clean - self.size, clean + self.size
        if self.input_range is not None:
            least, most = self.input_range
            if bool((clean < least).any() or (clean > most).any()):
                raise ValueError(
                    f"inputs must lie in {list(self.input_range)}, where attacks stay, got values in "
                    f"{[round(float(clean.min()), 4), round(float(clean.max()), 4)]}"
                )
            low, high = low.clamp_min(least), high.clamp_max(most)
        moved = clean
        if self.num_steps > 1:
            moved = low + (high - low) * torch.rand(clean.shape, generator=generator).to(clean)
        for _ in range(self.num_steps):
            with torch.enable_grad():
                start = moved.clone().requires_grad_()
                (slope,) = torch.autograd.grad(losses(start).sum(), start)
            moved = torch.minimum(torch.maximum(moved + self.step_size * slope.sign(), low), high)
        return moved


def check_range(input_range: InputRange) -> None:
    """Raise a ValueError unless a range is two numbers, the lower one first."""
    if len(input_range) != 2 or not all(map(math.isfinite, input_range)) or input_range[0] >= input_range[1]:
        raise ValueError(f"input_range must be a least and a larger value, got {list(input_range)}")
