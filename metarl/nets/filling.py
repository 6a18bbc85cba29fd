"""Filling networks with the tensors of a file that anybody may have made, all checked first."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metarl.runs.reading import shorten


def check_settings(settings: Mapping[str, Any], kinds: Mapping[str, type]) -> Mapping[str, Any]:
    """The settings, if they have exactly these names and kinds.

    Raises:
        ValueError: in one line, if they do not.
    """
    if set(settings) != set(kinds):
        raise ValueError(f"settings must be {', '.join(sorted(kinds))}, got {shorten(sorted(settings))}")
    for name, kind in kinds.items():
        if not isinstance(settings[name], kind):
            raise ValueError(f"the setting {name} must be a {kind.__name__}, got {shorten(settings[name])}")
    return settings


def tensor_groups(tensors: Mapping[str, Tensor], groups: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Tensors by the part of their names before the first dot, then by the rest.

    Raises:
        ValueError: if a name belongs to no group.
    """
    grouped: dict[str, dict[str, Tensor]] = {group: {} for group in groups}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        if group not in grouped:
            raise ValueError(f"tensors must belong to {', '.join(groups)}, got {shorten(name)}")
        grouped[group][rest] = tensor
    return grouped


def check_tensors(
    expected: Mapping[str, Tensor], came: Mapping[str, Tensor], where: str, *, growing: Collection[str] = ()
) -> None:
    """Raise a ValueError in one line unless names, shapes and kinds agree, and nothing is NaN.

    Args:
        expected: Tensors of the right names, shapes and kinds.
        came: Tensors to check.
        where: Noun for the group of tensors in errors.
        growing: Names of the tensors whose second axis may have any length.
    """
    if missing := sorted(set(expected) - set(came)):
        raise ValueError(f"{where} lacks the tensor {missing[0]!r}{_and_more(missing)}")
    if unknown := sorted(set(came) - set(expected)):
        raise ValueError(f"{where} has the unknown tensor {shorten(unknown[0])}{_and_more(unknown)}")
    for name, tensor in came.items():
        shape, right = list(tensor.shape), list(expected[name].shape)
        if name in growing and len(shape) == len(right):
            right[1] = shape[1]
        if shape != right or tensor.dtype != expected[name].dtype:
            raise ValueError(
                f"{where}: the tensor {name!r} must be {expected[name].dtype} {right}, got {tensor.dtype} {shape}"
            )
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise ValueError(f"{where}: the tensor {name!r} holds what is not a number")


def check_parts(
    expected: Sequence[Tensor], came: Mapping[str, Tensor], where: str, *, growing: Collection[int] = ()
) -> tuple[Tensor, ...]:
    """The tensors in order, named by their places, if they are like those expected; see `check_tensors`."""
    names = [str(place) for place in range(len(expected))]
    lengths = [str(place) for place in growing]
    check_tensors(dict(zip(names, expected, strict=True)), came, where, growing=lengths)
    return tuple(came[name] for name in names)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put checked tensors into a module.

    Args:
        module: Module with all of its parameters and buffers.
        tensors: Their new values by name.
        where: Noun for the module in errors.

    Raises:
        ValueError: in one line, if a tensor is missing, unknown, of a wrong shape or kind, or NaN.
    """
    check_tensors(module.state_dict(), tensors, where)
    module.load_state_dict(dict(tensors))


def _and_more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
