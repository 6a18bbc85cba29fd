"""Warm starts: weights out of the state that a checkpoint holds, and into that of something untrained.

Weights are the tensors of real numbers in a state but those of optimisers, named by their places in it:
"policy.value.weight_0".
"""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_OPTIMIZER = {"state", "param_groups"}


def check_warm_start(init_from: str | None, init_without: Sequence[str]) -> None:
    """Raise a ValueError if parts are left out of weights that are not taken from anywhere."""
    if init_without and init_from is None:
        raise ValueError(f"init_without needs init_from, a run folder; got {', '.join(init_without)} alone")


def weights_of(state: Mapping[str, Any], not_weights: Collection[str] = ()) -> dict[str, Tensor]:
    """The weights in the state of an agent or a learner, by name.

    Args:
        state: State that `state_dict` returned.
        not_weights: Names of parts of the state that are real numbers and no weights.
    """
    return dict(_tensors({key: value for key, value in state.items() if key not in not_weights}, ""))


def with_weights(state: Mapping[str, Any], weights: Mapping[str, Tensor], prefix: str = "") -> dict[str, Any]:
    """The same state with other tensors at the places of the weights."""
    return {
        key: with_weights(value, weights, f"{prefix}{key}.")
        if isinstance(value, Mapping)
        else weights.get(f"{prefix}{key}", value)
        for key, value in state.items()
    }


def without_parts(weights: Mapping[str, Tensor], parts: Sequence[str]) -> dict[str, Tensor]:
    """The weights that belong to none of the parts.

    A part is a name, or successive words of one between dots: "value" is "policy.value.weight_0" too. The slow
    copy "target_value" belongs to the part "value".
    """

    def belongs(name: str, part: str) -> bool:
        dotted = f".{name}."
        return f".{part}." in dotted or f".{part}." in dotted.replace(".target_", ".")

    return {name: tensor for name, tensor in weights.items() if not any(belongs(name, part) for part in parts)}


def check_parts(weights: Mapping[str, Tensor], parts: Sequence[str]) -> None:
    """Raise a ValueError unless every part names some of the weights; the message lists the names that exist."""
    for part in parts:
        if len(without_parts(weights, [part])) == len(weights):
            known = _parts(weights)
            close = difflib.get_close_matches(part, [*known, *(name.rpartition(".")[2] for name in known)], 1)
            meant = f"did you mean {close[0]}? " if close else ""
            raise ValueError(
                f"init_without: no part of the weights is named {part!r}; {meant}known: {', '.join(known)}"
            )
    if parts and not without_parts(weights, parts):
        raise ValueError(f"init_without leaves out all weights: {', '.join(parts)}; leave out init_from instead")


def check_fit(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Raise a ValueError that names the first difference unless weights fit where the own ones are.

    Args:
        weights: Weights to be taken.
        own: Weights that they replace.
        source: Origin of the weights, for the message.
    """
    for name in dict.fromkeys((*own, *weights)):
        here, there = (list(of[name].shape) if name in of else "none" for of in (own, weights))
        if here != there:
            part = _part_alone(name, own if here == "none" else weights) if "none" in (here, there) else name
            raise ValueError(
                f"the weights of {source} do not fit: {name} must be {here}, got {there}; "
                f"change the networks, or leave it out with --init-without {part}"
            )


def _part_alone(name: str, others: Mapping[str, Tensor]) -> str:
    """The largest part that a name belongs to and no other name does: "novelty" of "novelty.networks.weight_0"."""
    words = name.split(".")
    starts = [".".join(words[:depth]) for depth in range(1, len(words))]
    return next((s for s in starts if not any(f"{other}.".startswith(f"{s}.") for other in others)), name)


def _tensors(state: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for key, value in state.items():
        if isinstance(value, Mapping) and not set(value) >= _OPTIMIZER:
            yield from _tensors(value, f"{prefix}{key}.")
        elif isinstance(value, Tensor) and torch.is_floating_point(value):
            yield f"{prefix}{key}", value


def _parts(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of modules, and of tensors that lie in no module's weights."""
    parts: dict[str, None] = {}
    for name in weights:
        words = name.split(".")
        for depth in range(1, min(len(words), 4)):
            parts[".".join(words[:depth])] = None
        if len(words) <= 2:
            parts[name] = None
    return list(parts)
