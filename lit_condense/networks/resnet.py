"""ResNet18 for small images as used in the cross-architecture tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_condense.errors import check_choice
from lit_condense.networks.base import ImageNetwork, halved
from lit_condense.networks.norms import Norm, make_norm
from lit_condense.networks.pooling import HalvingAverage

_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels and stride
_BLOCKS_PER_STAGE = 2
_HALVINGS = 3


class ResNet18(ImageNetwork):
    """A residual network with a 3x3 stem and four stages of two basic blocks, then one linear layer.

    The networks of Zhao et al. (ICLR 2021), table 2: ResNet18BN is ``norm="batch"`` and the _AP variants are
    ``average_pool=True``. Convolutions have no bias.

    Without ``average_pool`` the last maps (4x4 at 28x28 and 32x32) are averaged, so the classifier has 512 inputs at
    every image size. With it they are flattened: 512*4*4 inputs at 32x32, 512*3*3 at 28x28 (28, 14, 7, 3).

    Args:
        in_channels: Channels of the images.
        image_size: Height and width in pixels, or one number for both. Any size without ``average_pool``, at least
            8 with it; instance norm needs more than one pixel in the last maps (at least 9, or 16 with it).
        num_classes: Number of logits.
        norm: Layer after each convolution; see ``make_norm``.
        average_pool: Halve by 2x2 average pooling after stride-1 convolutions in place of stride-2 convolutions.

    Raises:
        SettingsError: The norm is unknown or the image is too small.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int | tuple[int, int],
        num_classes: int,
        *,
        norm: Norm = "instance",
        average_pool: bool = False,
    ) -> None:
        super().__init__(in_channels, image_size, num_classes)
        check_choice(f"{type(self).__name__}.norm", norm, Norm)
        self.norm: Norm = norm
        self.average_pool = average_pool
        last = self._last_size()

        channels, size = 64, self.image_size
        self.conv = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        self.stem_norm = make_norm(norm, channels, size, "ResNet18")
        blocks: list[_BasicBlock] = []
        for out_channels, stride in _STAGES:
            for index in range(_BLOCKS_PER_STAGE):
                block = _BasicBlock(channels, out_channels, size, stride if index == 0 else 1, norm, average_pool)
                channels, size = out_channels, block.out_size
                blocks.append(block)
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels * last[0] * last[1] if average_pool else channels, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the last maps, averaged to (n, 512) or flattened to (n, d), of ``images`` (n, C, H, W)."""
        maps: Tensor = self.blocks(F.relu(self.stem_norm(self.conv(images))))
        return torch.flatten(maps, 1) if self.average_pool else maps.mean(dim=(2, 3))

    def _last_size(self) -> tuple[int, int]:
        """Return the last maps' height and width, checked."""
        size = self.image_size
        for _ in range(_HALVINGS):
            size = _next_size(size, 2, self.average_pool)
        if min(size) < 1:
            raise self.too_small(_HALVINGS, "use images of at least 8x8, or set average_pool: false")
        if self.norm == "instance" and size == (1, 1):
            least = 16 if self.average_pool else 9
            raise self.too_small(
                _HALVINGS,
                "instance norm of the single pixel that is left erases the image; use images of at least "
                f"{least}x{least}, or norm batch, layer or group",
            )
        return size


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(
        self, in_channels: int, channels: int, size: tuple[int, int], stride: int, norm: Norm, average_pool: bool
    ) -> None:
        super().__init__()
        self.out_size = _next_size(size, stride, average_pool)
        pooled = average_pool and stride == 2
        conv_stride = 1 if average_pool else stride
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=conv_stride, padding=1, bias=False)
        self.norm1 = make_norm(norm, channels, size if pooled else self.out_size, "ResNet18")
        self.pool = HalvingAverage() if pooled else nn.Identity()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = make_norm(norm, channels, self.out_size, "ResNet18")
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=conv_stride, bias=False),
                HalvingAverage() if pooled else nn.Identity(),
                make_norm(norm, channels, self.out_size, "ResNet18"),
            )

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.pool(F.relu(self.norm1(self.conv1(maps))))
        inner = self.norm2(self.conv2(inner))
        return F.relu(inner + self.shortcut(maps))


def _next_size(size: tuple[int, int], stride: int, average_pool: bool) -> tuple[int, int]:
    """Return the height and width after a block: pooling rounds odd sizes down, a strided convolution up."""
    if stride == 1:
        return size
    return halved(size) if average_pool else ((size[0] + 1) // 2, (size[1] + 1) // 2)
