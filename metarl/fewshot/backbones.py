"""The networks of the few-shot literature, for those who do not bring their own."""

from typing import Literal

import torch
from torch import Tensor, nn

from metarl.nets.networks import Mlp

Downsampling = Literal["pool", "stride"]


def conv4(
    num_outputs: int | None,
    *,
    num_channels: int = 1,
    num_filters: int = 64,
    image_size: int = 28,
    downsampling: Downsampling = "pool",
    num_halvings: int = 4,
    rectified: bool = True,
    generator: torch.Generator,
) -> nn.Sequential:
    """Four blocks of 3 x 3 convolution, batch norm and ReLU that halve the image, and a linear layer or none.

    Args:
        num_outputs: of the linear layer; None for the features themselves.
        num_channels: of the images.
        num_filters: of every convolution.
        image_size: of the square images, in pixels; what remains must be at least 1.
        downsampling: "pool" after the convolution (Vinyals et al. 2016), or its "stride" with a mean over the
            remaining places (Finn et al. 2017 on Omniglot), which is a quarter of the work.
        num_halvings: blocks that halve the image, the first ones.
        rectified: whether the last block ends with its ReLU. Without it features have signs, and their cosines
            the whole range from -1 to 1.
        generator: draws the weights.
    """
    layers: list[nn.Module] = []
    inputs, size = num_channels, image_size
    for index in range(4):
        halves = index < num_halvings
        stride = 2 if halves and downsampling == "stride" else 1
        convolution = nn.Conv2d(inputs, num_filters, 3, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
        block: list[nn.Module] = [convolution, nn.BatchNorm2d(num_filters)]
        if halves and downsampling == "pool":
            block.append(nn.MaxPool2d(2))
        if index < 3 or rectified:
            block.append(nn.ReLU())  # a quarter of the places, after the pooling, and the same numbers
        layers.append(nn.Sequential(*block))
        inputs = num_filters
        if halves:
            size = size // 2 if downsampling == "pool" else (size + 1) // 2
    if size < 1:
        raise ValueError(
            f"image_size must be at least {2**num_halvings} for {num_halvings} halvings, got {image_size}"
        )
    if downsampling == "stride":
        layers.append(nn.AdaptiveAvgPool2d(1))
        size = 1
    layers.append(nn.Flatten())
    if num_outputs is not None:
        layers.append(linear(num_filters * size * size, num_outputs, generator))
    return nn.Sequential(*layers)


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with Xavier weights and no bias at first."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def regression_mlp(
    num_inputs: int, num_outputs: int, *, hidden_sizes: tuple[int, ...] = (40, 40), generator: torch.Generator
) -> Mlp:
    """The network of the sinusoid experiments (Finn et al. 2017, section 5.1)."""
    return Mlp(num_inputs, hidden_sizes, num_outputs, activation="relu", generator=generator)


class Autocast(nn.Module):
    """A module whose convolutions and products are computed in bfloat16; parameters and outputs are float32.

    Batch norm's statistics are kept in float32 too.

    Args:
        module: maps a tensor to a tensor.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        """As the module, up to the eight bits of its intermediate results."""
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
            outputs: Tensor = self.module(inputs)
        return outputs.float()


class FilmConv4(nn.Module):
    """Conv4 whose third block's channels a context scales and shifts, before the ReLU (Zintgraf et al. 2019).

    Args:
        num_outputs: of the linear layer.
        num_context: numbers in the context.
        num_channels: of the images.
        num_filters: of every convolution.
        image_size: of the square images, in pixels.
        downsampling: see `conv4`.
        rectified: see `conv4`.
        generator: draws the weights.
    """

    def __init__(
        self,
        num_outputs: int,
        num_context: int,
        *,
        num_channels: int = 1,
        num_filters: int = 64,
        image_size: int = 28,
        downsampling: Downsampling = "pool",
        rectified: bool = True,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        layers = conv4(
            num_outputs,
            num_channels=num_channels,
            num_filters=num_filters,
            image_size=image_size,
            downsampling=downsampling,
            rectified=rectified,
            generator=generator,
        )
        first, second, third, *rest = layers.children()
        unrectified = [layer for layer in third.children() if not isinstance(layer, nn.ReLU)]
        self.before = nn.Sequential(first, second, *unrectified)
        self.after = nn.Sequential(nn.ReLU(), *rest)
        self.film = linear(num_context, 2 * num_filters, generator)
        with torch.no_grad():
            self.film.bias[:num_filters] = 1.0  # an unadapted context changes nothing

    def forward(self, inputs: Tensor, context: Tensor) -> Tensor:
        """Map images [row, channel, height, width] and their context [row, context] to [row, out]."""
        scale, shift = self.film(context)[:, :, None, None].chunk(2, 1)
        outputs: Tensor = self.after(self.before(inputs) * scale + shift)
        return outputs
