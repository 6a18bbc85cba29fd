"""Weights of a network from a file: safetensors, or a state dict of PyTorch. Nothing is downloaded."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

_MOST_BYTES = 4 * 2**30
_MOST_SHOWN = 6
_WITHIN = ("state_dict", "model_state_dict", "model", "params", "network", "encoder")
"""Entries of a training checkpoint that hold the weights in wide-spread codes, the likeliest first."""
_HEADS = ("fc.", "head.", "classifier.", "linear.")
"""Beginnings of names of classifiers, which a network that puts out features lacks."""


def load_weights(network: nn.Module, path: Path, prefix: str | None = None) -> None:
    """Put the weights of a file into a network, in place.

    Names in a file may begin with what wrappers and entries of checkpoints leave, `module.` or
    `state_dict.backbone.`: the beginning is taken behind which every tensor of the network is. Classifiers, layers
    called fc, head, classifier or linear, that one of both lacks or that are of other sizes stay as they are;
    everything else behind that beginning must fit. The log says what was left out.

    Args:
        network: Network whose weights are replaced.
        path: File whose name ends in .safetensors, or a file of torch.save that holds tensors alone.
        prefix: Beginning of the names of the network's weights in the file; None to find out.

    Raises:
        ValueError: If the file cannot be read, or its weights do not fit, or do several times; names a tensor or
            the beginnings.
    """
    own, tensors = network.state_dict(), read_weights(path)
    needed = [name for name in own if not name.startswith(_HEADS) and not name.endswith("num_batches_tracked")]
    start = _prefix(tensors, needed or list(own), path) if prefix is None else _ended(prefix)
    weights = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
    if not weights:
        raise ValueError(f"{path}: no name begins with {start!r}; names begin with {_listed(_starts(tensors))}")
    whole = {name: tensors[name] for name in own if name.startswith(_HEADS) and name in tensors}
    weights = whole | weights  # a wrapper around the network may leave the classifier outside
    strange = [name for name in weights if name not in own and not name.startswith(_HEADS)]
    missing = [name for name in needed if name not in weights]
    if strange or missing:
        what = f"has {strange[0]!r}, which the network lacks" if strange else f"lacks {missing[0]!r}"
        behind = f"; behind {start!r} are {len(needed) - len(missing)} of {len(needed)} tensors" if start else ""
        raise ValueError(
            f"{path} {what}: expected the weights of this very network; check its kind and widths{behind}"
        )
    fitting = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
    for name in needed:
        if name not in fitting:
            raise ValueError(
                f"{path}: {name!r} is of shape {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}; "
                "check the network's widths and the images' channels"
            )
    network.load_state_dict(fitting, strict=False)
    taken = {start + name for name in fitting} | set(fitting)
    _tell([name for name in tensors if name not in taken], start, path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, those of its entries behind the entry's name; nothing in it is executed.

    Raises:
        ValueError: If the file cannot be read or holds no tensors by name.
    """
    if not path.is_file():
        raise ValueError(f"no file of weights at {path}; expected .safetensors, or a state dict of torch.save")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, expected at most {_MOST_BYTES:,}")
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of damaged files torch and safetensors raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is damaged or holds more than tensors: {reason}") from error
    tensors = dict(_leaves(content, ""))
    if not tensors:
        raise ValueError(f"{path} must hold tensors by name, a state dict, got {type(content).__name__}")
    return tensors


def _leaves(content: Any, start: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested mappings, whose names are joined by dots."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            if isinstance(value, Tensor):
                yield f"{start}{name}", value
            else:
                yield from _leaves(value, f"{start}{name}.")


def _prefix(tensors: Mapping[str, Tensor], needed: list[str], path: Path) -> str:
    """The beginning behind which all tensors of a network are, or else most.

    Raises:
        ValueError: If it is one of several, none of which is likelier.
    """
    ends = {name: f".{name}" for name in needed}
    counts = Counter(
        name[: len(name) - len(wanted)]
        for wanted, end in ends.items()
        for name in tensors
        if name == wanted or name.endswith(end)
    )
    whole = [start for start, count in counts.items() if count == len(needed)]
    if not whole:
        return max(counts, key=lambda start: counts[start], default="")
    likely = min(_rank(start) for start in whole)
    best = [start for start in whole if _rank(start) == likely]
    if len(best) > 1:
        raise ValueError(
            f"{path} has the network's weights {len(best)} times, behind {_listed(best)}; say which with "
            "--backbone.weights-prefix"
        )
    return best[0]


def _rank(start: str) -> int:
    first = start.partition(".")[0]
    return _WITHIN.index(first) if first in _WITHIN else len(_WITHIN) if start else -1


def _ended(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith(".") else f"{prefix}."


def _starts(names: Iterable[str]) -> list[str]:
    """The first parts of names, once each, in order."""
    return list(dict.fromkeys(f"{name.partition('.')[0]}." for name in names))


def _listed(starts: Sequence[str]) -> str:
    shown = ", ".join(starts[:_MOST_SHOWN])
    return shown if len(starts) <= _MOST_SHOWN else f"{shown}, ... ({len(starts)} in all)"


def _tell(others: Sequence[str], start: str, path: Path) -> None:
    """Log which tensors of a file were left out, by name if they are few and else by how they begin."""
    if not others:
        return
    names = sorted(name.removeprefix(start) for name in others)
    counts = Counter(_starts([name])[0] for name in names)
    shown = ", ".join(names if len(names) <= _MOST_SHOWN else (f"{n} of {group}*" for group, n in counts.items()))
    what = "the classifier: " if all(name.startswith(_HEADS) for name in names) else ""
    behind = f"; taken were the names behind {start}" if start else ""
    logging.getLogger(__name__).warning("%s: left out %s%s%s", path, what, shown, behind)
