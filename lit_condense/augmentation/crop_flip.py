"""The augmentation of training on real images: a window of the padded image, and a mirror."""

from __future__ import annotations

from lit_condense.augmentation.base import Augmentation, Draw, check_range, integers, uniform
from lit_condense.rng import RandomKey

PADDING = 4
FLIP = 0.5
"""Strengths of the usual training on CIFAR, DeepCore's among them (Guo et al., DEXA 2022)."""


class CropFlip(Augmentation):
    """Cut a window of the image's size out of the image padded by reflection, then maybe mirror left and right.

    Args:
        padding: Rows and columns on each side, mirrored about the outermost pixels. The window starts anywhere.
        flip: Probability of mirroring left and right.

    Raises:
        SettingsError: A strength is out of range.
    """

    def __init__(self, padding: int = PADDING, flip: float = FLIP) -> None:
        self.padding = int(check_range("padding", padding, 0, 10_000))
        self.flip = check_range("flip", flip, 0, 1)

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations in use."""
        return ("reflected_crop", "flip") if self.flip else ("reflected_crop",)

    def draw(self, key: RandomKey, image_size: tuple[int, int], samples: int) -> Draw:
        """Draw a shift, and whether to mirror, for each of ``samples`` images."""
        p = self.padding
        draw: Draw = {"reflected_crop": tuple(integers(key.fold("crop", axis), -p, p + 1, samples) for axis in "yx")}
        if self.flip:
            draw["flip"] = (uniform(key.fold("flip"), samples) < self.flip,)
        return draw
