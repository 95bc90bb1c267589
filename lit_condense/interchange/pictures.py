"""Sets that are kept as image files: a folder for each class, or one folder with metadata (Hugging Face).

Classes are matched by the names of their folders, never by alphabetical order alone: where a name is a number, or
begins with one, it is the label.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_condense.data.image_files import read_headers, read_images
from lit_condense.data.image_tree import ENDINGS
from lit_condense.data.names import in_one_form
from lit_condense.errors import ExportError
from lit_condense.export.images import NAMES_FILE
from lit_condense.interchange.given import PIXEL, Found, Packing

SPLIT = "train"
METADATA = ("metadata.jsonl", "metadata.csv")
FILE_COLUMN, LABEL_COLUMNS = "file_name", ("label", "labels", "class")
NUMBERED = re.compile(r"(?:new|class)?(\d+)(?:_(.*))?")
"""``00003_cat`` (this program), ``new007`` (SRe2L), ``00007`` (RDED)."""


def read_folder(folder: Path) -> Found:
    """Return the set in a folder of images.

    Raises:
        ExportError: It holds no images that belong to classes, or a file cannot be read.
    """
    root = folder / SPLIT if (folder / SPLIT).is_dir() else folder
    metadata = next((root / name for name in METADATA if (root / name).is_file()), None)
    if metadata is not None:
        return _with_metadata(root, metadata)
    classes = sorted(one.name for one in root.iterdir() if one.is_dir() and not one.name.startswith("."))
    files = {name: _images_in(root / name) for name in classes}
    empty = [name for name, found in files.items() if not found]
    if not classes or empty:
        raise ExportError(
            f"Expected a folder of images for each class in {root}, or {' or '.join(METADATA)}, found "
            f"{'none' if not classes else f'no image in {empty[0]}'}."
        )
    numbers, names = _numbered(classes)
    labels = [number for number, name in zip(numbers, classes, strict=True) for _ in files[name]]
    paths = [path for name in classes for path in files[name]]
    written = root / NAMES_FILE
    if written.is_file() and numbers == list(range(len(classes))) and names != in_one_form(classes):
        names = _written(written) or names
    return _found(paths, torch.tensor(labels), names, root)


def _written(file: Path) -> tuple[str, ...] | None:
    """Return the class names as this program wrote them beside numbered folders, which may not keep every letter."""
    try:
        names = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return in_one_form(names) if known else None


def _numbered(folders: Sequence[str]) -> tuple[list[int], tuple[str, ...] | None]:
    """Return the label of each class folder, and the names of the classes where the folders say them."""
    matches = [NUMBERED.fullmatch(name) for name in folders]
    if not all(matches):
        return list(range(len(folders))), in_one_form(folders)
    numbers = [int(match[1]) for match in matches if match]
    said = [match[2] for match in matches if match]
    whole = numbers == list(range(len(folders))) and all(said)
    return numbers, in_one_form(map(str, said)) if whole else None


def _with_metadata(root: Path, metadata: Path) -> Found:
    rows = _rows(metadata)
    label = next((column for column in LABEL_COLUMNS if rows and column in rows[0]), None)
    if not rows or label is None or any(FILE_COLUMN not in row or label not in row for row in rows):
        raise ExportError(
            f"Expected rows with {FILE_COLUMN} and one of {', '.join(LABEL_COLUMNS)} in {metadata}, got "
            f"{', '.join(rows[0]) if rows else 'no rows'}."
        )
    said = [str(row[label]) for row in rows]
    numbers = all(text.isdigit() for text in said)
    names = None if numbers else in_one_form(sorted(set(said)))
    labels = [int(text) for text in said] if numbers else [(names or ()).index(in_one_form([text])[0]) for text in said]
    paths = [root / str(row[FILE_COLUMN]) for row in rows]
    outside = [path for path in paths if root.resolve() not in path.resolve().parents]
    if outside:
        raise ExportError(f"Expected files below {root} in {metadata}, got {outside[0]}.")
    return _found(paths, torch.tensor(labels), names, root)


def _rows(metadata: Path) -> list[dict[str, Any]]:
    text = metadata.read_text(encoding="utf-8")
    try:
        if metadata.suffix == ".csv":
            return list(csv.DictReader(text.splitlines()))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (json.JSONDecodeError, csv.Error) as error:
        raise ExportError(f"Expected one JSON object a line in {metadata} ({error}).") from error


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())


def _found(paths: Sequence[Path], labels: Tensor, names: tuple[str, ...] | None, root: Path) -> Found:
    headers = read_headers(paths)
    if headers.any_deep:
        raise ExportError(f"Expected images of 8 bits in {root}, got some of 16. Convert them, or write an .npz.")
    size = headers.common_size("condensed images of several sizes are no set")
    images = read_images(paths, size, headers.all_grey).float() / 255
    notes = ("values were rounded to 8 bits when the images were written",)
    return Found("image-folder", images, labels, (root,), (PIXEL,), (Packing(),), class_names=names, notes=notes)
