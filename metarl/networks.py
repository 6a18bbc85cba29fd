"""Networks whose parameters may carry a leading task axis."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["tanh", "relu"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class TaskLinear(nn.Linear):
    """A linear layer that also takes a weight and a bias per task.

    Under `torch.func.functional_call` the weight may be [task, out, in] and the bias [task, out]; the input is
    then [task, row, in], and all tasks are one batched product. (On the two-layer policies here this is 1.6 to
    2 times as fast as `vmap` over a plain layer.)
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [..., in] to [..., out], or [task, row, in] to [task, row, out]."""
        if self.weight.dim() == 2:
            return nn.functional.linear(inputs, self.weight, self.bias)
        return torch.baddbmm(self.bias.unsqueeze(1), inputs, self.weight.transpose(1, 2))


class Mlp(nn.Sequential):
    """A multi-layer perceptron of task-aware layers; Xavier weights, zero biases.

    Args:
        input_size: features in.
        hidden_sizes: width of each hidden layer.
        output_size: features out, with no activation.
        activation: between the layers.
        generator: draws the weights.
        output_gain: scale of the last layer's weights.
    """

    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int],
        output_size: int,
        *,
        activation: Activation,
        generator: torch.Generator,
        output_gain: float = 1.0,
    ) -> None:
        sizes = [input_size, *hidden_sizes, output_size]
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            last = index == len(sizes) - 2
            layer = TaskLinear(inputs, outputs)
            nn.init.xavier_uniform_(layer.weight, gain=output_gain if last else 1.0, generator=generator)
            nn.init.zeros_(layer.bias)
            layers.append(layer)
            if not last:
                layers.append(_ACTIVATIONS[activation]())
        super().__init__(*layers)
