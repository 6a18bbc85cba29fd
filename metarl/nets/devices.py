"""Devices by their names, copies of networks on the CPU, and the widest numbers of a device."""

import copy
import re
from typing import TypeVar

import torch
from torch import Tensor, nn

from metarl.runs import parallel

Network = TypeVar("Network", bound=nn.Module)


def check_device(name: str) -> None:
    """Raise a ValueError unless a text is the name of a device, whether or not it is there."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?|mps", name):
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, got {name!r}")


def make_device(name: str) -> torch.device:
    """The device of a name; auto is CUDA where it is there, and the CPU otherwise.

    Of processes that train together each has the CUDA device of its number.

    A CUDA device with a number becomes the present one of its process, on which graphs and streams are made.

    Raises:
        ValueError: if it is no name of a device, or the device is not there.
    """
    check_device(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if parallel.count() > 1 and name == "cuda" and torch.cuda.is_available():
        name = f"cuda:{parallel.local_rank()}"
    elif parallel.count() > 1 and name not in ("cpu", "cuda"):
        raise ValueError(f"the processes of torchrun train on cpu or cuda, one on each GPU, got device {name}")
    device = torch.device(name)
    is_there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not is_there[device.type]:
        raise ValueError(f"device {name} was asked for and is not available; use --device cpu or auto")
    if device.type == "cuda" and device.index is not None:
        count = torch.cuda.device_count()
        if device.index >= count:
            raise ValueError(
                f"device {name} was asked for and the last of {count} is cuda:{count - 1}; use that or another"
            )
        torch.cuda.set_device(device)
    return device


def on_cpu(network: Network) -> Network:
    """The network itself if it is on the CPU, otherwise a copy that is."""
    if all(parameter.device.type == "cpu" for parameter in network.parameters()):
        return network
    return copy.deepcopy(network).cpu()


def widest_float(device: torch.device) -> torch.dtype:
    """The floating-point type of most digits that a device has: float64, or float32 on Apple's GPUs."""
    return torch.float32 if device.type == "mps" else torch.float64


def widened(values: Tensor) -> Tensor:
    """The values in the widest type of their device."""
    return values.to(widest_float(values.device))
