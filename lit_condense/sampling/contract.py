"""What a sampling of one's own must return."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.errors import SettingsError, described, is_count
from lit_condense.rng import RandomKey
from lit_condense.sampling.base import Sampling


def size(sampling: Sampling, real: RealImages, class_index: int) -> int:
    """Return how many real images of a class an update sees."""
    found: object = sampling.size(real, class_index)
    if not is_count(found):
        raise SettingsError(
            f"Expected {type(sampling).__name__}.size to return a whole number, 1 or more, got {found!r} for class "
            f"{class_index}."
        )
    return int(found)  # type: ignore[call-overload, no-any-return]


def selected(sampling: Sampling, found: Any, real: RealImages, class_index: int) -> Tensor:
    """Return the chosen real images of a class, if they are as many indices as the sampling announced."""
    wanted = sampling.size(real, class_index)
    if not isinstance(found, Tensor) or found.dtype != torch.int64 or tuple(found.shape) != (wanted,):
        raise SettingsError(
            f"Expected {type(sampling).__name__}.select to return {wanted} indices into the real images (as its size "
            f"says) as an int64 tensor of shape {(wanted,)}, got {described(found)}."
        )
    return found


def of_classes(sampling: Sampling, real: RealImages, key: RandomKey) -> None:
    """Refuse a sampling that chooses images of another class, or none at all; looks at every index.

    Args:
        sampling: The sampling.
        real: The real images.
        key: Names the draws of an update; a class is folded into it.
    """
    for c in range(real.num_classes):
        found = selected(sampling, sampling.select(real, c, key.fold(c)), real, c).cpu()
        strangers = found[~torch.isin(found, real.indices_of(c))]
        if len(strangers):
            raise SettingsError(
                f"Expected {type(sampling).__name__}.select to return indices of images of class {c}, got "
                f"{strangers.tolist()[:5]} ({len(strangers)} of {len(found)}), which are not. Choose among "
                "real.indices_of(class_index)."
            )
