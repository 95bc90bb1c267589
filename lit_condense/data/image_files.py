"""Read image files into one tensor, in parallel and in a fixed order.

Shapes: N images, C channels, H and W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lit_condense.data.deep_images import DEEP_WHITE, deep_mode, deep_values, in_channels, is_deep, states_white
from lit_condense.data.normalization import PIXEL_RANGE
from lit_condense.errors import DataError

Size = tuple[int, int]
"""Height and width."""

GREY_MODES = ("1", "L", "LA", "La")
UNSCALED_MODES = ("I", "F")  # 32-bit values without a stated range: no way to map them to 8 bits
ORIENTATION = 0x0112  # EXIF tag
FILES_PER_TASK = 256  # decoding a thumbnail costs less than handing it to a thread
THREADS = 8

Result = TypeVar("Result")


@dataclass(frozen=True)
class Header:
    """What one image file says of itself, read without decoding.

    Args:
        size: Height and width.
        mode: Pillow's mode of its 8-bit form.
        deep: Whether it holds 16 bits a value.
        notes: What is left out of it.
    """

    size: Size
    mode: str
    deep: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Headers:
    """The headers of some image files.

    Args:
        paths: The files.
        headers: One each.
    """

    paths: Sequence[Path]
    headers: Sequence[Header]

    @property
    def all_grey(self) -> bool:
        """Whether every file has a single channel (besides transparency)."""
        return all(header.mode in GREY_MODES for header in self.headers)

    @property
    def any_deep(self) -> bool:
        """Whether a file holds 16 bits a value."""
        return any(header.deep for header in self.headers)

    def sentences(self) -> list[str]:
        """Return what is left out of the files, one clause a kind, with an example."""
        where: dict[str, list[Path]] = {}
        for path, header in zip(self.paths, self.headers, strict=True):
            for note in header.notes:
                where.setdefault(note, []).append(path)
        return [f"{len(paths)} image(s) {note}, for instance {paths[0]}" for note, paths in where.items()]

    def common_size(self, remedy: str) -> Size:
        """Return the size that all files share.

        Raises:
            DataError: Two files differ; the message names them and ends with ``remedy``.
        """
        first = self.headers[0].size
        for path, header in zip(self.paths, self.headers, strict=True):
            if header.size != first:
                raise DataError(
                    f"Images must all have one size, but {self.paths[0]} is {_text(first)} and {path} is "
                    f"{_text(header.size)} (height x width); {remedy}."
                )
        return first


def read_headers(paths: Sequence[Path]) -> Headers:
    """Read sizes, modes and what is left out, without decoding.

    Raises:
        DataError: A file is no image, holds 32-bit values, or 16-bit ones that cannot be read whole.
    """
    return Headers(paths, _for_each(paths, _read_header))


def read_images(paths: Sequence[Path], size: Size, grey: bool, white_level: float | None = None) -> Tensor:
    """Decode files, scale and centre-crop those that do not have ``size``.

    Args:
        paths: One or more files.
        size: Height and width.
        grey: One channel instead of three (red, green, blue).
        white_level: The value that is white in files of 16 bits; None where there are no such files.

    Returns:
        ``(N, C, H, W)`` in the order of ``paths``: uint8, or with a ``white_level`` float32 in [0, 1].

    Raises:
        DataError: A file cannot be decoded, or holds values above ``white_level``; the message names it.
    """
    dtype = np.uint8 if white_level is None else np.float32
    images = np.empty((len(paths), 1 if grey else 3, *size), dtype=dtype)

    def fill(index: int) -> None:
        images[index] = _decode(paths[index], size, grey, white_level)

    _for_each(range(len(paths)), fill)
    return torch.from_numpy(images)


def _for_each(items: Sequence[Any], task: Callable[[Any], Result]) -> list[Result]:
    parts = [items[start : start + FILES_PER_TASK] for start in range(0, len(items), FILES_PER_TASK)]
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        return [result for part in pool.map(lambda part: [task(item) for item in part], parts) for result in part]


def _read_header(path: Path) -> Header:
    try:
        with Image.open(path) as image:
            deep = is_deep(image, path)
            mode = deep_mode(image) if deep else image.mode
            found = Header((image.height, image.width), mode, deep, _left_out(image))
    except DataError:
        raise
    except Exception as error:  # a decoder raises nearly anything when a file is broken
        raise DataError(f"Cannot read the image {path}: {error}. Repair or remove it.") from error
    if mode in UNSCALED_MODES:
        raise DataError(f"The image {path} holds 32-bit values (Pillow mode {mode}). Convert it to 8 or 16 bits.")
    return found


def _left_out(image: Image.Image) -> tuple[str, ...]:
    """Return what of a file is not used, as torchvision does not use it either."""
    notes = []
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a camera's second picture is a preview
        notes.append("have several frames or pages, of which the first is taken")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        notes.append("have transparency, which is dropped")
    # Pillow turns TIFF files itself; for the others, what it has at hand: to look further it would decode a PNG
    known = "exif" in image.info and image.format != "TIFF"
    if known and image.getexif().get(ORIENTATION, 1) in range(2, 9):
        notes.append("are marked as turned or mirrored (EXIF), which is not undone")
    return tuple(notes)


def _decode(path: Path, size: Size, grey: bool, white_level: float | None) -> NDArray[Any]:
    try:
        with Image.open(path) as image:
            if white_level is not None and is_deep(image, path):
                return _decode_deep(path, image, size, grey, DEEP_WHITE if states_white(image) else white_level)
            pixels = np.asarray(_fitted(image.convert("L" if grey else "RGB"), size))
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"Cannot read the image {path}: {error}. Repair or remove it.") from error
    planes = pixels[None] if grey else pixels.transpose(2, 0, 1)
    return planes if white_level is None else planes / np.float32(PIXEL_RANGE)


def _decode_deep(path: Path, image: Image.Image, size: Size, grey: bool, white: float) -> NDArray[np.float32]:
    values = deep_values(path, image)
    if values.max() > white:
        raise DataError(
            f"The image {path} holds the value {values.max():g}, above the white level {white:g}. State the value that "
            "is white as `white_level`."
        )
    fitted = [np.asarray(_fitted(Image.fromarray(plane), size)) for plane in in_channels(values / white, grey)]
    return np.stack(fitted).clip(0, 1)  # scaling may miss the ends by rounding


def _fitted(image: Image.Image, size: Size) -> Image.Image:
    """Scale until ``size`` is covered, then cut out the centre; Pillow's reduction is antialiased."""
    height, width = size
    if (image.height, image.width) == size:
        return image
    scale = max(height / image.height, width / image.width)
    covered = max(width, int(image.width * scale)), max(height, int(image.height * scale))
    left, top = (covered[0] - width) // 2, (covered[1] - height) // 2
    resized = image.resize(covered, Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + width, top + height))


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
