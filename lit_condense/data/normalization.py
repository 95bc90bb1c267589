"""Normalisation of images: what every kind offers, and the per-channel constants that the published methods use.

A condensed set made under one family's constants scores wrongly under another's: the family is part of a result.
Shapes: C channels, H and W pixels; ``...`` stands for any leading dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from lit_condense.errors import DataError, SettingsError

PIXEL_RANGE = 255  # largest value of an 8-bit pixel
CONSTANT_STD = 1e-8  # below this a channel is constant up to rounding
MEASURED_PIXELS = 1 << 22  # pixels converted to float64 at a time: 32 MiB


class Normalizer(Protocol):
    """A map from pixels in [0, 1] to what networks see, and back: per channel, or of whole images."""

    per_channel: ClassVar[bool]
    """Whether each value depends on its own pixel and channel only, so that any image size, a single pixel too, can be
    normalised, and the range of real pixels is a range of normalised ones."""

    def normalize(self, images: Tensor) -> Tensor:
        """Map pixels in [0, 1] to normalised values.

        Args:
            images: ``(..., C, H, W)``, floating point.

        Returns:
            A new tensor of the same shape, dtype and device; differentiable any number of times.

        Raises:
            DataError: The images do not have the shape that this normalisation is of.
        """

    def denormalize(self, images: Tensor) -> Tensor:
        """Map normalised values ``(..., C, H, W)`` back to pixels; nothing is clamped.

        Raises:
            DataError: The images do not have the shape that this normalisation is of.
        """

    def check_shape(self, image_shape: Sequence[int]) -> None:
        """Refuse images of a shape ``(C, H, W)`` that cannot be normalised so.

        Raises:
            DataError: They cannot.
        """

    def describe(self) -> dict[str, Any]:
        """Return what decides the normalised values, as small plain data: for cards, and to compare by."""


@dataclass(frozen=True)
class Normalization:  # not derived from Normalizer: configs give mean and std of a plain dataclass alone
    """The mean and standard deviation of each channel, in [0, 1] pixel units.

    Args:
        mean: One number a channel.
        std: One positive number a channel.

    Raises:
        SettingsError: The two differ in length or are empty, a value is not finite, or a std is not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    per_channel: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if not self.mean or len(self.mean) != len(self.std):
            raise SettingsError(
                f"A normalisation needs one mean and one std a channel, but got {len(self.mean)} means and "
                f"{len(self.std)} stds. Give two lists of the same length."
            )
        if not all(math.isfinite(value) for value in self.mean + self.std) or min(self.std) <= 0:
            raise SettingsError(
                f"Normalisation values must be finite and each std positive, but got mean={self.mean}, std={self.std}."
            )

    def normalize(self, images: Tensor) -> Tensor:
        """Map pixels in [0, 1] to normalised values, ``(pixel - mean) / std``.

        Args:
            images: ``(..., C, H, W)``, floating point.

        Returns:
            A new tensor of the same shape, dtype and device; differentiable.

        Raises:
            DataError: C is not the number of means.
        """
        mean, std = self._like(images)
        return (images - mean) / std

    def denormalize(self, images: Tensor) -> Tensor:
        """Map normalised values ``(..., C, H, W)`` back to pixels, ``value * std + mean``; nothing is clamped.

        Raises:
            DataError: C is not the number of means.
        """
        mean, std = self._like(images)
        return images * std + mean

    def check_shape(self, image_shape: Sequence[int]) -> None:
        """Refuse images ``(C, H, W)`` of another number of channels.

        Raises:
            DataError: C is not the number of means.
        """
        if image_shape[0] != len(self.mean):
            raise DataError(
                f"The images have {image_shape[0]} channel(s) but the normalisation has {len(self.mean)}. "
                "Use `normalization: measured` or give one mean and std a channel."
            )

    def describe(self) -> dict[str, Any]:
        """Return the values."""
        return {"mean": list(self.mean), "std": list(self.std)}

    def _like(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.dim() < 3 or images.shape[-3] != len(self.mean):
            raise DataError(
                f"This normalisation has {len(self.mean)} channel(s) and needs images of shape (..., {len(self.mean)}, "
                f"H, W), but got {tuple(images.shape)}. Use the constants of these data or 'measured'."
            )
        # non_blocking: a copy this small never waits for the device
        values = torch.tensor((self.mean, self.std), dtype=images.dtype).to(images.device, non_blocking=True)
        mean, std = values.view(2, -1, 1, 1)
        return mean, std


def measured(images: Tensor) -> Normalization:
    """Measure each channel over all pixels of all images, with sums in float64.

    Args:
        images: ``(N, C, H, W)``, uint8, or floating point in [0, 1].

    Returns:
        Mean and population standard deviation (divided by the number of pixels, not one less). A constant channel gets
        a std of 1, so that it normalises to 0 instead of dividing by 0.
    """
    count = images.numel() // images.shape[1]
    mean = torch.stack([part.sum((0, 2, 3)) for part in _in_parts(images)]).sum(0) / count
    centre = mean.view(-1, 1, 1)
    squares = torch.stack([(part - centre).square_().sum((0, 2, 3)) for part in _in_parts(images)]).sum(0)
    std = (squares / count).sqrt()
    std = torch.where(std < CONSTANT_STD, torch.ones_like(std), std)
    return Normalization(tuple(mean.tolist()), tuple(std.tolist()))


def _in_parts(images: Tensor) -> Iterator[Tensor]:
    """Yield the images in float64 and [0, 1], a few at a time."""
    size = max(1, MEASURED_PIXELS // max(1, images[0].numel()))
    for part in torch.split(images, size):
        values = part.to(torch.float64)
        yield values if images.is_floating_point() else values / PIXEL_RANGE


_MNIST = Normalization((0.1307,), (0.3081,))
_FASHION = Normalization((0.2861,), (0.3530,))
_SVHN = Normalization((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))
_CIFAR10 = Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # std: mean of the images' own stds
_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

PRESETS: dict[str, dict[str, Normalization]] = {
    # Zhao et al., ICLR 2021 (DC), and DSA and DM from the same code
    "dc": {
        "mnist": _MNIST,
        "fashion_mnist": _FASHION,
        "svhn": _SVHN,
        "cifar10": _CIFAR10,
        "cifar100": Normalization((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
        "tiny_imagenet": _IMAGENET,
    },
    # Jiang et al., arXiv 2208.00311 (EGM)
    "egm": {
        "mnist": _MNIST,
        "fashion_mnist": _FASHION,
        "svhn": _SVHN,
        "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "cifar100": Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    },
    # Kim et al., ICML 2022 (IDC), and DREAM: CIFAR-100 under CIFAR-10's constants
    "idc": {
        "mnist": _MNIST,
        "fashion_mnist": _FASHION,
        "svhn": _SVHN,
        "cifar10": _CIFAR10,
        "cifar100": _CIFAR10,
        "imagenet": _IMAGENET,
    },
    # Cazenavette et al., CVPR 2022 (MTT), and FTD, TESLA, DATM: CIFAR-100 under CIFAR-10's constants, too
    "mtt": {"cifar10": _CIFAR10, "cifar100": _CIFAR10, "tiny_imagenet": _IMAGENET},
}


def preset(family: str, dataset: str) -> Normalization:
    """Return the constants that ``family`` uses for ``dataset``.

    Raises:
        SettingsError: There is no such family, or it has no constants for this dataset.
    """
    if family not in PRESETS:
        known = [*PRESETS, "measured", "zca"]
        raise SettingsError(f"Expected `normalization` to be one of {known} but got '{family}'.")
    if dataset not in PRESETS[family]:
        raise SettingsError(
            f"The normalisation family '{family}' has no constants for '{dataset}' (it has {sorted(PRESETS[family])}). "
            "Use `normalization: measured` or `zca`, or give mean and std."
        )
    return PRESETS[family][dataset]
