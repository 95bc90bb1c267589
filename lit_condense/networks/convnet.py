"""The ConvNet family on which most condensation results are reported."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from lit_condense.errors import check_choice
from lit_condense.networks.base import ImageNetwork, convolved, halved
from lit_condense.networks.norms import Norm, make_norm
from lit_condense.networks.pooling import HalvingAverage

Activation = Literal["relu", "sigmoid", "leaky_relu", "swish"]
Pooling = Literal["avg", "max", "none"]

# Never in place: the activations are differentiated twice and traced by torch.compile.
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,  # slope 0.01, PyTorch's default and the published one
    "swish": nn.SiLU,
}


class ConvNet(ImageNetwork):
    """Equal blocks of 3x3 convolution, norm, activation and 2x2 pooling, then one linear layer.

    The defaults are ConvNet-3 of Zhao et al. (ICLR 2021), with 320,010 parameters for 3x32x32 images of 10 classes;
    IDC's and DREAM's ConvNet-3 is the same network. ``parameters()`` yields for each block the convolution's weight
    and bias and the norm's scale and shift, then the classifier's weight and bias.

    The first convolution has padding 3 for one-channel 28x28 images, which become 32x32, and padding 1 for all others.
    Layers start as PyTorch's defaults.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width in pixels, or one number for both; at least ``2**depth`` with pooling.
        num_classes: Number of logits.
        width: Channels of every block.
        depth: Number of blocks, each of which halves the image when there is pooling.
        norm: Layer after each convolution; see ``make_norm``.
        activation: Function after each norm; "swish" is x * sigmoid(x).
        pooling: Mean or maximum of 2x2 pixels at the end of each block, or none.

    Raises:
        SettingsError: A setting is unknown or the image is too small for the depth.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int | tuple[int, int],
        num_classes: int,
        *,
        width: int = 128,
        depth: int = 3,
        norm: Norm = "instance",
        activation: Activation = "relu",
        pooling: Pooling = "avg",
    ) -> None:
        super().__init__(in_channels, image_size, num_classes)
        self.check_count("width", width)
        self.check_count("depth", depth)
        check_choice(f"{type(self).__name__}.norm", norm, Norm)
        check_choice(f"{type(self).__name__}.activation", activation, Activation)
        check_choice(f"{type(self).__name__}.pooling", pooling, Pooling)
        self.width = width
        self.depth = depth
        self.norm: Norm = norm
        self.activation: Activation = activation
        self.pooling: Pooling = pooling

        sizes = self._block_sizes()
        self.blocks = nn.Sequential(*(self._block(index, size) for index, size in enumerate(sizes[:-1])))
        self.classifier = nn.Linear(width * sizes[-1][0] * sizes[-1][1], num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the last block's output, flattened to (n, d), of ``images`` (n, C, H, W)."""
        return torch.flatten(self.blocks(images), 1)

    def _block_sizes(self) -> list[tuple[int, int]]:
        """Return the height and width after each block's convolution, and at the end."""
        sizes = [convolved(self.image_size, 3, self._padding(0))]
        for _ in range(self.depth):
            sizes.append(sizes[-1] if self.pooling == "none" else halved(sizes[-1]))
        least = 2**self.depth
        if min(sizes[-1]) < 1:
            raise self.too_small(
                self.depth, f"lower depth, use images of at least {least}x{least}, or set pooling: none"
            )
        return sizes

    def _padding(self, index: int) -> int:
        return self.published_padding(3, otherwise=1) if index == 0 else 1

    def _block(self, index: int, size: tuple[int, int]) -> nn.Sequential:
        channels = self.in_channels if index == 0 else self.width
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(channels, self.width, kernel_size=3, padding=self._padding(index)),
            norm=make_norm(self.norm, self.width, size, "ConvNet"),
            activation=_ACTIVATIONS[self.activation](),
        )
        if self.pooling != "none":
            layers["pooling"] = HalvingAverage() if self.pooling == "avg" else nn.MaxPool2d(2)
        return nn.Sequential(layers)
