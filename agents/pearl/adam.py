"""Adam whose step size can change while a captured CUDA graph takes its steps."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class DeviceAdam(torch.optim.Adam):
    """Adam with its step size where its parameters are: a captured graph reads it from the device's memory.

    Args:
        parameters: Parameters to train.
        rate: Step size.
        device: Device of the parameters.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, device: torch.device) -> None:
        self._on_cuda, self._device = device.type == "cuda", device
        super().__init__(parameters, lr=self._stored(rate), fused=True, capturable=self._on_cuda)

    def set_rate(self, rate: float) -> None:
        """Take another step size from the next step on."""
        for group in self.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` gave, perhaps on another device."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["capturable"], group["lr"] = self._on_cuda, self._stored(float(group["lr"]))

    def _stored(self, rate: float) -> float | Tensor:
        return torch.tensor(rate, device=self._device) if self._on_cuda else rate
