"""Reading PyTorch files of unknown origin: tensors, numbers and containers of them, and nothing is ever run.

Most published programs write with ``torch.save``, some of them NumPy numbers among the tensors, and IDM a plain pickle.
"""

from __future__ import annotations

import collections
import io
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar  # the one that pickles name; NumPy has no public name for it
from torch import Tensor

from lit_condense.errors import ExportError, first_line
from lit_condense.export.condensed_set import LARGEST_FILE

NUMBER_TYPES = (np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType, np.dtypes.Int32DType)
NUMBERS: list[Any] = [
    *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),  # NumPy 1 and 2
    np.dtype,
    *NUMBER_TYPES,
    np.dtypes.BoolDType,
]
"""What a file may name beside tensors: constructors of single numbers."""

NAMED_BY_TORCH = re.compile(r"GLOBAL ([\w.]+)")
ZIP_START = b"PK\x03\x04"


def read_torch(path: Path) -> Any:
    """Return what a file of ``torch.save`` holds, on the CPU.

    Raises:
        ExportError: It is missing, too large, broken, or names anything but tensors, containers and numbers.
    """
    check_size(path)
    try:
        with torch.serialization.safe_globals(NUMBERS):
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a reader raises nearly anything when a file is broken
        raise ExportError(
            f"Expected tensors and plain numbers in {path}, written by torch.save; it cannot be read as such, and "
            f"nothing of it was run ({_why(path, error)}). Save its images and labels as tensors with the program that "
            "wrote it."
        ) from error


def read_pickle(path: Path) -> Any:
    """Return what a plain pickle of tensors holds, as IDM writes it.

    Raises:
        ExportError: It is missing, too large, broken, or names anything but tensors.
    """
    check_size(path)
    try:
        return _TensorsOnly(io.BytesIO(path.read_bytes())).load()
    except Exception as error:
        raise ExportError(
            f"Expected a pickle of tensors alone in {path}; it cannot be read as one, and nothing of it was run "
            f"({first_line(error)}). Save its images and labels with torch.save."
        ) from error


def tensors_in(content: Any) -> Iterator[Tensor]:
    """Go through all tensors of nested containers."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from tensors_in(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from tensors_in(value)


def check_tensors(content: Any, path: Path) -> None:
    """Refuse tensors that are not what they seem: they may be larger than their file, or hold no plain numbers.

    Raises:
        ExportError: One is.
    """
    for tensor in tensors_in(content):
        plain = tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_complex()
        if not plain or tensor.is_meta:
            raise ExportError(f"Expected plain real tensors in {path}, got one of {tensor.dtype}, {tensor.layout}.")
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise ExportError(
                f"Expected tensors that {path} holds in full, got one of shape {tuple(tensor.shape)} that repeats "
                f"{tensor.untyped_storage().nbytes()} bytes. Save it with .contiguous()."
            )


class _TensorsOnly(pickle.Unpickler):
    """Knows the three names of a pickled tensor; what a storage holds is read by ``torch.load``, weights only.

    A pickle can set attributes of what it is given: functions are handed out as new ones, which are nobody else's.
    """

    def find_class(self, module: str, name: str) -> Any:
        known: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor_v2": lambda *args: torch._utils._rebuild_tensor_v2(*args),  # type: ignore[no-untyped-call]
            "torch.storage._load_from_bytes": lambda data: torch.load(
                io.BytesIO(data), weights_only=True, map_location="cpu"
            ),
            "collections.OrderedDict": collections.OrderedDict,
        }
        if f"{module}.{name}" not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return known[f"{module}.{name}"]


def check_size(path: Path) -> None:
    """Refuse a file that is not there, broken off, or unpacks to more than is read.

    Raises:
        ExportError: It is.
    """
    if not path.is_file():
        raise ExportError(f"Expected a file at {path}, found none.")
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP_START)) == ZIP_START
    size = path.stat().st_size
    if is_zip:
        try:
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(member.file_size for member in archive.infolist()))
        except zipfile.BadZipFile as error:
            raise ExportError(f"Expected a whole file at {path}, it is broken off ({error}). Copy it again.") from error
    if size > LARGEST_FILE:
        raise ExportError(f"Expected at most {LARGEST_FILE} bytes, {path} unpacks to {size}. It is not read.")


def _why(path: Path, error: Exception) -> str:
    """Return the names that a file would have called, listed without calling them; torch's advice is never repeated.

    Its message for such files says how to run them.
    """
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an older kind of file
        named = NAMED_BY_TORCH.findall(str(error))
    pairs = [one if isinstance(one, tuple) else (one, f"{one.__module__}.{one.__qualname__}") for one in NUMBERS]
    foreign = sorted(set(named) - {name for _, name in pairs})
    if foreign:
        return f"it names {', '.join(foreign)}"
    return "it is broken" if isinstance(error, pickle.UnpicklingError) else first_line(error)
