"""Images of 16 bits a value: found by what their files say, and decoded without losing a level.

Pillow opens 16-bit colour as 8-bit colour and says nothing. Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lit_condense.errors import DataError

DEEP_WHITE = 65535
"""The largest 16-bit value: white, unless the user knows better."""

BITS_PER_SAMPLE = 258  # TIFF tag
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, Pillow's rule


def is_deep(image: Image.Image, path: Path) -> bool:
    """Whether an opened, not yet decoded file holds 16 bits a value.

    Raises:
        DataError: It does, in a way of which Pillow keeps 8 bits and nothing else here reads it.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return True
    if image.format == "PNG":
        return ";16" in _raw_mode(image)[0]
    if image.format == "PPM" and _largest_value(image) > 255:
        raise _unreadable(path)
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
    if image.format == "TIFF" and image.mode not in ("I", "F") and max(np.atleast_1d(bits)) > 8:
        raise _unreadable(path)
    return False


def deep_mode(image: Image.Image) -> str:
    """Return the mode of a deep image as if it had 8 bits."""
    if image.format == "PNG" and _raw_mode(image)[0].startswith("LA"):
        return "LA"
    return "L" if image.mode.startswith("I") else image.mode


def states_white(image: Image.Image) -> bool:
    """Whether the file says itself what is white: PGM may, and Pillow then scales its values to 16 bits."""
    return image.format == "PPM" and _largest_value(image) not in (0, DEEP_WHITE)


def deep_values(path: Path, image: Image.Image) -> NDArray[np.float32]:
    """Return the values as they are in the file, ``(1 or 3, H, W)``; transparency is dropped."""
    if image.format == "PNG" and not image.mode.startswith("I"):
        from torchvision.io import decode_png, read_file  # imported late: slow

        planes: NDArray[np.float32] = decode_png(read_file(str(path))).numpy().astype(np.float32)
        return planes[: len(planes) - 1 if len(planes) in (2, 4) else None]
    return np.asarray(image).astype(np.float32)[None]


def in_channels(planes: NDArray[np.float32], grey: bool) -> NDArray[np.float32]:
    """Return one channel or three."""
    if grey:
        return planes if len(planes) == 1 else np.einsum("c,chw->hw", LUMA, planes)[None]
    return np.broadcast_to(planes, (3, *planes.shape[1:]))


def _raw_mode(image: Image.Image) -> tuple[Any, ...]:
    """Return what Pillow tells its decoder: the layout of the file's values, and more for some formats."""
    tiles: Any = getattr(image, "tile", None)
    if not tiles:
        return ("",)
    arguments = tiles[0][3]
    return arguments if isinstance(arguments, tuple) else (str(arguments),)


def _largest_value(image: Image.Image) -> int:
    numbers = [part for part in _raw_mode(image)[1:] if isinstance(part, int)]
    return max(numbers, default=0)


def _unreadable(path: Path) -> DataError:
    return DataError(
        f"The image {path} holds 16-bit colour, of which Pillow keeps 8 bits in this format. Convert it to PNG, whose "
        "16 bits are read."
    )
