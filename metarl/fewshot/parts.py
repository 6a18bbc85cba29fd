"""Examples of several tensors, such as an image with a text and its mask, laid side by side in one.

Episodes, class data, learners and exported models take one tensor per example. `InputParts` packs several into
one, and `PackedInputs` unpacks them again inside the module, with their shapes and kinds:

    parts = InputParts.of({"image": images, "tokens": tokens})      # dictionaries, or tuples
    learner = Prototypical(PackedInputs(module, parts), PrototypicalConfig())
    data = ClassData.of(parts.pack({"image": images, "tokens": tokens}), labels)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metarl.fewshot.episodes import as_inputs

Parts = tuple[Tensor, ...] | Mapping[str, Tensor]
"""Several tensors of the same rows, by place or by name."""

_MOST_INTEGER = 2**24
"""The largest integer up to which a float32 tells all integers apart."""


@dataclass(frozen=True)
class InputParts:
    """The shapes and kinds of the tensors that one example consists of.

    Attributes:
        names: Names of the tensors, the keyword arguments of the module; None for positional arguments.
        shapes: Shape of each tensor of one example.
        dtypes: Kind of each tensor as the module reads it.
    """

    names: tuple[str, ...] | None
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]

    @staticmethod
    def of(examples: Parts) -> "InputParts":
        """The form of examples, tensors [row, ...] each; bytes are read as numbers in [0, 1].

        Raises:
            ValueError: If there are none, or they differ in their numbers of rows.
        """
        tensors = [as_inputs(part) for part in _listed(examples)]
        if not tensors or len({len(part) for part in tensors}) > 1:
            raise ValueError(f"expected tensors of as many rows each, got {[len(part) for part in tensors]}")
        names = tuple(examples) if isinstance(examples, Mapping) else None
        shapes = tuple(tuple(part.shape[1:]) for part in tensors)
        return InputParts(names, shapes, tuple(part.dtype for part in tensors))

    @property
    def size(self) -> int:
        """The number of entries of one example."""
        return sum(math.prod(shape) for shape in self.shapes)

    def pack(self, examples: Parts) -> Tensor:
        """The examples as one tensor [..., number], from tensors [..., *shape] with the same leading axes.

        Raises:
            ValueError: If they are not of these names, shapes and kinds, or an integer is too large for a float.
        """
        names = tuple(examples) if isinstance(examples, Mapping) else None
        if isinstance(examples, Mapping) and self.names is not None and set(examples) == set(self.names):
            examples, names = {name: examples[name] for name in self.names}, self.names
        tensors = [as_inputs(part) for part in _listed(examples)]
        pairs = zip(tensors, self.shapes, strict=False)
        shapes = tuple(tuple(part.shape[max(0, part.dim() - len(shape)) :]) for part, shape in pairs)
        if names != self.names or shapes != self.shapes or len(tensors) != len(self.shapes):
            raise ValueError(
                f"expected {self.names or 'a tuple'} of shapes {self.shapes}, got {names or 'a tuple'} of "
                f"{[tuple(part.shape) for part in tensors]}"
            )
        wide = torch.float64 if torch.float64 in self.dtypes else torch.float32
        for part in tensors:
            largest = 0 if part.is_floating_point() or not part.numel() else int(part.long().abs().max())
            if largest > _MOST_INTEGER:
                raise ValueError(f"expected integers up to {_MOST_INTEGER}, got {largest}")
        leading = tensors[0].shape[: tensors[0].dim() - len(self.shapes[0])]
        return torch.cat([part.reshape(*leading, -1).to(wide) for part in tensors], -1)

    def unpack(self, packed: Tensor) -> Parts:
        """The tensors [..., *shape] of examples [..., number]."""
        pieces = torch.split(packed, [math.prod(shape) for shape in self.shapes], -1)
        each = zip(pieces, self.shapes, self.dtypes, strict=True)
        tensors = tuple(piece.reshape(*packed.shape[:-1], *shape).to(dtype) for piece, shape, dtype in each)
        return tensors if self.names is None else dict(zip(self.names, tensors, strict=True))


class PackedInputs(nn.Module):
    """Calls a module with the tensors that an example consists of.

    Args:
        module: Module that takes the tensors [row, *shape] by place or by name.
        parts: Form of the examples.
    """

    def __init__(self, module: nn.Module, parts: InputParts) -> None:
        super().__init__()
        self.module, self.parts = module, parts

    def forward(self, packed: Tensor) -> Any:
        """The module's outputs for packed examples [row, number]."""
        examples = self.parts.unpack(packed)
        return self.module(**examples) if isinstance(examples, Mapping) else self.module(*examples)


def _listed(examples: Parts) -> list[Tensor]:
    return list(examples.values() if isinstance(examples, Mapping) else examples)
