"""Distorted images and classes, for training on more than there is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from metarl.runs.configs import check_not_negative

Augmented = Literal["none", "images", "classes"]


@dataclass(frozen=True)
class Distortion:
    """Random affine maps of images, in the manner of Koch et al. 2015; each limit is in both directions.

    Attributes:
        max_rotation: Largest rotation, in degrees.
        max_shift: Largest shift, as a fraction of the image's size.
        max_scaling: Largest change of scale; 0.2 is from 0.8 to 1.2.
        max_shear: Largest shear, as a fraction; 0.2 shifts the upper edge by a tenth of the width.
        mirrored: Whether half of the maps mirror left and right first.
    """

    max_rotation: float = 10.0
    max_shift: float = 0.07
    max_scaling: float = 0.15
    max_shear: float = 0.15
    mirrored: bool = False

    def __post_init__(self) -> None:
        check_not_negative(self, "max_rotation", "max_shift", "max_scaling", "max_shear")

    def draw(self, num_maps: int, generator: torch.Generator) -> Tensor:
        """Maps from places in the distorted image to places in the given one, [map, 2, 3]."""
        u = 2 * torch.rand(7, num_maps, generator=generator) - 1
        angle = u[0] * self.max_rotation * torch.pi / 180
        scale_x, scale_y = 1 + self.max_scaling * u[1], 1 + self.max_scaling * u[2]
        shear = self.max_shear * u[3]
        cos, sin = angle.cos(), angle.sin()
        first = torch.stack([scale_x * cos, scale_x * (shear * cos - sin), 2 * self.max_shift * u[4]], 1)
        second = torch.stack([scale_y * sin, scale_y * (shear * sin + cos), 2 * self.max_shift * u[5]], 1)
        if self.mirrored:
            first = first * torch.where(u[6] < 0, -1.0, 1.0).unsqueeze(1)
        return torch.stack([first, second], 1)


@dataclass(frozen=True)
class Augmentation:
    """Distortions of the images and the classes of episodes.

    Attributes:
        images: Distortion of every image by itself.
        classes: Distortion of all images of an episode's class alike, so that it becomes another class; None for
            no distortion of classes.
    """

    images: Distortion = field(default_factory=Distortion)
    classes: Distortion | None = None

    def draw_classes(self, shape: Sequence[int], generator: torch.Generator) -> Tensor | None:
        """Maps of classes, [*shape, 2, 3]."""
        if self.classes is None:
            return None
        return self.classes.draw(math.prod(shape), generator).view(*shape, 2, 3)

    def __call__(self, images: Tensor, classes: Tensor | None, generator: torch.Generator) -> Tensor:
        """Distort images [image, channel, height, width]; places outside of an image look like its nearest edge.

        Args:
            images: Images to distort.
            classes: Maps of the images' classes, [image, 2, 3].
            generator: Random stream of the images' own maps.
        """
        maps = self.images.draw(len(images), generator)
        if classes is not None:
            moved = classes[:, :, 2:]
            maps = classes[:, :, :2] @ maps + torch.cat([torch.zeros(len(maps), 2, 2), moved], 2)
        grid = torch.nn.functional.affine_grid(maps.to(images.device), list(images.shape), align_corners=False)
        return torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


AUGMENTATIONS: dict[Augmented, Augmentation | None] = {
    "none": None,
    "images": Augmentation(),
    "classes": Augmentation(
        images=Distortion(),
        classes=Distortion(max_rotation=30.0, max_shift=0.0, max_scaling=0.2, max_shear=0.4, mirrored=True),
    ),
}
