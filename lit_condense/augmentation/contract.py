"""What an augmentation of one's own must draw and return."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_condense.augmentation.base import OPERATIONS, Augmentation
from lit_condense.errors import SettingsError, check_same_kind, described


def applied(augmentation: Augmentation, images: Tensor, draw: Any) -> Tensor:
    """Return augmented images, as many and of the same kind as before."""
    owner = type(augmentation).__name__
    own_draw = type(augmentation).apply is Augmentation.apply
    if own_draw and not _is_draw(draw):
        raise SettingsError(
            f"Expected {owner}.draw to return a dict from names of operations to tuples of tensors, got "
            f"{described(draw)}. Return such a dict, or define apply for what it returns."
        )
    if own_draw and (unknown := sorted(map(str, draw.keys() - OPERATIONS.keys()))):
        raise SettingsError(f"Expected {owner}.draw to name some of {sorted(OPERATIONS)}, got {unknown}.")
    found = augmentation.apply(images, draw)
    check_same_kind(f"{owner}.apply", found, tuple(images.shape), images)
    return found


def _is_draw(draw: Any) -> bool:
    if not isinstance(draw, dict) or not all(isinstance(values, tuple) for values in draw.values()):
        return False
    return all(isinstance(v, Tensor) and v.ndim > 0 for values in draw.values() for v in values)
