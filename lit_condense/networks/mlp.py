"""The multilayer perceptron of the cross-architecture tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_condense.networks.base import ImageNetwork


class MLP(ImageNetwork):
    """Two hidden linear layers with ReLU on the flattened image, then the classifier.

    The network of Zhao et al. (ICLR 2021), table 2, for images of any size.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width in pixels, or one number for both.
        num_classes: Number of logits.
        width: Units of each hidden layer.

    Raises:
        SettingsError: A number is not a whole number of at least 1.
    """

    def __init__(
        self, in_channels: int, image_size: int | tuple[int, int], num_classes: int, *, width: int = 128
    ) -> None:
        super().__init__(in_channels, image_size, num_classes)
        self.check_count("width", width)
        self.width = width
        pixels = in_channels * self.image_size[0] * self.image_size[1]
        self.hidden = nn.Sequential(nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.classifier = nn.Linear(width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the second hidden layer, (n, width), of ``images`` (n, C, H, W)."""
        hidden: Tensor = self.hidden(torch.flatten(images, 1))
        return hidden
