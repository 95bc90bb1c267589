"""LeNet as used in the cross-architecture tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_condense.networks.base import ImageNetwork, convolved, halved


class LeNet(ImageNetwork):
    """Two 5x5 convolutions with ReLU and 2x2 maximum pooling, then linear layers of 120, 84 and K units.

    The network of Zhao et al. (ICLR 2021), table 2. The first convolution has padding 2 for one-channel 28x28 images
    and none for all others; the second has none. Larger images widen the first linear layer, which has 400 inputs at
    the published sizes.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width in pixels, or one number for both; at least 16.
        num_classes: Number of logits.

    Raises:
        SettingsError: The image is too small.
    """

    def __init__(self, in_channels: int, image_size: int | tuple[int, int], num_classes: int) -> None:
        super().__init__(in_channels, image_size, num_classes)
        padding = self.published_padding(2, otherwise=0)
        size = halved(convolved(halved(convolved(self.image_size, 5, padding)), 5, 0))
        if min(size) < 1:
            raise self.too_small(2, "use images of at least 16x16, or another network, such as ConvNet")
        self.maps = nn.Sequential(
            nn.Conv2d(in_channels, 6, kernel_size=5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.hidden = nn.Sequential(nn.Linear(16 * size[0] * size[1], 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
        self.classifier = nn.Linear(84, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the second hidden linear layer, (n, 84), of ``images`` (n, C, H, W)."""
        hidden: Tensor = self.hidden(torch.flatten(self.maps(images), 1))
        return hidden
