"""What a parametrization of one's own must return."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_condense.errors import SettingsError, check_same_kind, described, is_count
from lit_condense.parametrization.base import Parametrization


def decoded(parametrization: Parametrization, stored: Tensor, found: Any) -> Tensor:
    """Return what stored images of a class were decoded to, if it is what the parametrization announced."""
    count = parametrization.decoded_count(len(stored))
    check_same_kind(f"{type(parametrization).__name__}.decode", found, (count, *stored.shape[1:]), stored)
    return found  # type: ignore[no-any-return]


def decoded_labels(parametrization: Parametrization, labels: Tensor, found: Any) -> Tensor:
    """Return the labels of decoded images of a class."""
    count = parametrization.decoded_count(len(labels))
    if not isinstance(found, Tensor) or found.dtype != torch.int64 or tuple(found.shape) != (count,):
        raise SettingsError(
            f"Expected {type(parametrization).__name__}.decode_labels to return {count} int64 labels, one for each "
            f"decoded image, got {described(found)}."
        )
    return found


def check_counts(parametrization: Parametrization, stored: int) -> None:
    """Refuse a parametrization whose numbers of images do not fit one another."""
    owner = type(parametrization).__name__
    decoded, matched = parametrization.decoded_count(stored), parametrization.matched_count(stored)
    if not is_count(decoded) or not is_count(matched) or matched > decoded:
        raise SettingsError(
            f"Expected {owner}.decoded_count and matched_count to return whole numbers, 1 or more, the second at most "
            f"the first, got {decoded!r} and {matched!r} for {stored} stored images."
        )
