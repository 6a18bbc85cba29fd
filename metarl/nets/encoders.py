"""Observation encoders: a configuration makes the module that turns observations of a space into features.

    part of the space          features
    Box of rank 3 (an image)   "cnn": a small convolutional network; "mlp": one dense layer; "flat": its pixels
    any other Box              its numbers, as they are
    Discrete, MultiDiscrete    one-hot
    MultiBinary                zeros and ones
    Dict, Tuple                the features of every part, one after the other

Images are channels last, as Gymnasium has them, or first: where one of the two axes is as long as the one between
them the other is the channels', and otherwise the shorter is.
Numbers of 8 bits are divided by 255. A learned part ends in a layer normalisation, so that images may be of any
scale.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.observations import PartSpace, space_parts
from metarl.runs.configs import MOST_UNITS, Configuration, check_counts, check_sizes
from metarl.trajectories import Observations


@dataclass(frozen=True)
class EncoderConfig(Configuration):
    """Settings of the encoder that turns observations into a list of features.

    Attributes:
        images: Network that reads image observations (Box spaces of rank 3): "cnn" is a small convolutional
            network, "mlp" one dense layer on all pixels, "flat" hands the pixels on as they are.
        channels: Number of output channels of each convolution. On images of 84 x 84 the kernels and strides are
            those of Mnih et al. 2015; on small images, 3 x 3 with stride 1.
        image_features: Number of features that "cnn" and "mlp" make of an image.
    """

    images: Literal["cnn", "mlp", "flat"] = "cnn"
    channels: tuple[int, ...] = (16, 32, 32)
    image_features: int = 64

    def __post_init__(self) -> None:
        check_counts(self, "image_features", most=MOST_UNITS)
        check_sizes(self, "channels")

    def make(self, space: spaces.Space[Any], generator: torch.Generator) -> "Encoder":
        """The encoder of a space's observations; its weights come from the generator.

        Raises:
            ValueError: if a part of the space has no encoding.
        """
        return Encoder(self, space, generator)


FLAT = EncoderConfig(images="flat")
"""Features without weights: images are lists of pixels."""


class Encoder(nn.Module):
    """Network that computes features of observations.

    Args:
        config: Kind and sizes of the networks for images.
        space: Observation space.
        generator: Source of the weights.

    Attributes:
        space: Observation space.
        output_size: Number of features.
        learns: Whether there are weights; without, features never change and may be computed once.
        fixed: True for the features that do not depend on weights, [feature].
        fixed_places: Places of these features, [fixed feature].
    """

    fixed: Tensor
    fixed_places: Tensor

    def __init__(self, config: EncoderConfig, space: spaces.Space[Any], generator: torch.Generator) -> None:
        super().__init__()
        self.space = space
        parts = {name: _make_part(config, part, generator) for name, part in space_parts(space).items()}
        self._names = list(parts)
        self.parts = nn.ModuleList(parts.values())
        self.output_size = sum(part.output_size for part in parts.values())
        self.learns = any(True for _ in self.parameters())
        learned = [any(True for _ in part.parameters()) for part in parts.values()]
        sizes = torch.tensor([part.output_size for part in parts.values()])
        self._fixed_parts = [place for place, learns in enumerate(learned) if not learns]
        fixed = ~torch.tensor(learned).repeat_interleave(sizes)
        self.register_buffer("fixed", fixed, persistent=False)
        self.register_buffer("fixed_places", fixed.nonzero().squeeze(1), persistent=False)
        only = parts.get("")
        self._as_is = isinstance(only, _Numbers) and only.as_is  # saves two calls of modules at every step

    def forward(self, observations: Observations) -> Tensor:
        """Features [..., output_size] of observations whose parts are [..., *shape]."""
        if self._as_is:
            return observations  # type: ignore[no-any-return]
        if not isinstance(observations, dict):
            features: Tensor = self.parts[0](observations)
            return features
        return torch.cat(
            [part(observations[name]) for name, part in zip(self._names, self.parts, strict=True)], -1
        )

    def fixed_features(self, observations: Observations) -> Tensor:
        """The features that do not depend on weights, of which there must be some; in their order."""
        if not self.learns:
            features: Tensor = self(observations)
            return features
        names = self._names
        return torch.cat([self.parts[place](observations[names[place]]) for place in self._fixed_parts], -1)


class _Numbers(nn.Module):
    """The numbers of a Box or of bits, as a list."""

    def __init__(self, space: PartSpace) -> None:
        super().__init__()
        self._rank = len(space.shape or ())
        self.output_size = int(np.prod(space.shape or ()))
        self.as_is = self._rank == 1 and np.dtype(space.dtype).kind == "f"

    def forward(self, values: Tensor) -> Tensor:
        if self._rank != 1:
            values = values.reshape(*values.shape[: values.dim() - self._rank], self.output_size)
        if values.is_floating_point():
            return values
        return values.float() / 255 if values.dtype == torch.uint8 else values.float()


class _OneHot(nn.Module):
    """One-hot choices, one after the other; zeros for a number that is none of the choices."""

    component: Tensor
    choice: Tensor

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
        super().__init__()
        self._rank = len(space.shape or ())
        sizes = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec).tolist()
        starts = np.ravel(space.start).tolist()
        components = [torch.full((size,), place) for place, size in enumerate(sizes)]
        choices = [torch.arange(start, start + size) for start, size in zip(starts, sizes, strict=True)]
        self.register_buffer("component", torch.cat(components), persistent=False)
        self.register_buffer("choice", torch.cat(choices), persistent=False)
        self.output_size = len(self.choice)

    def forward(self, values: Tensor) -> Tensor:
        listed = values.reshape(*values.shape[: values.dim() - self._rank], -1)
        return (listed.index_select(-1, self.component) == self.choice).float()


class _Dense(nn.Module):
    """A dense layer on the pixels of an image, normalised and rectified."""

    def __init__(self, space: spaces.Box, output_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.pixels = _Numbers(space)
        self.layer = nn.Linear(self.pixels.output_size, output_size)
        self.norm = nn.LayerNorm(output_size)
        self.output_size = output_size
        _initialise(self, generator)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(self.layer(self.pixels(images))).relu()
        return features


class _Convolutions(nn.Module):
    """Rectified convolutions, then a dense layer, normalised and rectified."""

    def __init__(self, space: spaces.Box, config: EncoderConfig, generator: torch.Generator) -> None:
        super().__init__()
        first, middle, last = space.shape
        square_first, square_last = middle == last, middle == first  # as channels first, and as channels last
        self._channels_last = square_last if square_first != square_last else last <= first
        *sides, channels = space.shape if self._channels_last else (*space.shape[1:], space.shape[0])
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((channels, *config.channels)):
            kernels, strides, paddings = zip(*(_geometry(side) for side in sides), strict=True)
            layers += [nn.Conv2d(inputs, outputs, kernels, strides, paddings), nn.ReLU()]
            sides = [
                (side + 2 * padding - kernel) // stride + 1
                for side, kernel, stride, padding in zip(sides, kernels, strides, paddings, strict=True)
            ]
        self.convolutions = nn.Sequential(*layers)
        self.layer = nn.Linear(config.channels[-1] * sides[0] * sides[1], config.image_features)
        self.norm = nn.LayerNorm(config.image_features)
        self.output_size = config.image_features
        _initialise(self, generator)

    def forward(self, images: Tensor) -> Tensor:
        leading, weight = images.shape[:-3], self.layer.weight
        batch = images.reshape(-1, *images.shape[-3:])
        if self._channels_last:
            batch = batch.permute(0, 3, 1, 2)
        pixels = batch.to(weight.dtype) / 255 if batch.dtype == torch.uint8 else batch.to(weight.dtype)
        features: Tensor = self.norm(self.layer(self.convolutions(pixels).flatten(1))).relu()
        return features.view(*leading, -1)


def _geometry(side: int) -> tuple[int, int, int]:
    """Kernel, stride and padding of a convolution over so many pixels."""
    if side > 32:
        return 8, 4, 0
    return (4, 2, 0) if side > 9 else (3, 1, 1)


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # these layers have one


def _make_part(
    config: EncoderConfig, space: PartSpace, generator: torch.Generator
) -> _Numbers | _OneHot | _Dense | _Convolutions:
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return _OneHot(space)
    if isinstance(space, spaces.Box) and len(space.shape) == 3 and config.images != "flat":
        if config.images == "mlp":
            return _Dense(space, config.image_features, generator)
        return _Convolutions(space, config, generator)
    return _Numbers(space)
