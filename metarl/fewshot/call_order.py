"""The order in which a module calls its layers, which says what is its head and what lies before a batch norm.

A sequence of layers is called as it is registered. What a module's own code does only a call shows, so that a
learner made without a batch is checked at its first one.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metarl.fewshot.layers import evaluating, owner
from metarl.fewshot.normalisation import BATCH_NORMS, TaskNorm, is_norm
from metarl.learning.bilevel import Params


def is_in_order(module: nn.Module) -> bool:
    """Whether a module calls its layers as they are registered: it is a sequence of layers, or of sequences."""
    return all(not layer._modules or type(layer).forward is nn.Sequential.forward for layer in module.modules())


@torch.no_grad()
def called_last(
    module: nn.Module, input_shape: Sequence[int], device: torch.device, dtype: torch.dtype = torch.float32
) -> str | None:
    """The name of the layer with trainable weights, batch norm left out, that a module calls last.

    None if it calls none, as where weights are a list that its forward reads.

    Args:
        module: Module for inputs [row, *input_shape]; left as it is.
        input_shape: Shape of one row.
        device: Device of the module.
        dtype: Number format of the inputs.
    """
    calls: list[str] = []
    with evaluating(module), noted_calls(possible_heads(module), lambda name, _: calls.append(name)):
        module(torch.zeros(2, *input_shape, dtype=dtype, device=device))
    return calls[-1] if calls else None


def possible_heads(module: nn.Module) -> dict[str, nn.Module]:
    """The layers with trainable weights of their own, batch norm left out, by name."""
    names = dict.fromkeys(owner(name) for name, p in module.named_parameters() if p.requires_grad)
    layers = {name: module.get_submodule(name) for name in names}
    return {name: layer for name, layer in layers.items() if not isinstance(layer, (*BATCH_NORMS, TaskNorm))}


@contextlib.contextmanager
def noted_calls(layers: Mapping[str, nn.Module], note: Callable[[str, Any], None]) -> Iterator[None]:
    """Tell of every call of some layers when it begins, so that a layer comes before those within it.

    Args:
        layers: Layers by name.
        note: Function that is called with a layer's name and its arguments.
    """
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs))
        for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_averages(module: nn.Module, adapted: Collection[str]) -> None:
    """Raise a ValueError if parameters that adapt lie before a batch norm that running averages normalise.

    Where the module's own code says what lies before what, `order_checked` tells, from a call.
    """
    if not is_in_order(module):
        return
    layers = {name: place for place, (name, _) in enumerate(module.named_modules())}
    norms = [name for name, layer in module.named_modules() if is_norm(layer)]
    early = [name for name in adapted if norms and layers.get(owner(name), -1) < layers[norms[-1]]]
    if early:
        raise _averages_of_no_task(early[0], norms[-1])


@contextlib.contextmanager
def order_checked(module: nn.Module, adapted: Params, head: str | None, *, averaged: bool) -> Iterator[None]:
    """Raise a ValueError if a call of one task within this shows that other weights should adapt.

    Args:
        module: Module that is called.
        adapted: Tensors that adapt, by name, on which the call depends.
        head: Layer that adapts because it is registered last; None if another reason chose what adapts.
        averaged: Whether running averages normalise.
    """
    calls: list[str] = []
    norms = {name: layer for name, layer in module.named_modules() if averaged and is_norm(layer)}

    def note(norm: str, arguments: tuple[Tensor, ...]) -> None:
        if arguments[0].requires_grad:
            total = arguments[0].sum()
            grads = torch.autograd.grad(total, list(adapted.values()), allow_unused=True, retain_graph=True)
            early = [name for name, grad in zip(adapted, grads, strict=True) if grad is not None]
            raise _averages_of_no_task(early[0], norm)

    with (
        torch.enable_grad(),
        noted_calls(norms, note),
        noted_calls(possible_heads(module), lambda name, _: calls.append(name)),
    ):
        yield
    if head is not None and calls and calls[-1] != head:
        raise ValueError(
            f"the head must be the layer that is called last, {calls[-1]!r}, and {head!r} was taken, which "
            f"is registered last; name the head, MamlConfig(adapted='head', head={calls[-1]!r})"
        )


def _averages_of_no_task(parameter: str, norm: str) -> ValueError:
    return ValueError(
        f"normalisation must not be running where weights before a batch norm adapt: {parameter} does, and the "
        f"averages of layer {norm!r} are those of no task; take transductive, support or frozen, or let the head "
        "alone adapt"
    )
