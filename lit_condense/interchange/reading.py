"""``read_set``: any condensed set as this program reads it, whoever wrote it."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lit_condense.errors import ExportError, first_line
from lit_condense.export.condensed_set import FILE_NAME
from lit_condense.interchange.given import Answers, Found, Given, answered
from lit_condense.interchange.own import read_own
from lit_condense.interchange.pictures import read_folder
from lit_condense.interchange.safe import check_size
from lit_condense.interchange.torch_files import labelled, read_file

TORCH = (".pt", ".pth", ".pkl")
PATTERNS = ("images_best.pt", "images.pt", "images_*.pt", "data.pt", "data*.pt", "res_*.pt", "*.npz")
"""Files that a folder is read for, the first that is there."""
NPZ_IMAGES, NPZ_LABELS = ("images", "x", "data"), ("labels", "y", "targets")


def read_set(path: str | Path, answers: Answers | None = None) -> Given:
    """Read a condensed set of any known layout; nothing is ever unpickled but tensors and numbers.

    Args:
        path: This program's folder or file, or another program's: ``res_*.pt`` (DC, DSA, DM, IDM), ``images_*.pt`` with
            ``labels_*.pt`` and ``lr_*.pt`` beside it (MTT, TESLA, FTD, DATM), ``data*.pt`` (IDC, DREAM, NCFM), the
            ECCV 2024 challenge's file, tensors, ``.npz``, a folder of images. See docs/interchange.md.
        answers: What files do not say.

    Raises:
        ExportError: It cannot be read safely, is of no known layout, or something is open that only its owner knows.
    """
    answers = answers or Answers()
    return answered(_found(Path(path), answers), answers)


def _found(path: Path, answers: Answers) -> Found:
    file = _file_in(path) if path.is_dir() else path
    if file.is_dir():
        return read_folder(file)
    if file.suffix in TORCH:
        return read_file(file, answers)
    if file.suffix == ".npz":
        return _read_npz(file)
    if file.suffix in (".tar", ".zip", ".gz"):
        raise ExportError(f"Expected a set, {file} is an archive. Unpack it first.")
    return read_own(path)


def _file_in(folder: Path) -> Path:
    """Return the file that a folder is read for, or the folder itself where images stand in it."""
    if (folder / FILE_NAME).is_file():
        return folder / FILE_NAME
    for pattern in PATTERNS:
        found = [path for path in sorted(folder.glob(pattern)) if "zca" not in path.stem]
        if len(found) > 1:
            raise ExportError(
                f"Expected one set in {folder}, there are {', '.join(path.name for path in found[:5])}. Give the file."
            )
        if found:
            return found[0]
    return folder


def _read_npz(path: Path) -> Found:
    """Return images and labels of a NumPy archive: channels first, or last where there are 1 or 3."""
    check_size(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: torch.from_numpy(file[name]) for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error, EOFError, TypeError) as error:
        raise ExportError(
            f"Expected plain arrays in {path}, it cannot be read as such ({first_line(error)})."
        ) from error
    names = [next((name for name in known if name in held), None) for known in (NPZ_IMAGES, NPZ_LABELS)]
    if names[0] is None:
        raise ExportError(
            f"Expected an array called {' or '.join(NPZ_IMAGES)} in {path}, it holds "
            f"{', '.join(f'{name} {tuple(one.shape)}' for name, one in held.items()) or 'nothing'}."
        )
    images = held[names[0]]
    if images.dim() == 3:
        images = images.unsqueeze(1)
    elif images.dim() == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.permute(0, 3, 1, 2)
    found = labelled("npz", images, held[names[1]] if names[1] else None, (path,), None)
    lr = held.get("inner_lr")
    return replace(
        found,
        soft_labels=held.get("soft_labels", found.soft_labels),
        weights=held.get("weights"),
        inner_lr=None if lr is None else float(lr),
    )
