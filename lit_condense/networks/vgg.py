"""VGG11 as used in the cross-architecture tables."""

from __future__ import annotations

from torch import Tensor, nn

from lit_condense.errors import check_choice
from lit_condense.networks.base import ImageNetwork, convolved, halved
from lit_condense.networks.norms import Norm, make_norm

# Output channels of the convolutions, "pool" for 2x2 maximum pooling (Simonyan and Zisserman, ICLR 2015, table 1, A).
_LAYERS = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")


class VGG11(ImageNetwork):
    """Eight 3x3 convolutions with norm and ReLU and five 2x2 maximum poolings, then one linear layer.

    The network of Zhao et al. (ICLR 2021), table 2; their VGG11BN is ``norm="batch"``. The first convolution has
    padding 3 for one-channel 28x28 images, which become 32x32, and padding 1 for all others. What is left after the
    poolings (one pixel at 32x32) is averaged, so the classifier has 512 inputs at every image size.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width in pixels, or one number for both; at least 32, or one-channel 28x28.
        num_classes: Number of logits.
        norm: Layer after each convolution; see ``make_norm``.

    Raises:
        SettingsError: The norm is unknown or the image is too small.
    """

    def __init__(
        self, in_channels: int, image_size: int | tuple[int, int], num_classes: int, *, norm: Norm = "instance"
    ) -> None:
        super().__init__(in_channels, image_size, num_classes)
        check_choice(f"{type(self).__name__}.norm", norm, Norm)
        self.norm: Norm = norm
        size = convolved(self.image_size, 3, self.published_padding(3, otherwise=1))
        if min(size) < 32:
            raise self.too_small(5, "use images of at least 32x32, or another network, such as ConvNet")

        layers: list[nn.Module] = []
        channels = in_channels
        for layer in _LAYERS:
            if isinstance(layer, str):
                layers.append(nn.MaxPool2d(2))
                size = halved(size)
                continue
            padding = 1 if layers else self.published_padding(3, otherwise=1)
            layers.append(nn.Conv2d(channels, layer, kernel_size=3, padding=padding))
            layers.extend((make_norm(norm, layer, size, "VGG11"), nn.ReLU()))
            channels = layer
        self.maps = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the averaged last maps, (n, 512), of ``images`` (n, C, H, W)."""
        maps: Tensor = self.maps(images)
        return maps.mean(dim=(2, 3))
