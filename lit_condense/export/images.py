"""The condensed set as pictures: a grid to look at, and a folder that ``torchvision.datasets.ImageFolder`` reads."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from lit_condense.errors import ExportError
from lit_condense.export.condensed_set import CondensedSet
from lit_condense.export.files import write_atomically

GRID_COLUMNS = 10
PICTURE_CHANNELS = (1, 3)
SMALLEST_TILE = 32
"""Pixels of a tile's shorter side; smaller images are enlarged by a whole factor so that they can be seen."""


def image_grid(images: Tensor, labels: Tensor, classes: int | None = 10) -> Tensor:
    """Return a picture of a set: a row for each class, its first ten images as columns.

    Args:
        images: ``(n, C, H, W)`` in [0, 1]; what lies outside is clamped, on one fixed scale for all images. Neither
            one nor three channels are shown as their mean.
        labels: ``(n,)``.
        classes: Show only the first so many classes; ``None`` shows all.

    Returns:
        ``(3, rows, columns)`` in [0, 1].
    """
    if images.shape[1] not in PICTURE_CHANNELS:
        images = images.mean(1, keepdim=True)
    shown = [images[labels == c][:GRID_COLUMNS] for c in range(int(labels.max()) + 1)][:classes]
    columns = max(len(row) for row in shown)
    padded = [torch.cat([row, row.new_ones(columns - len(row), *row.shape[1:])]) for row in shown]
    tiles = torch.cat(padded).clamp(0, 1)
    enlarge = -(-SMALLEST_TILE // min(tiles.shape[-2:]))
    grid: Tensor = make_grid(F.interpolate(tiles, scale_factor=enlarge, mode="nearest"), nrow=columns, padding=2)
    return grid


def write_grid(path: Path, images: Tensor, labels: Tensor) -> Path:
    """Write the grid of all classes as PNG."""
    write_atomically(path, _png(image_grid(images, labels, classes=None)))
    return path


def write_image_folder(folder: str | Path, condensed: CondensedSet) -> Path:
    """Write one PNG an image as ``<class index, padded>_<class name>/<image, padded>.png``.

    ``ImageFolder`` numbers classes in the order of their folder names: the padded index in front keeps the labels.
    PNG holds 8 bits in [0, 1]: values are clamped and rounded, which loses information.

    Raises:
        ExportError: The images are neither grey nor colour, a class has none, or the folder holds something or cannot
            be written to.
    """
    if condensed.images.shape[1] not in PICTURE_CHANNELS:
        raise ExportError(
            f"Expected images of 1 or 3 channels to write as PNG, got {condensed.images.shape[1]}. "
            "Use the safetensors file itself."
        )
    if Path(folder).is_dir() and any(Path(folder).iterdir()):
        raise ExportError(f"Expected a new or empty folder, {folder} holds files that would mix with the set's.")
    missing = [c for c in range(int(condensed.labels.max()) + 1) if not bool((condensed.labels == c).any())]
    if missing:
        raise ExportError(
            f"Expected images of every class, there are none of {missing[:5]}: ImageFolder would number the others "
            "anew. Use the safetensors file itself, or a balanced selection."
        )
    names = condensed.card.get("data", {}).get("class_names", [])
    for c, class_folder in enumerate(class_folders(names, int(condensed.labels.max()) + 1)):
        for position, image in enumerate(condensed.images[condensed.labels == c]):
            write_atomically(Path(folder) / class_folder / f"{position:05d}.png", _png(image))
    return Path(folder)


def class_folders(names: Sequence[str], classes: int) -> list[str]:
    """Return folder names whose alphabetical order is the order of the labels."""
    given = [names[c] if c < len(names) else str(c) for c in range(classes)]
    return [f"{c:05d}_{re.sub('[^0-9A-Za-z-]+', '_', name)}" for c, name in enumerate(given)]


def _png(image: Tensor) -> bytes:
    buffer = io.BytesIO()
    to_pil_image(image.clamp(0, 1).mul(255).round().to(torch.uint8).cpu()).save(buffer, format="PNG")
    return buffer.getvalue()
