"""The condensed set as a file: one safetensors file that carries its card, and the card once more as JSON beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.transforms.functional import to_pil_image

from lit_condense.errors import ExportError
from lit_condense.export.belonging import check_card
from lit_condense.export.figure import image_pages
from lit_condense.export.wording import in_three_lines
from lit_condense.runs.files import write_atomically
from lit_condense.runs.ownership import check_replaceable, is_our_card, is_our_set

FILE_NAME = "condensed.safetensors"
CARD_NAME = "card.json"
FORMAT_VERSION = 1
LARGEST_FILE = 32 * 2**30
"""Bytes above which a file is refused before it is read."""

SHIPPED = Path(__file__).resolve().parents[2] / "results"
"""Where a checkout of this project keeps the sets behind its tables."""

REQUIRED = ("images", "labels")
OPTIONAL = ("stored", "soft_labels", "weights", "inner_lr", "averaged")
HALVED = ("images", "stored", "averaged")
"""Tensors that may be kept in half precision."""


@dataclass(frozen=True)
class CondensedSet:
    """A small training set with its card; unpacks to ``images, labels, card``."""

    images: Tensor
    """``(n, C, H, W)`` float32 in [0, 1] pixel space; values outside are legal and counted in the card."""
    labels: Tensor
    """``(n,)`` int64."""
    card: dict[str, Any]
    soft_labels: Tensor | None = None
    """``(n, classes)`` float32, where the labels were learned."""
    weights: Tensor | None = None
    """``(n,)`` float32, where images count differently (weighted selection)."""
    inner_lr: float | None = None
    """Learning rate to train with, where it was learned."""
    stored: Tensor | None = None
    """The raw parameter, where it is not simply the images."""
    averaged: Tensor | None = None
    """The average of the images over the updates, as ``images``, where one was kept."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.images, self.labels, self.card))

    def __repr__(self) -> str:
        return in_three_lines(self)

    def dataset(self) -> TensorDataset:
        """Return images in [0, 1] with labels, or with soft labels where the set has them, for a ``DataLoader``."""
        return TensorDataset(self.images, self.labels if self.soft_labels is None else self.soft_labels)

    def plot(self) -> Image.Image:
        """Return the first page of the set as a picture, which a notebook shows."""
        data = self.card.get("data")
        names = data.get("class_names") if isinstance(data, dict) else None
        picture: Image.Image = to_pil_image(image_pages(self.images, self.labels, names)[0])
        return picture

    def save(self, folder: str | Path, half: bool = False) -> dict[str, Path]:
        """Write the set; see :func:`save_condensed`."""
        return save_condensed(folder, self, half)


def save_condensed(folder: str | Path, condensed: CondensedSet, half: bool = False) -> dict[str, Path]:
    """Write ``condensed.safetensors`` and ``card.json`` into ``folder``, each atomically.

    Args:
        folder: Where to.
        condensed: The set.
        half: Keep the images in half precision: half the size, each value off by at most a 2,048th of itself, an eighth
            of a step of 8-bit images.

    Returns:
        Name -> path of what was written.

    Raises:
        ExportError: The set is not one that could be read back, the folder cannot be written to, or something of
            these names stands there that this program did not write.
    """
    tensors = _tensors_of(condensed)
    if half:
        tensors |= {name: tensors[name].half() for name in HALVED if name in tensors}
    _check_tensors(tensors, Path(folder) / FILE_NAME)
    check_card(condensed, Path(folder) / FILE_NAME)
    card = {**condensed.card, "format_version": FORMAT_VERSION, "sha256": tensors_sha256(tensors)}
    text = json.dumps(card, indent=2, sort_keys=False)
    paths = {FILE_NAME: Path(folder) / FILE_NAME, CARD_NAME: Path(folder) / CARD_NAME}
    check_replaceable(paths[FILE_NAME], is_our_set)
    check_replaceable(paths[CARD_NAME], is_our_card)
    write_atomically(paths[FILE_NAME], save(tensors, metadata={"card": text}))
    write_atomically(paths[CARD_NAME], (text + "\n").encode())
    return paths


def load_condensed(path: str | Path) -> CondensedSet:
    """Read a condensed set; nothing is ever unpickled.

    Args:
        path: The safetensors file, the folder that holds ``condensed.safetensors``, or, in a checkout of this project,
            the name of a set below ``results/``, for instance ``dc_mnist_ipc1``.

    Raises:
        ExportError: The file is missing, broken, foreign or too large, or does not match its card's SHA-256.
    """
    file = _file_of(Path(path))
    tensors, card = _read(file)
    _check_tensors(tensors, file)
    digest = tensors_sha256(tensors)
    _check_digest(card, digest, f"the card inside {file}")
    beside = file.parent / CARD_NAME
    if file.name == FILE_NAME and beside.exists():
        _check_digest(_parse(beside.read_bytes(), beside), digest, str(beside))
    learned_lr = tensors.get("inner_lr")
    read = CondensedSet(
        images=tensors["images"].float(),
        labels=tensors["labels"],
        card=card,
        soft_labels=tensors.get("soft_labels"),
        weights=tensors.get("weights"),
        inner_lr=None if learned_lr is None else float(learned_lr),
        stored=tensors["stored"].float() if "stored" in tensors else None,
        averaged=tensors["averaged"].float() if "averaged" in tensors else None,
    )
    check_card(read, file)
    return read


def shipped() -> list[str]:
    """Return the names of the sets that this checkout ships; none where the project was installed without it."""
    return sorted(file.parent.relative_to(SHIPPED).as_posix() for file in SHIPPED.glob(f"**/{FILE_NAME}"))


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of the tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors_of(condensed: CondensedSet) -> dict[str, Tensor]:
    given = {
        "images": condensed.images,
        "labels": condensed.labels,
        "soft_labels": condensed.soft_labels,
        "weights": condensed.weights,
        "stored": condensed.stored,
        "averaged": condensed.averaged,
        "inner_lr": None if condensed.inner_lr is None else torch.tensor(condensed.inner_lr),
    }
    kept = {
        name: t.to(torch.int64 if name == "labels" else torch.float32) for name, t in given.items() if t is not None
    }
    # safetensors wants dense tensors that share no memory
    return {name: t.detach().cpu().contiguous().clone() for name, t in kept.items()}


def _file_of(path: Path) -> Path:
    """Return the file that a path or the name of a shipped set means; what stands at the path itself comes first."""
    if path.exists() or path.is_absolute():
        return path / FILE_NAME if path.is_dir() else path
    by_name = SHIPPED / path / FILE_NAME
    return by_name if ".." not in path.parts and by_name.is_file() else path


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not file.is_file():
        raise ExportError(
            f"Expected a condensed set at {file}, found no file. Give the .safetensors file, its folder, or the name "
            f"of a set that the project ships ({len(shipped())} below {SHIPPED})."
        )
    if file.stat().st_size > LARGEST_FILE:
        raise ExportError(f"Expected at most {LARGEST_FILE} bytes, {file} has {file.stat().st_size}. It is not read.")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            unknown = [name for name in opened.keys() if name not in REQUIRED + OPTIONAL]  # noqa: SIM118 - no mapping
            if unknown:
                raise ExportError(f"Expected the tensors {REQUIRED + OPTIONAL}, {file} also holds {unknown}.")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ExportError(
            f"Expected a safetensors file, {file} cannot be read as one ({error}). Export the set again."
        ) from error
    if "card" not in metadata:
        raise ExportError(f"Expected a card in the metadata of {file}, found none. Was it written by lit_condense?")
    return tensors, _parse(metadata["card"], file)


def _parse(text: str | bytes, where: Path) -> dict[str, Any]:
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
        raise ExportError(f"Expected a JSON card in {where}, got text that is none ({error}).") from error
    if not isinstance(card, dict) or card.get("format_version") != FORMAT_VERSION:
        raise ExportError(
            f"Expected a card of format version {FORMAT_VERSION} in {where}; use the version that wrote it."
        )
    return card


def _check_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    missing = [name for name in REQUIRED if name not in tensors]
    if missing:
        raise ExportError(f"Expected the tensors {REQUIRED} in {file}, it lacks {missing}.")
    images, labels = tensors["images"], tensors["labels"]
    fits = images.dtype in (torch.float32, torch.float16) and images.ndim == 4 and labels.dtype == torch.int64
    if not fits or labels.shape != images.shape[:1]:
        raise ExportError(
            f"Expected float32 images (n, C, H, W) and int64 labels (n,) in {file}, got {images.dtype} "
            f"{tuple(images.shape)} and {labels.dtype} {tuple(labels.shape)}."
        )
    if len(labels) == 0 or int(labels.min()) < 0:
        raise ExportError(f"Expected one or more images with labels from 0 in {file}, got labels {labels.tolist()}.")
    shapes = {"soft_labels": (len(labels), -1), "weights": (len(labels),), "inner_lr": ()}
    for name, tensor in tensors.items():
        if name in shapes and not _has_shape(tensor, shapes[name]):
            raise ExportError(
                f"Expected float32 {name} {shapes[name]} in {file}, got {tensor.dtype} {tuple(tensor.shape)}."
            )
        if name == "averaged" and (tensor.shape, tensor.dtype) != (images.shape, images.dtype):
            raise ExportError(f"Expected averaged images like the images in {file}, got {tuple(tensor.shape)}.")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ExportError(f"Expected finite {name} in {file}, some are NaN or infinite.")


def _has_shape(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    same = [wanted in (-1, got) for wanted, got in zip(shape, tensor.shape, strict=False)]
    return tensor.dtype == torch.float32 and tensor.ndim == len(shape) and all(same)


def _check_digest(card: dict[str, Any], digest: str, where: str) -> None:
    if card.get("sha256") != digest:
        raise ExportError(
            f"The tensors have SHA-256 {digest}, {where} says {card.get('sha256')}: one of them was changed. "
            "Export the set again."
        )
