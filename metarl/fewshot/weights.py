"""The weights of modules: whether they are numbers, and whether a state has the same ones."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_AVERAGES = ("running_mean", "running_var")


def weight_at_fault(module: nn.Module, values: Mapping[str, Tensor] | None = None) -> str | None:
    """The name of a weight or of a batch norm's average that is NaN or infinite; None if there is none.

    Infinities in a parameter that is not trained are no fault: some modules mask by them.

    Args:
        module: Module that has the weights.
        values: Values of its state by name that are looked at instead of its own.
    """
    named = {name: (value, frozen) for name, value, frozen in _looked_at(module, values)}
    tensors = [value for value, _ in named.values()]
    if not tensors or bool(torch.isfinite(torch.nn.utils.get_total_norm(tensors))):
        return None
    for name, (value, frozen) in named.items():
        if bool((value.isnan() if frozen else ~value.isfinite()).any()):
            return name
    return None


def check_weights(module: nn.Module) -> None:
    """Raise a ValueError that names the weight of a module that is NaN or infinite, if one is."""
    if (name := weight_at_fault(module)) is not None:
        raise ValueError(f"the weight {name!r} of {type(module).__name__} is not finite; give it numbers first")


def check_state(part: str, module: nn.Module, state: object) -> None:
    """Raise an error in one line unless a module's state is that of the same module, and of finite weights.

    Args:
        part: Name of the part of the learner's state, for the message.
        module: Module that is to take it.
        state: Values by name.

    Raises:
        TypeError: If it is no mapping.
        ValueError: If names or shapes differ, or a weight is NaN or infinite; names it.
    """
    values = _as_mapping(part, state)
    # A hook may know other names; torch says then what it lacks.
    if not any(layer._load_state_dict_pre_hooks for layer in module.modules()):
        check_tensors(part, module.state_dict(), values)
    if (name := weight_at_fault(module, values)) is not None:
        raise ValueError(f"the weight {name!r} of {part} in the state is not finite; load an earlier one")


def check_tensors(part: str, own: Mapping[str, Any], state: object) -> None:
    """Raise an error in one line unless a state has the tensors of a part of a learner, of the same shapes.

    Args:
        part: Name of the part, for the message.
        own: Values of the learner's own, by name.
        state: Values that are to take their place.

    Raises:
        TypeError: If it is no mapping.
        ValueError: If names or shapes differ; names one.
    """
    values = _as_mapping(part, state)
    expected = "expected the state of the same learner and network"
    for name in own:
        if name not in values and not name.endswith("num_batches_tracked"):
            raise ValueError(f"{part} in the state lacks {name!r}; {expected}")
    for name, value in values.items():
        if name not in own:
            raise ValueError(f"{part} in the state has {name!r}, which the learner lacks; {expected}")
        if isinstance(own[name], Tensor):
            needed = tuple(own[name].shape)
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            if shape != needed:
                raise ValueError(f"{name!r} of {part} in the state is {shape}, the learner's {needed}; {expected}")


def _as_mapping(part: str, state: object) -> Mapping[str, Any]:
    if not isinstance(state, Mapping):
        raise TypeError(f"{part} in the state must be a mapping of names to values, got {type(state).__name__}")
    return state


def _looked_at(module: nn.Module, values: Mapping[str, Any] | None) -> Iterator[tuple[str, Tensor, bool]]:
    """The weights and averages of floats: their names and values, and whether they are frozen."""
    frozen = {name: not p.requires_grad for name, p in module.named_parameters()}
    frozen |= {name: False for name, _ in module.named_buffers() if name.endswith(_AVERAGES)}
    own = dict(module.named_parameters()) | dict(module.named_buffers()) if values is None else values
    for name, is_frozen in frozen.items():
        value = own.get(name)
        if isinstance(value, Tensor) and value.is_floating_point() and not value.is_meta:
            yield name, value.detach(), is_frozen
