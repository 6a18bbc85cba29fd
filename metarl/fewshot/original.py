"""The module that a learner was made of, which its owner still holds, while the learner calls a copy.

Both share parameters and buffers, so that values of weights and which of them are frozen are the same at any time.
Modes are followed: a layer that its owner puts in evaluation mode drops no more units in training. What would go
unnoticed is refused: layers, parameters or running averages that are not those of the start, and another mode of a
batch norm, which decided how it normalises. Other buffers are followed both ways: one that the owner replaces, as
`module.double()` does, is the copy's too, and one that `forward` assigns in the copy is the owner's.

What no comparison of identities shows stays as it was when the learner was made: hooks, and plain attributes such
as a dropout's share of units or a layer's momentum.
"""

import contextlib
import itertools
import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarl.fewshot.layers import described
from metarl.fewshot.normalisation import BATCH_NORMS, NormStatistics, TaskNorm


class _Layer(NamedTuple):
    """A layer of the owner's and its copy, with what it held at the start.

    Attributes:
        name: Name of the layer.
        own: Layer of the owner's module.
        copied: Layer that the learner calls; the owner's itself if there is no copy.
        has_mode: Whether the copy takes the owner's mode.
        fixed_mode: Mode that must not change; None if it may.
        parts: Copies of what `holders` gave at the start.
        shared: Buffers that both have, by name, as they were when they last agreed.
    """

    name: str
    own: nn.Module
    copied: nn.Module
    has_mode: bool
    fixed_mode: bool | None
    parts: list[dict[str, Any]]
    shared: dict[str, Tensor | None]

    def holders(self) -> list[dict[str, Any]]:
        """The layer's own dictionaries of layers and parameters, and of a batch norm's averages."""
        own = self.own
        holders: list[dict[str, Any]] = [own._modules, own._parameters]
        return [*holders, own._buffers] if type(own) in BATCH_NORMS else holders


class Original:
    """The module of the owner, and what of it a copy follows.

    Args:
        module: Module of the owner.
        copied: Module that is called, layer by layer the same; it may be the owner's itself.
        normalisation: Statistics that batch-norm layers of the copy normalise by.
    """

    def __init__(self, module: nn.Module, copied: nn.Module, normalisation: NormStatistics | None = None) -> None:
        copies = dict(copied.named_modules())
        layers = {name: layer for name, layer in module.named_modules() if name in copies}
        self._layers = [_noted(name, layer, copies[name], normalisation) for name, layer in layers.items()]
        self._holders = [holder for layer in self._layers for holder in layer.holders()]
        self._parts = self._present()
        self._with_buffers = [layer for layer in self._layers if layer.shared]
        self._by_step = [
            (layer.copied, layer.own)
            for layer in self._layers
            if isinstance(layer.copied, TaskNorm) and layer.copied.per_step
        ]

    def check(self) -> None:
        """Raise a ValueError that names the first layer or parameter that is not that of the start, if any."""
        present = self._present()
        if len(present) != len(self._parts) or not all(map(operator.is_, present, self._parts)):
            another_order = ValueError(
                "the layers of the module are in another order than when the learner was made"
            )
            raise next(filter(None, map(_replaced, self._layers)), another_order)
        for copied, own in self._by_step:
            copied.freeze_as(own)
        self._follow_buffers()

    @contextlib.contextmanager
    def buffers_followed(self) -> Iterator[None]:
        """Have the owner and the copy the same buffers before a call and after it."""
        self._follow_buffers()
        try:
            yield
        finally:
            self._follow_buffers()

    def _follow_buffers(self) -> None:
        if torch.compiler.is_compiling():  # or exporting, which calls with buffers of its own for a while
            return
        for layer in self._with_buffers:
            own, copied = layer.own._buffers, layer.copied._buffers
            for name, before in layer.shared.items():
                changed = (x[name] for x in (own, copied) if name in x and x[name] is not before)
                after = next(changed, before)
                if after is not before:
                    own[name] = copied[name] = layer.shared[name] = after

    def _present(self) -> list[Any]:
        """All layers, parameters and averages, in one list, which is compared within microseconds."""
        return list(itertools.chain.from_iterable(map(dict.values, self._holders)))

    def follow_modes(self) -> bool:
        """Put the copy's layers in the modes that the owner's have; returns whether one changed.

        Raises:
            ValueError: If a batch norm's mode is not that of the start; names it.
        """
        is_changed = False
        for layer in self._layers:
            training = layer.own.training
            if layer.copied.training is training:
                continue
            if layer.fixed_mode is not None and training is not layer.fixed_mode:
                raise _another_mode(layer)
            if layer.has_mode:
                layer.copied.training = training
                is_changed = True
        return is_changed


def _noted(name: str, own: nn.Module, copied: nn.Module, normalisation: NormStatistics | None) -> _Layer:
    """What is to be compared later of a layer and its copy."""
    is_norm = isinstance(own, nn.modules.batchnorm._BatchNorm) and copied is not own
    is_averaged = is_norm and own.running_mean is not None
    fixed_mode = own.training if is_averaged and normalisation != "frozen" else None
    theirs = {} if type(own) in BATCH_NORMS or copied is own else copied._buffers
    shared = {buffer: x for buffer, x in own._buffers.items() if buffer in theirs and theirs[buffer] is x}
    layer = _Layer(name, own, copied, not is_norm, fixed_mode, [], shared)
    layer.parts.extend(dict(holder) for holder in layer.holders())
    return layer


def _replaced(layer: _Layer) -> ValueError | None:
    """The error that names the first part of a layer that is not that of the start; None if all are."""
    for present, first in zip(layer.holders(), layer.parts, strict=True):
        for name in first | present:
            if present.get(name) is not first.get(name) or (name in present) != (name in first):
                change = "removed" if name not in present else "replaced" if name in first else "added"
                part = f"{layer.name}.{name}".lstrip(".")
                return ValueError(
                    f"{part!r} of the module was {change} after the learner was made, which goes on with what "
                    "was there; change values in place, or make the learner after such changes"
                )
    return None


def _another_mode(layer: _Layer) -> ValueError:
    before, after = ("training", "evaluation") if layer.fixed_mode else ("evaluation", "training")
    call = "train" if layer.fixed_mode else "eval"
    return ValueError(
        f"{described(layer.name, layer.own)} was in {before} mode when the learner was made, which decided how it "
        f"normalises, and is in {after} mode now; call .{call}() on it before an update, or make the learner anew"
    )
