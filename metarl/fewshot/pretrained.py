"""Weights of a network from a file: safetensors, or a state dict of PyTorch. Nothing is downloaded."""

import logging
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

_MOST_BYTES = 4 * 2**30
_WITHIN = ("state_dict", "model_state_dict", "model", "params", "network", "encoder")
"""Entries of a training checkpoint that hold the weights in wide-spread codes."""
_PREFIXES = ("module.", "model.", "backbone.", "encoder.", "network.")
"""Beginnings of names that wrappers leave."""
_HEADS = ("fc.", "head.", "classifier.", "linear.")
"""Beginnings of names of classifiers, which a network that puts out features lacks."""


def load_weights(network: nn.Module, path: Path) -> None:
    """Put the weights of a file into a network, in place.

    Classifiers, layers called fc, head, classifier or linear, that one of both lacks or that are of other sizes
    stay as they are, and the log says so; everything else must fit.

    Args:
        network: Network whose weights are replaced.
        path: File whose name ends in .safetensors, or a file of torch.save that holds tensors alone.

    Raises:
        ValueError: If the file cannot be read, or its weights do not fit; names a tensor.
    """
    own = network.state_dict()
    weights = _without_prefix(read_weights(path), own)
    strange = [name for name in weights if name not in own and not name.startswith(_HEADS)]
    needed = [name for name in own if not name.startswith(_HEADS) and not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in weights]
    if strange or missing:
        what = f"has {strange[0]!r}, which the network lacks" if strange else f"lacks {missing[0]!r}"
        raise ValueError(f"{path} {what}: expected the weights of this very network; check its kind and widths")
    fitting = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
    for name in needed:
        if name not in fitting:
            raise ValueError(
                f"{path}: {name!r} is of shape {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}; "
                "check the network's widths and the images' channels"
            )
    network.load_state_dict(fitting, strict=False)
    others = sorted(set(weights) - set(fitting))
    if others:
        logging.getLogger(__name__).warning("%s: left out the classifier: %s", path, ", ".join(others))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; nothing in it is executed.

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
    for _ in range(2):
        inner = [name for name in _WITHIN if isinstance(content, dict) and isinstance(content.get(name), dict)]
        if not inner:
            break
        content = content[inner[0]]
    if not isinstance(content, dict) or not content or not all(isinstance(x, Tensor) for x in content.values()):
        raise ValueError(f"{path} must hold tensors by name, a state dict, got {type(content).__name__}")
    return {str(name): value for name, value in content.items()}


def _without_prefix(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the beginnings of names that wrappers left, if the names are the network's then."""
    for _ in _PREFIXES:
        if any(name in own for name in weights):
            return weights
        start = next((p for p in _PREFIXES if all(name.startswith((p, *_HEADS)) for name in weights)), None)
        if start is None:
            return weights
        weights = {name.removeprefix(start): value for name, value in weights.items()}
    return weights
