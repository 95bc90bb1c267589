"""The condensed set as pictures: pages to look at, and a folder that ``torchvision.datasets.ImageFolder`` reads."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from lit_condense.errors import ExportError
from lit_condense.export.condensed_set import CARD_NAME, FILE_NAME, CondensedSet
from lit_condense.export.figure import PICTURE_CHANNELS, image_pages
from lit_condense.runs.files import write_atomically
from lit_condense.runs.ownership import PICTURE_MARK, check_replaceable, is_our_card, is_our_picture, is_our_set

GRID_NAME = "grid.png"
NAMES_FILE = "classes.json"
LONGEST_NAME = 80
"""Letters of a class name in a folder's; file systems take 255 bytes or less."""


def write_grid(path: Path, images: Tensor, labels: Tensor, class_names: Sequence[str] | None = None) -> list[Path]:
    """Write the pages of a set as PNG: ``path``, and ``<stem>_2.png`` and so on where there are more.

    Pages of before that are not written anew are removed.

    Raises:
        ExportError: One cannot be written, or a picture stands there that this program did not write.
    """
    pages = image_pages(images, labels, class_names)
    paths = [path, *(_page_path(path, number) for number in range(2, len(pages) + 1))]
    for one in paths:
        check_replaceable(one, is_our_picture)
    for one, page in zip(paths, pages, strict=True):
        write_atomically(one, _png(page))
    number = len(pages) + 1
    while (old := _page_path(path, number)).is_file() and is_our_picture(old):
        old.unlink()
        number += 1
    return paths


def _page_path(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}_{number}{path.suffix}")


def check_set_replaceable(folder: Path) -> None:
    """Refuse a folder in which files that this program did not write have the names of a set's.

    Raises:
        ExportError: There is one.
    """
    names = {FILE_NAME: is_our_set, CARD_NAME: is_our_card, GRID_NAME: is_our_picture}
    for name, ours in names.items():
        check_replaceable(folder / name, ours)


def write_image_folder(folder: str | Path, condensed: CondensedSet) -> Path:
    """Write one PNG an image as ``<class index, padded>_<class name>/<image, padded>.png``.

    ``ImageFolder`` numbers classes in the order of their folder names: the padded index in front keeps the labels.
    A file system does not keep every letter of a name: ``classes.json`` holds the names as they are, in the order of
    the labels. PNG holds 8 bits in [0, 1]: values are clamped and rounded, which loses information.

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
    names = _all_names(condensed)
    for c, class_folder in enumerate(class_folders(names)):
        for position, image in enumerate(condensed.images[condensed.labels == c]):
            write_atomically(Path(folder) / class_folder / f"{position:05d}.png", _png(image))
    write_atomically(Path(folder) / NAMES_FILE, (json.dumps(names, indent=2) + "\n").encode())
    return Path(folder)


def class_folders(names: Sequence[str]) -> list[str]:
    """Return folder names that every file system takes, whose alphabetical order is the order of the labels."""
    digits = max(5, len(str(len(names) - 1)))
    return [f"{c:0{digits}d}_{re.sub('[^0-9A-Za-z-]+', '_', name)[:LONGEST_NAME]}" for c, name in enumerate(names)]


def _all_names(condensed: CondensedSet) -> list[str]:
    names = condensed.card.get("data", {}).get("class_names", [])
    return [str(names[c]) if c < len(names) else str(c) for c in range(int(condensed.labels.max()) + 1)]


def _png(image: Tensor) -> bytes:
    buffer, mark = io.BytesIO(), PngInfo()
    mark.add_text(*PICTURE_MARK)
    to_pil_image(image.clamp(0, 1).mul(255).round().to(torch.uint8).cpu()).save(buffer, format="PNG", pnginfo=mark)
    return buffer.getvalue()
