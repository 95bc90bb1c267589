"""Siamese augmentation: one operation a batch (DSA) or an always-on list (IDC), shared or drawn for each image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lit_condense.augmentation.base import Augmentation, Draw, check_operations, check_range, integers, uniform
from lit_condense.augmentation.operations import BRIGHTNESS, CONTRAST, SATURATION
from lit_condense.rng import RandomKey

CROP = 0.125
CUTOUT = 0.5
SCALE = 1.2
ROTATE = 15.0
FLIP = 0.5
"""Strengths of Zhao & Bilen, ICML 2021."""

DSA_OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
IDC_OPERATIONS = ("color", "crop", "cutout")
"""What IDC matches under (Kim et al., ICML 2022)."""

DIGIT_DATASETS = ("mnist", "svhn", "digits")
"""A mirrored digit is another digit or none."""


def shows_digits(dataset_name: str) -> bool:
    """Say whether a data set shows digits; case, ``-`` and ``_`` in its name do not matter."""
    return dataset_name.lower().replace("-", "").replace("_", "") in DIGIT_DATASETS


def dsa_operations(dataset_name: str) -> tuple[str, ...]:
    """Return the operations that DSA uses on a data set: all six, for digits (MNIST, SVHN) all but ``flip``.

    Case, ``-`` and ``_`` in the name do not matter. Data sets that were not published with DSA get all six.
    """
    if shows_digits(dataset_name):
        return tuple(name for name in DSA_OPERATIONS if name != "flip")
    return DSA_OPERATIONS


class _Siamese(Augmentation):
    """Hold the strengths, and draw the parameters of one group of operations."""

    def __init__(
        self,
        operations: Sequence[str],
        brightness: float,
        saturation: float,
        contrast: float,
        crop: float,
        cutout: float,
        scale: float,
        rotate: float,
        flip: float,
    ) -> None:
        self.operations = check_operations(operations, DSA_OPERATIONS)
        self.brightness = check_range("brightness", brightness, 0, math.inf)
        self.saturation = check_range("saturation", saturation, 0, math.inf)
        self.contrast = check_range("contrast", contrast, 0, math.inf)
        self.crop = check_range("crop", crop, 0, 1)
        self.cutout = check_range("cutout", cutout, 0, 1)
        self.scale = check_range("scale", scale, 1, math.inf)
        self.rotate = check_range("rotate", rotate, 0, 180)
        self.flip = check_range("flip", flip, 0, 1)

    def _draw_group(self, group: str, key: RandomKey, image_size: tuple[int, int], samples: int) -> Draw:
        """Draw one group; the parameters of ``color`` are those of its three operations."""
        key = key.fold(group)
        if group == "color":
            return self._draw_color(key, samples)
        if group == "flip":
            return {"flip": (uniform(key, samples) < self.flip,)}
        if group == "rotate":
            return {"rotate": ((2 * uniform(key, samples) - 1) * math.radians(self.rotate),)}
        if group == "scale":
            low, high = 1 / self.scale, self.scale
            return {"scale": tuple(uniform(key.fold(axis), samples) * (high - low) + low for axis in "yx")}
        if group == "crop":
            reach = [_rounded(size, self.crop) for size in image_size]
            return {"crop": tuple(integers(key.fold(a), -p, p + 1, samples) for a, p in zip("yx", reach, strict=True))}
        return self._draw_cutout(key, image_size, samples)

    def _draw_color(self, key: RandomKey, samples: int) -> Draw:
        strengths = {"brightness": self.brightness, "saturation": self.saturation, "contrast": self.contrast}
        return {name: (uniform(key.fold(name), samples), torch.tensor([s])) for name, s in strengths.items()}

    def _draw_cutout(self, key: RandomKey, image_size: tuple[int, int], samples: int) -> Draw:
        """An even window has its centre between pixels, so there is one position more (Zhao & Bilen's program)."""
        sides = [_rounded(size, self.cutout) for size in image_size]
        ends = [size + 1 - side % 2 for size, side in zip(image_size, sides, strict=True)]
        centres = [integers(key.fold(axis), 0, end, samples) for axis, end in zip("yx", ends, strict=True)]
        return {"cutout": (*centres, *(torch.tensor([side]) for side in sides))}


class OneOf(_Siamese):
    """Apply one group of operations, drawn uniformly for each batch (DSA, Zhao & Bilen, ICML 2021).

    Args:
        operations: The groups to draw from: ``color`` (brightness, saturation, then contrast), ``crop``, ``cutout``,
            ``flip``, ``scale``, ``rotate``.
        brightness: Width of the range of what is added, in normalised units: -b/2 to b/2.
        saturation: Largest factor of a pixel's distance from grey: 0 to s.
        contrast: Smallest factor of a value's distance from the image's mean: c to c + 1.
        crop: Largest shift as a share of each side.
        cutout: Side of the zeroed window as a share of each side.
        scale: Largest factor of size; the smallest is ``1 / scale``.
        rotate: Largest angle in degrees, either way.
        flip: Probability of mirroring left and right.

    Raises:
        SettingsError: An operation is unknown or a strength out of range.
    """

    def __init__(
        self,
        operations: Sequence[str] = DSA_OPERATIONS,
        brightness: float = BRIGHTNESS,
        *,
        saturation: float = SATURATION,
        contrast: float = CONTRAST,
        crop: float = CROP,
        cutout: float = CUTOUT,
        scale: float = SCALE,
        rotate: float = ROTATE,
        flip: float = FLIP,
    ) -> None:
        super().__init__(operations, brightness, saturation, contrast, crop, cutout, scale, rotate, flip)

    def draw(self, key: RandomKey, image_size: tuple[int, int], samples: int) -> Draw:
        """Draw the group, the same for all samples, and its parameters, for each sample."""
        return self._draw_group(_one_of(self.operations, key), key, image_size, samples)


class AlwaysOn(_Siamese):
    """Apply every listed operation, but only one of crop, scale and rotate (IDC, Kim et al., ICML 2022).

    The order is flip, colour, the one of crop, scale and rotate (drawn uniformly for each batch), cutout last.

    Args:
        operations: As for ``OneOf``, which explains the strengths too; the order of the list does not matter.
        brightness: As for ``OneOf``.
        saturation: As for ``OneOf``.
        contrast: As for ``OneOf``.
        crop: As for ``OneOf``.
        cutout: As for ``OneOf``.
        scale: As for ``OneOf``.
        rotate: As for ``OneOf``.
        flip: As for ``OneOf``.

    Raises:
        SettingsError: An operation is unknown or a strength out of range.
    """

    def __init__(
        self,
        operations: Sequence[str] = IDC_OPERATIONS,
        brightness: float = BRIGHTNESS,
        *,
        saturation: float = SATURATION,
        contrast: float = CONTRAST,
        crop: float = CROP,
        cutout: float = CUTOUT,
        scale: float = SCALE,
        rotate: float = ROTATE,
        flip: float = FLIP,
    ) -> None:
        super().__init__(operations, brightness, saturation, contrast, crop, cutout, scale, rotate, flip)

    def draw(self, key: RandomKey, image_size: tuple[int, int], samples: int) -> Draw:
        """Draw the one of crop, scale and rotate, the same for all samples, and parameters for each sample."""
        movements = [name for name in ("crop", "scale", "rotate") if name in self.operations]
        chosen = [_one_of(movements, key)] if movements else []
        order = ["flip", "color", *chosen, "cutout"]
        draw: Draw = {}
        for group in [name for name in order if name in self.operations]:
            draw.update(self._draw_group(group, key, image_size, samples))
        return draw


def _one_of(names: Sequence[str], key: RandomKey) -> str:
    return names[int(integers(key.fold("group"), 0, len(names), samples=1))]


def _rounded(size: int, share: float) -> int:
    """Return a share of a side in pixels, halves rounded up as published (Python's ``round`` would not)."""
    return int(size * share + 0.5)
