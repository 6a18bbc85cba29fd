"""Pixels as pretrained networks take them: the mean of ImageNet's channels is 0 and their spread 1."""

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Means of ImageNet's red, green and blue, of pixels in [0, 1], as torchvision's models take them."""
IMAGENET_SPREAD = (0.229, 0.224, 0.225)
"""Standard deviations of the same."""


class OnImageNetScale(nn.Module):
    """A network for pixels on ImageNet's scale that takes pixels in [0, 1], where distortions and attacks stay.

    Args:
        network: The network inside.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for name, values in (("mean", IMAGENET_MEAN), ("spread", IMAGENET_SPREAD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, *context: Tensor) -> Tensor:
        """Map images [row, 3, height, width] in [0, 1], and a context if any, to the network's outputs."""
        outputs: Tensor = self.network((images - self.mean) / self.spread, *context)
        return outputs
