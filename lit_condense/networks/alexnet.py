"""The small AlexNet of the cross-architecture tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_condense.errors import check_choice
from lit_condense.networks.base import ImageNetwork, convolved, halved
from lit_condense.networks.norms import Norm, make_norm

# (channels, kernel, padding, pooled) of each convolution; the first one's padding depends on the images.
_LAYERS = ((128, 5, 2, True), (192, 5, 2, True), (256, 3, 1, False), (192, 3, 1, False), (192, 3, 1, True))


class AlexNet(ImageNetwork):
    """Five convolutions with ReLU, three of them followed by 2x2 maximum pooling, then one linear layer.

    The network of Zhao et al. (ICLR 2021), table 2, without dropout; their AlexNetBN is ``norm="batch"``. The first
    convolution has padding 4 for one-channel 28x28 images, which become 32x32, and padding 2 for all others.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width in pixels, or one number for both; at least 8.
        num_classes: Number of logits.
        norm: Layer after each convolution; see ``make_norm``.

    Raises:
        SettingsError: The norm is unknown or the image is too small.
    """

    def __init__(
        self, in_channels: int, image_size: int | tuple[int, int], num_classes: int, *, norm: Norm = "none"
    ) -> None:
        super().__init__(in_channels, image_size, num_classes)
        check_choice(f"{type(self).__name__}.norm", norm, Norm)
        self.norm: Norm = norm
        size = convolved(self.image_size, 5, self.published_padding(4, otherwise=2))
        if min(size) < 8:
            raise self.too_small(3, "use images of at least 8x8, or another network, such as a shallower ConvNet")

        layers: list[nn.Module] = []
        channels = in_channels
        for index, (out_channels, kernel, usual_padding, pooled) in enumerate(_LAYERS):
            padding = self.published_padding(4, otherwise=2) if index == 0 else usual_padding
            layers.append(nn.Conv2d(channels, out_channels, kernel, padding=padding))
            layers.extend((make_norm(norm, out_channels, size, "AlexNet"), nn.ReLU()))
            if pooled:
                layers.append(nn.MaxPool2d(2))
                size = halved(size)
            channels = out_channels
        self.maps = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * size[0] * size[1], num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the last pooled maps, flattened to (n, d), of ``images`` (n, C, H, W)."""
        return torch.flatten(self.maps(images), 1)
