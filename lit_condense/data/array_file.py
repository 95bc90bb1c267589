"""Images and labels kept as arrays in one file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_condense.data.levels import check_white_level, in_unit_range
from lit_condense.data.module import CondenseDataModule, NormalizationChoice, Splits
from lit_condense.data.normalization import Normalization
from lit_condense.errors import DataError, SettingsError, check_choice

KEYS = ("train_images", "train_labels", "test_images", "test_labels")
CHANNEL_COUNTS = (1, 3)  # what the automatic rule takes for a channel axis
Layout = Literal["auto", "NCHW", "NHWC"]
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""Version of NumPy's array files -> what reads shape and type."""


class ArrayFile(CondenseDataModule):
    """Serve the arrays of one ``.npz`` or ``.safetensors`` file; nothing is ever unpickled.

    The file holds ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``; other entries are ignored.
    Images are uint8, or floating point in [0, 1], or of any number type with a ``white_level``; labels are whole
    numbers from 0, of shape ``(N,)`` or ``(N, 1)``.

    Args:
        path: The file, ending in ``.npz`` or ``.safetensors``.
        layout: Where the channel axis of four-dimensional images is. "auto" takes the axis (second or last) that is 1
            or 3 long and refuses to guess when both or neither are. Three-dimensional images ``(N, H, W)`` are grey.
        label_names: One name a class; by default "0", "1", ... up to the largest training label.
        name: The dataset's name, under which normalisation constants are looked up. The file's name by default.
        normalization: As for every data module; measured by default.
        classes: As for every data module.
        train_limit_per_class: As for every data module.
        held_out: As for every data module.
        white_level: The value that is white, for instance 4095 for 12-bit values in uint16 arrays. Images are divided
            by it and kept as floating point: no level is lost.

    Raises:
        SettingsError: A setting is out of range.
    """

    def __init__(
        self,
        path: str,
        layout: Layout = "auto",
        *,
        label_names: list[str] | None = None,
        name: str | None = None,
        normalization: NormalizationChoice | Normalization = "measured",
        classes: list[int] | None = None,
        train_limit_per_class: int | None = None,
        held_out: float = 0.0,
        white_level: float | None = None,
    ) -> None:
        self.path = path
        self.layout = layout
        self.label_names = label_names
        self.name = name
        self.white_level = white_level
        super().__init__(normalization, classes, train_limit_per_class=train_limit_per_class, held_out=held_out)
        check_white_level(white_level)
        if Path(path).suffix not in (".npz", ".safetensors"):
            raise SettingsError(f"Expected `path` to end in .npz or .safetensors but got '{path}'.")
        check_choice("ArrayFile.layout", layout, Layout)

    @property
    def dataset_name(self) -> str:
        """``name``, or else the file's name without its ending."""
        return self.name if self.name is not None else Path(self.path).stem

    def load(self) -> Splits:
        """Read the four arrays.

        Raises:
            DataError: The file or an entry is missing, or its shape is not understood.
        """
        arrays = _read(Path(self.path))
        missing = [key for key in KEYS if key not in arrays]
        if missing:
            held = ", ".join(f"{name} {shape}" for name, shape in _held(Path(self.path)).items())
            raise DataError(
                f"{self.path} has no {', '.join(missing)}; it needs {', '.join(KEYS)}, and holds {held or 'nothing'}. "
                "Write it with these names."
            )
        train_labels, test_labels = (_flat_labels(arrays[key], key) for key in ("train_labels", "test_labels"))
        train_images, test_images = (self._images(arrays[key], key) for key in ("train_images", "test_images"))
        names = self._names(train_labels)
        return Splits(train_images, train_labels, test_images, test_labels, names, self.white_level)

    def _images(self, images: Tensor, key: str) -> Tensor:
        ordered = _channels_first(images, key, self.layout)
        if self.white_level is not None and not images.is_complex():
            return in_unit_range(ordered, self.white_level, f"`{key}`")
        if images.dtype != torch.uint8 and not images.is_floating_point() and not images.is_complex():
            raise DataError(
                f"Expected `{key}` as uint8, or floating point in [0, 1], but got {images.dtype}. State the value that "
                "is white as `white_level`, for instance 4095 for 12-bit images."
            )
        return ordered

    def _names(self, train_labels: Tensor) -> tuple[str, ...]:
        if self.label_names is not None:
            return tuple(self.label_names)
        return tuple(str(label) for label in range(int(train_labels.max()) + 1)) if len(train_labels) else ()


def _held(path: Path) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of all that a readable file holds."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as tensors:
            return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    found = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:  # headers alone: arrays may be large
                header = HEADERS[np.lib.format.read_magic(file)]
                found[member.removesuffix(".npy")] = header(file)[0]
    return found


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DataError(f"There is no file {path.resolve()}. Point `path` at the .npz or .safetensors file.")
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_npz(path)
    except Exception as error:  # a reader raises nearly anything when a file is broken
        raise DataError(f"Cannot read {path}: {error}. It must hold plain number arrays, no Python objects.") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in KEYS if key in file.keys()}  # noqa: SIM118 - it is no mapping


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as file:
        return {key: torch.from_numpy(_native(file[key])) for key in KEYS if key in file}


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array in this machine's byte order: torch refuses the other."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _flat_labels(labels: Tensor, key: str) -> Tensor:
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() != 1:
        raise DataError(f"Expected `{key}` of shape (N,) or (N, 1) but got {tuple(labels.shape)}.")
    is_number = not labels.is_floating_point() and labels.dtype != torch.bool
    return labels.to(torch.int64) if is_number else labels


def _channels_first(images: Tensor, key: str, layout: Layout) -> Tensor:
    if images.dim() == 3:
        return images.unsqueeze(1)
    if images.dim() != 4:
        raise DataError(
            f"Expected `{key}` of shape (N, H, W), (N, H, W, C) or (N, C, H, W) but got {tuple(images.shape)}."
        )
    if layout == "auto":
        layout = _guessed_layout(tuple(images.shape), key)
    return images if layout == "NCHW" else images.permute(0, 3, 1, 2)


def _guessed_layout(shape: tuple[int, ...], key: str) -> Layout:
    second, last = shape[1] in CHANNEL_COUNTS, shape[3] in CHANNEL_COUNTS
    if second == last:
        raise DataError(
            f"Cannot tell the channel axis of `{key}` from its shape {shape}. Set `layout` to NCHW or NHWC."
        )
    return "NCHW" if second else "NHWC"
