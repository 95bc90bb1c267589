"""Tiny real files for the data tests: image folders, IDX files and the original archives' inner files."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    """Whole numbers from 0 to 255 as uint8."""
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, shape, dtype=np.uint8)


def write_image(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    """Write (H, W) grey or (H, W, 3) colour pixels; the ending decides the format, ``mode`` a conversion before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, lossless=True)
    return path


def write_image_folder(
    root: Path,
    counts: dict[str, int],
    size: tuple[int, int] = (6, 8),
    channels: int = 3,
    ending: str = ".png",
    test_count: int = 1,
) -> Path:
    """Write ``root/train/<class>/`` with ``counts`` images a class and ``root/test/<class>/`` with ``test_count``."""
    for split in ("train", "test"):
        for number, (name, count) in enumerate(counts.items()):
            for index in range(count if split == "train" else test_count):
                seed = 1000 * number + 2 * index + (split == "test")
                pixels = random_pixels(*size, channels, seed=seed)
                write_image(root / split / name / f"{index:03d}{ending}", pixels if channels == 3 else pixels[..., 0])
    return root


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write the IDX format of MNIST: two zero bytes, type 8 (unsigned byte), the axes, big-endian sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(raw: Path, train: int = 20, test: int = 10) -> dict[str, np.ndarray]:
    """Write MNIST's four files into ``raw``; labels go round 0, 1, ..., 9. Returns what was written."""
    written = {}
    for number, (prefix, count) in enumerate((("train", train), ("t10k", test))):
        written[f"{prefix}_images"] = random_pixels(count, 28, 28, seed=number)
        written[f"{prefix}_labels"] = np.arange(count, dtype=np.uint8) % 10
        write_idx(raw / f"{prefix}-images-idx3-ubyte", written[f"{prefix}_images"])
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", written[f"{prefix}_labels"])
    return written


def write_pickle(path: Path, content: dict[str, object]) -> str:
    """Write one inner file of the CIFAR archives; returns its MD5, which torchvision compares before reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()
