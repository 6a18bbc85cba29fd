"""Distorted images, classes and whole tasks, for training on more than there is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from metarl.runs.configs import check_not_negative

Augmented = Literal["none", "images", "classes", "tasks"]
_CELLS = 4  # of the grid that bends are drawn on, across an image


@dataclass(frozen=True)
class Distortion:
    """Random maps of images: affine ones as Koch et al. 2015, and bends; each limit is in both directions.

    Attributes:
        max_rotation: Largest rotation, in degrees.
        max_shift: Largest shift, as a fraction of the image's size.
        max_scaling: Largest change of scale; 0.2 is from 0.8 to 1.2.
        max_shear: Largest shear, as a fraction; 0.2 shifts the upper edge by a tenth of the width.
        mirrored: Whether half of the maps mirror left and right first.
        bend: Standard deviation of smooth random shifts of the parts of an image, as a fraction of its size
            (Simard et al. 2003).
    """

    max_rotation: float = 10.0
    max_shift: float = 0.07
    max_scaling: float = 0.15
    max_shear: float = 0.15
    mirrored: bool = False
    bend: float = 0.0

    def __post_init__(self) -> None:
        check_not_negative(self, "max_rotation", "max_shift", "max_scaling", "max_shear", "bend")

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

    def draw_bends(self, shape: Sequence[int], generator: torch.Generator) -> Tensor | None:
        """Shifts of the places of images [image, channel, height, width], [image, height, width, 2]."""
        if not self.bend:
            return None
        coarse = 2 * self.bend * torch.randn(shape[0], 2, _CELLS, _CELLS, generator=generator)
        return nn.functional.interpolate(
            coarse, size=tuple(shape[2:]), mode="bicubic", align_corners=True
        ).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Augmentation:
    """Distortions of the images, the classes and the tasks of episodes.

    Attributes:
        images: Distortion of every image by itself.
        classes: Distortion of all images of an episode's class alike, so that it becomes another class; None for
            no distortion of classes.
        tasks: Distortion of all images of a task alike, whose classes become as many others that are as hard to
            tell apart; classes that are distorted each by itself can be told by that. None for none.

    Raises:
        ValueError: If both classes and tasks are to be distorted, or either is to be bent.
    """

    images: Distortion = field(default_factory=Distortion)
    classes: Distortion | None = None
    tasks: Distortion | None = None

    def __post_init__(self) -> None:
        if self.classes is not None and self.tasks is not None:
            raise ValueError("expected a distortion of classes or of tasks, got both")
        for distortion in (self.classes, self.tasks):
            if distortion is not None and distortion.bend:
                raise ValueError(f"only images are bent, got a bend of {distortion.bend} of classes or tasks")

    @property
    def changes_classes(self) -> bool:
        """Whether classes become others."""
        return self.classes is not None or self.tasks is not None

    def draw_classes(self, num_tasks: int, num_ways: int, generator: torch.Generator) -> Tensor | None:
        """Maps of the classes of tasks, [task, way, 2, 3]; None if classes stay what they are."""
        if self.tasks is not None:
            return self.tasks.draw(num_tasks, generator).unsqueeze(1).expand(-1, num_ways, -1, -1)
        if self.classes is not None:
            return self.classes.draw(num_tasks * num_ways, generator).view(num_tasks, num_ways, 2, 3)
        return None

    def __call__(self, images: Tensor, classes: Tensor | None, generator: torch.Generator) -> Tensor:
        """Distort images [image, channel, height, width]; places outside of an image look like its nearest edge.

        Args:
            images: Images to distort.
            classes: Maps of the images' classes, [image, 2, 3].
            generator: Random stream of the images' own maps.
        """
        maps = self.images.draw(len(images), generator)
        bends = self.images.draw_bends(images.shape, generator)
        if classes is not None:
            moved = classes[:, :, 2:]
            maps = classes[:, :, :2] @ maps + torch.cat([torch.zeros(len(maps), 2, 2), moved], 2)
        grid = nn.functional.affine_grid(maps.to(images.device), list(images.shape), align_corners=False)
        if bends is not None:
            if classes is not None:
                bends = torch.einsum("nij,nhwj->nhwi", classes[:, :, :2], bends)
            grid = grid + bends.to(grid.device)
        return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


_OF_CLASSES = Distortion(max_rotation=30.0, max_shift=0.0, max_scaling=0.2, max_shear=0.4, mirrored=True)

AUGMENTATIONS: dict[Augmented, Augmentation | None] = {
    "none": None,
    "images": Augmentation(),
    "classes": Augmentation(classes=_OF_CLASSES),
    "tasks": Augmentation(images=Distortion(bend=0.03), tasks=_OF_CLASSES),
}
