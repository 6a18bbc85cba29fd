"""Networks whose parameters may carry a leading task axis."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["tanh", "relu"]
_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


class Mlp(nn.Module):
    """A multi-layer perceptron that also runs with parameters of every task; Xavier weights, zero biases.

    `call` is a pure function of a dictionary of parameters, in which weights are [in, out] or [task, in, out]:
    with a task axis all tasks are one batched product per layer. On the small networks here that is 1.6 to 2
    times as fast as `vmap` over plain layers; `torch.func.functional_call` alone would cost as much as a layer.

    Args:
        input_size: features in.
        hidden_sizes: width of each hidden layer.
        output_size: features out, with no activation.
        activation: between the layers.
        generator: draws the weights.
    """

    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int],
        output_size: int,
        *,
        activation: Activation,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._activation = _ACTIVATIONS[activation]
        self.num_layers = len(hidden_sizes) + 1
        for layer, (inputs, outputs) in enumerate(pairwise([input_size, *hidden_sizes, output_size])):
            weight = nn.init.xavier_uniform_(torch.empty(outputs, inputs), generator=generator)
            self.register_parameter(f"weight_{layer}", nn.Parameter(weight.T.contiguous()))
            self.register_parameter(f"bias_{layer}", nn.Parameter(torch.zeros(outputs)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [..., in] to [..., out] with the module's own parameters."""
        return self.call(dict(self.named_parameters()), inputs)

    def call(self, params: Mapping[str, Tensor], inputs: Tensor, prefix: str = "") -> Tensor:
        """Map [..., in] to [..., out], or [task, row, in] to [task, row, out] with parameters of every task.

        Args:
            params: by the names of this module's parameters.
            inputs: [task, row, in] if the parameters have a task axis.
            prefix: stands before the names.
        """
        outputs = inputs
        for layer in range(self.num_layers):
            weight, bias = params[f"{prefix}weight_{layer}"], params[f"{prefix}bias_{layer}"]
            if weight.dim() == 2:
                outputs = outputs @ weight + bias
            else:
                outputs = torch.baddbmm(bias.unsqueeze(1), outputs, weight)
            if layer < self.num_layers - 1:
                outputs = self._activation(outputs)
        return outputs
