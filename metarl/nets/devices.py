"""Copies of networks on the CPU."""

import copy
from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def on_cpu(network: Network) -> Network:
    """The network itself if it is on the CPU, otherwise a copy that is."""
    if all(parameter.device.type == "cpu" for parameter in network.parameters()):
        return network
    return copy.deepcopy(network).cpu()
