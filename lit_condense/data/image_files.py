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

from lit_condense.errors import DataError

Size = tuple[int, int]
"""Height and width."""

# the endings that torchvision.datasets.ImageFolder takes
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")
UNSCALED_MODES = ("I", "F")  # 32-bit values without a stated range: no way to map them to 8 bits
FILES_PER_TASK = 256  # decoding a thumbnail costs less than handing it to a thread
THREADS = 8

Result = TypeVar("Result")


@dataclass(frozen=True)
class Headers:
    """The sizes and modes of some image files.

    Args:
        paths: The files.
        sizes: Height and width of each.
        modes: Pillow's mode of each.
    """

    paths: Sequence[Path]
    sizes: Sequence[Size]
    modes: Sequence[str]

    @property
    def all_grey(self) -> bool:
        """Whether every file has a single channel (besides transparency)."""
        return all(mode in GREY_MODES for mode in self.modes)

    def common_size(self, remedy: str) -> Size:
        """Return the size that all files share.

        Raises:
            DataError: Two files differ; the message names them and ends with ``remedy``.
        """
        for path, size in zip(self.paths, self.sizes, strict=True):
            if size != self.sizes[0]:
                raise DataError(
                    f"Images must all have one size, but {self.paths[0]} is {_text(self.sizes[0])} and {path} is "
                    f"{_text(size)} (height x width); {remedy}."
                )
        return self.sizes[0]


def list_images(folder: Path) -> list[Path]:
    """Return the image files below a class folder, sorted by path; hidden ones are skipped.

    Raises:
        DataError: There are none.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS and not _hidden(file, folder))
    if not files:
        raise DataError(
            f"The class folder {folder.resolve()} has no images (files ending in {', '.join(ENDINGS)}). "
            "Add images or remove the folder from both splits."
        )
    return files


def read_headers(paths: Sequence[Path]) -> Headers:
    """Read sizes and modes without decoding.

    Raises:
        DataError: A file is no image, or holds 32-bit values.
    """
    found = _for_each(paths, _read_header)
    return Headers(paths, [size for size, _ in found], [mode for _, mode in found])


def read_images(paths: Sequence[Path], size: Size, grey: bool) -> Tensor:
    """Decode files, scale and centre-crop those that do not have ``size``.

    Args:
        paths: One or more files.
        size: Height and width.
        grey: One channel instead of three (red, green, blue).

    Returns:
        ``(N, C, H, W)`` uint8 in the order of ``paths``.

    Raises:
        DataError: A file cannot be decoded; the message names it.
    """
    images = np.empty((len(paths), 1 if grey else 3, *size), dtype=np.uint8)

    def fill(index: int) -> None:
        images[index] = _decode(paths[index], size, grey)

    _for_each(range(len(paths)), fill)
    return torch.from_numpy(images)


def _for_each(items: Sequence[Any], task: Callable[[Any], Result]) -> list[Result]:
    parts = [items[start : start + FILES_PER_TASK] for start in range(0, len(items), FILES_PER_TASK)]
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        return [result for part in pool.map(lambda part: [task(item) for item in part], parts) for result in part]


def _read_header(path: Path) -> tuple[Size, str]:
    try:
        with Image.open(path) as image:
            found = (image.height, image.width), image.mode
    except Exception as error:  # a decoder raises nearly anything when a file is broken
        raise DataError(f"Cannot read the image {path}: {error}. Repair or remove it.") from error
    if found[1] in UNSCALED_MODES:
        raise DataError(f"The image {path} holds 32-bit values (Pillow mode {found[1]}). Convert it to 8 or 16 bits.")
    return found


def _decode(path: Path, size: Size, grey: bool) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(_fitted(_converted(image, grey), size))
    except Exception as error:
        raise DataError(f"Cannot read the image {path}: {error}. Repair or remove it.") from error
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _converted(image: Image.Image, grey: bool) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 255 instead of scaling them
        image = Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    return image.convert("L" if grey else "RGB")


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


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
