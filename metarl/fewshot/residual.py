"""Residual networks: ResNet-12 of the few-shot literature and ResNet-18, with weights from a file or random ones.

ResNet-12 (Oreshkin et al. 2018, arXiv:1805.10123; Lee et al. 2019, arXiv:1904.03758): four blocks of three 3 x 3
convolutions with batch norm and leaky ReLU, beside one 1 x 1 convolution; each halves the image. DropBlock (Ghiasi
et al. 2018, arXiv:1810.12890) drops squares of the maps of the last two blocks in training, as many throughout,
where Lee et al. begin with few.

ResNet-18 (He et al. 2016, arXiv:1512.03385): the names of its weights are torchvision's.

A compact network for small images, our own: where strokes lie matters there, so its features keep their places.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn

from metarl.fewshot.backbones import BackboneConfig, NetworkSpec, linear
from metarl.fewshot.pretrained import load_weights
from metarl.runs.configs import MOST_UNITS, check_counts, check_fraction, check_sizes

USUAL_WIDTHS = (64, 160, 320, 640)
ORESHKIN_WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True)
class ResidualBackbone(BackboneConfig):
    """A residual network for images.

    Attributes:
        depth: Number of layers, ResNet-12 of the few-shot literature or ResNet-18 as torchvision's.
        widths: Filters of the four blocks of ResNet-12: 64 160 320 640 as usual, 64 128 256 512 as Oreshkin et al.
            2018; ResNet-18 has the latter.
        drop_rate: Share of the last two blocks' places that DropBlock drops in training, in [0, 1); 0 for none.
        block_size: Width of the squares that DropBlock drops, in places.
        weights: File of weights to start from, .safetensors or a state dict of torch.save; None for random ones.
        weights_prefix: Beginning of the names of this network's weights in that file, such as encoder_q or
            teacher.backbone; None to find out.
    """

    depth: Literal[12, 18] = 12
    widths: tuple[int, ...] = USUAL_WIDTHS
    drop_rate: float = 0.0
    block_size: int = 5
    weights: str | None = None
    weights_prefix: str | None = None

    def __post_init__(self) -> None:
        check_sizes(self, "widths")
        check_counts(self, "block_size", most=MOST_UNITS)
        check_fraction(self, "drop_rate")
        if len(self.widths) != 4:
            raise ValueError(f"widths must be four numbers of filters, got {len(self.widths)}")
        if self.drop_rate == 1:
            raise ValueError("drop_rate must be less than 1, got 1; nothing would be left")
        if self.depth == 18 and self.widths not in (USUAL_WIDTHS, ORESHKIN_WIDTHS):
            raise ValueError(f"widths are of ResNet-12, got {self.widths} for ResNet-18; leave them out")

    def make(self, spec: NetworkSpec, generator: torch.Generator) -> nn.Module:
        """A residual network for images [channel, height, width]."""
        channels = _check_images(self, spec, least_size=1)[0]
        network: ResNet12 | ResNet18 = (
            ResNet12(channels, self.widths, drop_rate=self.drop_rate, block_size=self.block_size)
            if self.depth == 12
            else ResNet18(channels, drop_rate=self.drop_rate, block_size=self.block_size)
        )
        _initialise(network, generator)
        if self.weights is not None:
            load_weights(network, Path(self.weights), self.weights_prefix)
        return network.put_out(spec, generator)


class DropBlock(nn.Module):
    """Drops squares of feature maps in training, and makes what is left so much larger.

    Args:
        rate: Share of the places that is dropped, in [0, 1).
        block_size: Width of a square, in places; of smaller maps the map's.
    """

    def __init__(self, rate: float, block_size: int) -> None:
        super().__init__()
        self.rate = rate
        self.block_size = block_size

    def forward(self, maps: Tensor) -> Tensor:
        """The maps [row, channel, height, width] without the places that are dropped."""
        if not self.training or self.rate == 0:
            return maps
        height, width = maps.shape[-2:]
        size = min(self.block_size, height, width)
        centres = (height - size + 1) * (width - size + 1)
        seeds = torch.rand_like(maps[..., : height - size + 1, : width - size + 1])
        hit = (seeds < self.rate * height * width / (size * size * centres)).to(maps.dtype)
        # A place is dropped if one of the squares that hold it is hit.
        dropped = nn.functional.max_pool2d(nn.functional.pad(hit, (size - 1,) * 4), size, stride=1)
        remaining = 1 - dropped
        return maps * remaining / remaining.mean((-3, -2, -1), keepdim=True).clamp_min(1e-3)


class _Residual(nn.Module):
    """The common parts: features of the last maps, and a layer for outputs if there is one.

    Args:
        num_features: Number of features.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features, self.gives_maps = num_features, False
        self.outputs: nn.Module | None = None

    def put_out(self, spec: NetworkSpec, generator: torch.Generator) -> Self:
        """The network itself, which puts out what a learner asks for; a layer for outputs is random."""
        self.gives_maps = spec.output == "maps"
        if spec.output == "outputs":
            self.outputs = linear(self.num_features, spec.num_outputs, generator)
        return self

    def features(self, maps: Tensor) -> Tensor:
        """The features [row, feature] of the last maps: their means over places."""
        return maps.mean((2, 3))

    def finished(self, maps: Tensor) -> Tensor:
        """Maps [row, channel, height, width], features [row, feature], or outputs [row, out]."""
        if self.gives_maps:
            return maps
        features = self.features(maps)
        if self.outputs is None:
            return features
        outputs: Tensor = self.outputs(features)
        return outputs


class _Block12(nn.Module):
    """Three convolutions beside one, and a halving."""

    def __init__(self, inputs: int, outputs: int, drop: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv3 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.relu = nn.LeakyReLU(0.1)
        self.maxpool = nn.MaxPool2d(2, ceil_mode=True)  # an image of one place stays one
        self.drop = drop

    def forward(self, maps: Tensor) -> Tensor:
        """Map [row, input, height, width] to [row, output, height / 2, width / 2]."""
        inner = self.relu(self.bn1(self.conv1(maps)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        inner = self.bn3(self.conv3(inner))
        outputs: Tensor = self.drop(self.maxpool(self.relu(inner + self.downsample(maps))))
        return outputs


class ResNet12(_Residual):
    """ResNet-12; the names of its weights are those of Lee et al.'s code.

    Args:
        num_channels: Channels of the images.
        widths: Filters of the four blocks.
        drop_rate: Share of the places that DropBlock drops.
        block_size: Width of the squares that it drops.
    """

    def __init__(
        self,
        num_channels: int,
        widths: Sequence[int] = USUAL_WIDTHS,
        *,
        drop_rate: float = 0.0,
        block_size: int = 5,
    ) -> None:
        super().__init__(widths[-1])
        first, second, third, fourth = widths
        self.layer1 = nn.Sequential(_Block12(num_channels, first, nn.Identity()))
        self.layer2 = nn.Sequential(_Block12(first, second, nn.Identity()))
        self.layer3 = nn.Sequential(_Block12(second, third, DropBlock(drop_rate, block_size)))
        self.layer4 = nn.Sequential(_Block12(third, fourth, DropBlock(drop_rate, block_size)))

    def forward(self, images: Tensor) -> Tensor:
        """Map images [row, channel, height, width] to features, maps or outputs."""
        maps: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(images))))
        return self.finished(maps)


class _Block18(nn.Module):
    """Two convolutions beside the inputs, which one adapts where the maps change their shape."""

    def __init__(self, inputs: int, outputs: int, stride: int, drop: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
        self.drop = drop

    def forward(self, maps: Tensor) -> Tensor:
        """Map [row, input, height, width] to [row, output, height / stride, width / stride]."""
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(maps)))))
        beside = maps if self.downsample is None else self.downsample(maps)
        outputs: Tensor = self.drop(self.relu(inner + beside))
        return outputs


class ResNet18(_Residual):
    """ResNet-18; the names of its weights are torchvision's.

    Args:
        num_channels: Channels of the images.
        drop_rate: Share of the places that DropBlock drops.
        block_size: Width of the squares that it drops.
    """

    def __init__(self, num_channels: int, *, drop_rate: float = 0.0, block_size: int = 5) -> None:
        super().__init__(512)
        self.conv1 = nn.Conv2d(num_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _layer18(64, 64, 1, nn.Identity())
        self.layer2 = _layer18(64, 128, 2, nn.Identity())
        self.layer3 = _layer18(128, 256, 2, DropBlock(drop_rate, block_size))
        self.layer4 = _layer18(256, 512, 2, DropBlock(drop_rate, block_size))

    def forward(self, images: Tensor) -> Tensor:
        """Map images [row, channel, height, width] to features, maps or outputs."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return self.finished(maps)


@dataclass(frozen=True)
class CompactBackbone(BackboneConfig):
    """A compact residual network for small images, whose features keep their places.

    A convolution, then two residual blocks of two convolutions; each of the three halves the image.

    Attributes:
        widths: Filters of the convolution and of the two blocks.
    """

    widths: tuple[int, ...] = (24, 48, 96)

    def __post_init__(self) -> None:
        check_sizes(self, "widths")
        if len(self.widths) != 3:
            raise ValueError(f"widths must be three numbers of filters, got {len(self.widths)}")

    def make(self, spec: NetworkSpec, generator: torch.Generator) -> nn.Module:
        """A network for images [channel, height, width] of at least 8 x 8."""
        channels, height, width = _check_images(self, spec, least_size=8)
        network = CompactNet(channels, self.widths, num_places=(height // 8) * (width // 8))
        _initialise(network, generator)
        return network.put_out(spec, generator)


class CompactNet(_Residual):
    """The network of `CompactBackbone`.

    Args:
        num_channels: Channels of the images.
        widths: Filters of the convolution and of the two blocks.
        num_places: Number of places of the last maps.
    """

    def __init__(self, num_channels: int, widths: Sequence[int], *, num_places: int) -> None:
        first, second, third = widths
        super().__init__(third * num_places)
        self.conv1 = nn.Conv2d(num_channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(2)
        self.block1 = _Block18(first, second, 1, nn.MaxPool2d(2))
        self.block2 = _Block18(second, third, 1, nn.MaxPool2d(2))

    def forward(self, images: Tensor) -> Tensor:
        """Map images [row, channel, height, width] to features, maps or outputs."""
        maps: Tensor = self.block2(self.block1(self.maxpool(self.relu(self.bn1(self.conv1(images))))))
        return self.finished(maps)

    def features(self, maps: Tensor) -> Tensor:
        """The last maps, place by place; squared distances are ten times their mean, which suits a softmax."""
        return maps.flatten(1) * math.sqrt(10 / self.num_features)


def _check_images(backbone: BackboneConfig, spec: NetworkSpec, least_size: int) -> tuple[int, ...]:
    """The shape of images [channel, height, width], or a ValueError unless inputs are such of at least a size."""
    shape = spec.input_shape
    if len(shape) == 3 and not spec.num_context and min(shape[1:]) >= least_size:
        return shape
    size = f" of {least_size} x {least_size} or more" if least_size > 1 else ""
    what = "a context" if spec.num_context else f"inputs of shape {shape}"
    raise ValueError(
        f"{type(backbone).__name__} takes images [channel, height, width]{size} and no context, got {what}; take "
        "the standard backbone or one of your own"
    )


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of convolutions anew."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)


def _layer18(inputs: int, outputs: int, stride: int, drop: nn.Module) -> nn.Sequential:
    return nn.Sequential(_Block18(inputs, outputs, stride, drop), _Block18(outputs, outputs, 1, drop))
