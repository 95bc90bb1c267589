"""The augmentation of the DC evaluation protocol: one operation for each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lit_condense.augmentation.base import Augmentation, Draw, check_operations, check_range, integers, uniform
from lit_condense.augmentation.operations import pick, translate
from lit_condense.augmentation.spline import rotate_cubic
from lit_condense.errors import SettingsError, check_choice
from lit_condense.rng import RandomKey
from lit_condense.transfer import sent

EVALUATION_OPERATIONS = ("crop", "scale", "rotate", "noise")
MNIST_OPERATIONS = ("crop", "scale", "rotate")

CROP = 4
SCALE = 0.2
ROTATE = 45
NOISE = 0.001
"""Strengths of the program of Zhao et al., ICLR 2021."""


Geometry = Literal["centred", "published"]
"""``centred``: the middle of an image stays where it is; ``published``: it moves as in the program, see below."""


class EvaluationAugmentation(Augmentation):
    """Apply to each image one operation, drawn uniformly from a list (the program of Zhao et al., ICLR 2021).

    The paper's tables use crop, scale and rotate on MNIST, crop and noise for networks with batch norm, and nothing
    otherwise. What crop and rotate leave empty shows the batch's mean of each channel, what scale leaves empty is 0.
    A draw holds, for each operation, the images it falls on and their parameters; it is for exactly ``samples`` images.

    The program grows a canvas around a rotated or resized image and cuts its middle out, rounded down: for 44 of its 90
    angles the image ends half a pixel lower and further right, for 24 of the 144 pairs of sizes of a 28x28 image a
    pixel off. That is ``geometry: published``. It has no effect on accuracy (MNIST, one image a class: 90.82 % against
    90.90 %), so that the default keeps the middle where it is.

    Args:
        operations: The operations to draw from: ``crop``, ``scale``, ``rotate``, ``noise``.
        crop: Rows and columns added on each side before a window is cut out. The window starts at 0 to
            ``2 * crop - 1``; the last start, ``2 * crop``, is never drawn, as published.
        scale: Height and width are multiplied by factors from 1 - s to 1 + s, independently, by nearest neighbours.
        rotate: Angles are whole degrees from -r to r - 1, interpolated by cubic splines.
        noise: Standard deviation of the added normal noise, in normalised units.
        channels: Most channels an image may have; noise is drawn for so many and cut to what the images have.
        geometry: ``centred``, or ``published`` for the program's rotation and scale to the pixel, of square images;
            where several channels are rotated, all then show the mean over channels at the corners.

    Raises:
        SettingsError: An operation is unknown or a strength out of range.
    """

    def __init__(
        self,
        operations: Sequence[str] = MNIST_OPERATIONS,
        crop: int = CROP,
        *,
        scale: float = SCALE,
        rotate: int = ROTATE,
        noise: float = NOISE,
        channels: int = 3,
        geometry: Geometry = "centred",
    ) -> None:
        self.operations = check_operations(operations, EVALUATION_OPERATIONS)
        self.crop = int(check_range("crop", crop, 1, 10_000))
        self.scale = check_range("scale", scale, 0, 0.99)
        self.rotate = int(check_range("rotate", rotate, 1, 180))
        self.noise = check_range("noise", noise, 0, float("inf"))
        self.channels = int(check_range("channels", channels, 1, 10_000))
        check_choice("geometry", geometry, Geometry)
        self.geometry: Geometry = geometry

    def draw(self, key: RandomKey, image_size: tuple[int, int], samples: int) -> Draw:
        """Draw an operation and its parameters for each of ``samples`` images.

        Raises:
            SettingsError: The published geometry is asked for images that are not square.
        """
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
            shown = fill.mean(0, keepdim=True) if name == "rotate" and self.geometry == "published" else fill
            result = result.index_copy(0, chosen, _apply_one(name, images[chosen], values, shown))
        return result

    def _parameters(self, name: str, key: RandomKey, image_size: tuple[int, int], samples: int) -> tuple[Tensor, ...]:
        height, width = image_size
        if name == "crop":
            starts = [integers(key.fold(axis), 0, 2 * self.crop, samples) for axis in "yx"]
            return tuple(start - self.crop for start in starts)
        if name == "scale":
            factors = [1 + self.scale * (2 * uniform(key.fold(axis), samples) - 1) for axis in "yx"]
            new = tuple((f * size).long().clamp(min=1) for f, size in zip(factors, image_size, strict=True))
            return *new, *self._margins(new, image_size)
        if name == "rotate":
            degrees = integers(key, -self.rotate, self.rotate, samples)
            return degrees, *self._offsets(degrees, image_size)
        return (
            self.noise
            * torch.randn(samples, self.channels, height, width, generator=key.generator(), dtype=torch.float32),
        )

    def _margins(self, new: tuple[Tensor, ...], image_size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return the rows above and the columns left of resized images, negative where these are cut off."""
        if self.geometry == "centred":
            return tuple(_half(size - resized) for size, resized in zip(image_size, new, strict=True))
        side = _square(image_size)
        canvas = torch.maximum(*new).clamp(min=side)
        return tuple(_half(canvas - resized) - _half(canvas - side) for resized in new)

    def _offsets(self, degrees: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return how far, in pixels, the rows and the columns of rotated images lie off their middle."""
        if self.geometry == "centred":
            return (torch.zeros(len(degrees), dtype=torch.float32),) * 2
        side = _square(image_size)
        turned = [math.radians(angle) for angle in degrees.tolist()]
        grown = [int(side * (abs(math.cos(angle)) + abs(math.sin(angle))) + 0.5) - side for angle in turned]
        return (torch.tensor([more // 2 - more / 2 for more in grown], dtype=torch.float32),) * 2

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


def resize_nearest(images: Tensor, heights: Tensor, widths: Tensor, tops: Tensor, lefts: Tensor) -> Tensor:
    """Resize each image by nearest neighbours, then cut a window out of it or put zeros around it.

    Args:
        images: ``(n, C, H, W)``.
        heights: New heights in rows, ``(n,)`` or ``(1,)``.
        widths: New widths in columns, likewise.
        tops: Rows of zeros above a resized image, or minus the rows that are cut off there.
        lefts: Columns left of it, likewise.
    """
    height, width = images.shape[-2:]
    return pick(images, _nearest(height, heights, tops), _nearest(width, widths, lefts))


def _apply_one(name: str, images: Tensor, values: list[Tensor], fill: Tensor) -> Tensor:
    if name == "crop":
        return translate(images, values[0], values[1], fill)
    if name == "scale":
        return resize_nearest(images, *values)
    if name == "rotate":
        return rotate_cubic(images, values[0], fill, (values[1], values[2]))
    return images + values[0][:, : images.shape[1]].to(images.dtype)


def _half(difference: Tensor) -> Tensor:
    """Return half of a difference of sizes in whole pixels: where it is odd, one pixel more at the far end."""
    return torch.div(difference, 2, rounding_mode="trunc")


def _square(image_size: tuple[int, int]) -> int:
    height, width = image_size
    if height != width:
        raise SettingsError(
            f"Expected square images for geometry 'published', got {height}x{width}: the program cannot rotate others. "
            "Use geometry 'centred'."
        )
    return height


def _nearest(size: int, new_sizes: Tensor, margins: Tensor) -> Tensor:
    """Return ``(n or 1, size)``: the input row each output row shows, -1 for a row outside the resized image."""
    new = new_sizes[:, None]
    resized = torch.arange(size, device=new.device) - margins[:, None]
    source = (resized * (size / new)).floor().long()
    return torch.where((resized >= 0) & (resized < new), source.clamp(0, size - 1), -1)
