"""A policy whose weights a hypernetwork writes (Beck et al. 2022, arXiv:2210.11348; 2023, arXiv:2309.14970).

    weights(context) = bias + context @ matrix        one number for each weight of the policy
    outputs          = policy with weights(context), on the inputs alone

With Bias-HyperInit the matrix starts at zero and the bias as the policy's own weights would, so that the first
policy is the same for every context, and learning makes it depend on the context. With Kaiming's initialisation of
the matrix and a bias of zero the scale of the written weights is that of the context, not that of a policy's. How
we differ: the hypernetwork is one linear layer on the memory's features or on the belief, and the value's network
has weights of its own and reads the context.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from metarl.nets.networks import Mlp

HyperInit = Literal["bias-hyperinit", "kaiming"]


class WrittenMlp(nn.Module):
    """A multi-layer perceptron of hyperbolic tangents with weights of its own for every row of a batch.

    Args:
        context_size: Number of numbers that the weights are written from.
        input_size: Number of input features.
        hidden_sizes: Width of each hidden layer.
        output_size: Number of output features, which have no activation.
        init: Initial weights of the hypernetwork.
        generator: Source of the weights.
    """

    def __init__(
        self,
        context_size: int,
        input_size: int,
        hidden_sizes: Sequence[int],
        output_size: int,
        *,
        init: HyperInit,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        # The bias of the hypernetwork is a perceptron itself: that of a context of zeros.
        self.bias = Mlp(input_size, hidden_sizes, output_size, activation="tanh", generator=generator)
        self._sizes = [parameter.numel() for parameter in self.bias.parameters()]
        self.matrix = nn.Parameter(torch.zeros(context_size, sum(self._sizes)))
        with torch.no_grad():
            if init == "kaiming":  # uniform, with a variance of 2 / context_size
                for parameter in self.bias.parameters():
                    parameter.zero_()
                bound = math.sqrt(6 / context_size)
                self.matrix.uniform_(-bound, bound, generator=generator)

    def weights(self, context: Tensor) -> dict[str, Tensor]:
        """Weights of every row by their names in `Mlp`, each [row, *shape], for context [row, context]."""
        written = (context @ self.matrix).split_with_sizes(self._sizes, -1)
        named = zip(self.bias.named_parameters(), written, strict=True)
        return {name: own + part.view(-1, *own.shape) for (name, own), part in named}

    def forward(self, context: Tensor, inputs: Tensor) -> Tensor:
        """Map inputs [..., in] to [..., out] by the weights that are written from context [..., context]."""
        rows = inputs.reshape(-1, 1, inputs.shape[-1])
        outputs = self.bias.call(self.weights(context.reshape(-1, context.shape[-1])), rows)
        return outputs.reshape(*inputs.shape[:-1], outputs.shape[-1])
