"""How many images a set has, and whether it fits the data."""

from __future__ import annotations

from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.errors import DataError, SettingsError


def images_per_class(ipc: int | list[int]) -> int | list[int]:
    """Return ``ipc`` if it is one whole number above 0, or a list of them."""
    numbers = ipc if isinstance(ipc, list) else [ipc]
    if not numbers or any(number < 1 for number in numbers):
        raise SettingsError(f"Expected ipc to be 1 or more images for every class, got {ipc}.")
    return ipc


def counts_of(ipc: int | list[int], real: RealImages) -> list[int]:
    """Return the images of each class."""
    if isinstance(ipc, int):
        return [ipc] * real.num_classes
    if len(ipc) != real.num_classes:
        raise SettingsError(
            f"Expected ipc to be one number or one for each of the {real.num_classes} classes, got {len(ipc)} numbers."
        )
    return ipc


def check_enough_classes(real: RealImages) -> None:
    """Refuse data without anything to tell apart."""
    if real.num_classes < 2:
        raise DataError(f"Expected images of 2 or more classes, the data have {real.num_classes}. Use more classes.")


def check_fits(images: Tensor, labels: Tensor, real: RealImages) -> None:
    """Refuse a set (from a checkpoint) that belongs to other data, and data without anything to tell apart."""
    check_enough_classes(real)
    if tuple(images.shape[1:]) != real.image_shape or int(labels.max()) >= real.num_classes:
        raise DataError(
            f"The set holds images {tuple(images.shape[1:])} of {int(labels.max()) + 1} classes, the data have "
            f"{real.image_shape} and {real.num_classes}. Use the data that the set was condensed from."
        )
