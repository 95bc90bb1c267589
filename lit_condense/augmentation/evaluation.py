"""The augmentation of the DC evaluation protocol: one operation for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_condense.augmentation.base import Augmentation, Draw, check_operations, check_range, integers, uniform
from lit_condense.augmentation.operations import pick, translate
from lit_condense.augmentation.spline import rotate_cubic
from lit_condense.errors import SettingsError
from lit_condense.rng import RandomKey
from lit_condense.transfer import sent

EVALUATION_OPERATIONS = ("crop", "scale", "rotate", "noise")
MNIST_OPERATIONS = ("crop", "scale", "rotate")

CROP = 4
SCALE = 0.2
ROTATE = 45
NOISE = 0.001
"""Strengths of the program of Zhao et al., ICLR 2021."""


class EvaluationAugmentation(Augmentation):
    """Apply to each image one operation, drawn uniformly from a list (the program of Zhao et al., ICLR 2021).

    The paper's tables use crop, scale and rotate on MNIST, crop and noise for networks with batch norm, and nothing
    otherwise. What crop and rotate leave empty shows the batch's mean of each channel, what scale leaves empty is 0.
    A draw holds, for each operation, the images it falls on and their parameters; it is for exactly ``samples`` images.

    Args:
        operations: The operations to draw from: ``crop``, ``scale``, ``rotate``, ``noise``.
        crop: Rows and columns added on each side before a window is cut out. The window starts at 0 to
            ``2 * crop - 1``; the last start, ``2 * crop``, is never drawn, as published.
        scale: Height and width are multiplied by factors from 1 - s to 1 + s, independently, by nearest neighbours.
        rotate: Angles are whole degrees from -r to r - 1, interpolated by cubic splines.
        noise: Standard deviation of the added normal noise, in normalised units.
        channels: Most channels an image may have; noise is drawn for so many and cut to what the images have.

    Raises:
        SettingsError: An operation is unknown or a strength out of range.
    """

    def __init__(
        self,
        operations: Sequence[str] = MNIST_OPERATIONS,
        crop: int = CROP,
        scale: float = SCALE,
        rotate: int = ROTATE,
        noise: float = NOISE,
        channels: int = 3,
    ) -> None:
        self.operations = check_operations(operations, EVALUATION_OPERATIONS)
        self.crop = int(check_range("crop", crop, 1, 10_000))
        self.scale = check_range("scale", scale, 0, 0.99)
        self.rotate = int(check_range("rotate", rotate, 1, 180))
        self.noise = check_range("noise", noise, 0, float("inf"))
        self.channels = int(check_range("channels", channels, 1, 10_000))

    def draw(self, key: RandomKey, image_size: tuple[int, int], samples: int) -> Draw:
        """Draw an operation and its parameters for each of ``samples`` images."""
        choice = integers(key.fold("operation"), 0, len(self.operations), samples)
        draw: Draw = {}
        for number, name in enumerate(self.operations):
            chosen = (choice == number).nonzero().flatten()
            if len(chosen):
                parameters = self._parameters(name, key.fold(name), image_size, samples)
                draw[name] = (chosen, *(parameter[chosen] for parameter in parameters))
        return draw

    def apply(self, images: Tensor, draw: Draw) -> Tensor:
        """Apply a draw to the normalised images ``(n, C, H, W)`` it was made for.

        Raises:
            SettingsError: The draw is for another number of images, or the images have too many channels.
        """
        self._check(images, draw)
        fill = images.mean(dim=(0, 2, 3)).view(-1, 1, 1)
        result = images
        for name, parameters in draw.items():
            chosen, *values = (sent(parameter, images.device) for parameter in parameters)
            result = result.index_copy(0, chosen, _apply_one(name, images[chosen], values, fill))
        return result

    def _parameters(self, name: str, key: RandomKey, image_size: tuple[int, int], samples: int) -> tuple[Tensor, ...]:
        height, width = image_size
        if name == "crop":
            starts = [integers(key.fold(axis), 0, 2 * self.crop, samples) for axis in "yx"]
            return tuple(start - self.crop for start in starts)
        if name == "scale":
            factors = [1 + self.scale * (2 * uniform(key.fold(axis), samples) - 1) for axis in "yx"]
            sizes = zip(factors, image_size, strict=True)
            return tuple((factor * size).long().clamp(min=1) for factor, size in sizes)
        if name == "rotate":
            return (integers(key, -self.rotate, self.rotate, samples),)
        return (
            self.noise
            * torch.randn(samples, self.channels, height, width, generator=key.generator(), dtype=torch.float32),
        )

    def _check(self, images: Tensor, draw: Draw) -> None:
        drawn = sum(parameters[0].shape[0] for parameters in draw.values())
        if drawn != images.shape[0]:
            raise SettingsError(
                f"Expected a draw for {images.shape[0]} images, got one for {drawn}. Draw with samples=len(images): "
                "this augmentation chooses an operation for each image."
            )
        if "noise" in draw and images.shape[1] > self.channels:
            raise SettingsError(
                f"Expected images of at most channels={self.channels} channels, got {images.shape[1]}. Raise channels."
            )


def resize_nearest(images: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
    """Resize each image by nearest neighbours, then cut its centre out or put zeros around it.

    Args:
        images: ``(n, C, H, W)``.
        heights: New heights in rows, ``(n,)`` or ``(1,)``. Odd differences leave one row more at the bottom.
        widths: New widths in columns, likewise.
    """
    height, width = images.shape[-2:]
    return pick(images, _nearest(height, heights), _nearest(width, widths))


def _apply_one(name: str, images: Tensor, values: list[Tensor], fill: Tensor) -> Tensor:
    if name == "crop":
        return translate(images, values[0], values[1], fill)
    if name == "scale":
        return resize_nearest(images, values[0], values[1])
    if name == "rotate":
        return rotate_cubic(images, values[0], fill)
    return images + values[0][:, : images.shape[1]].to(images.dtype)


def _nearest(size: int, new_sizes: Tensor) -> Tensor:
    """Return ``(n or 1, size)``: the input row each output row shows, -1 for a row outside the resized image."""
    new = new_sizes[:, None]
    margin = torch.where(new < size, (size - new) // 2, -((new - size) // 2))
    resized = torch.arange(size, device=new.device) - margin
    source = (resized * (size / new)).floor().long()
    return torch.where((resized >= 0) & (resized < new), source.clamp(0, size - 1), -1)
