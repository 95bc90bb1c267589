"""Which value of the files is white: stated, and doubted where the images are nearly black under it."""

from __future__ import annotations

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_condense.data.normalization import PIXEL_RANGE
from lit_condense.errors import DataError, SettingsError

LEAST_USED = 1 / 8
"""Share of the range below which it is likely that another value is white."""

EXACT_WHITE = 2**24
"""The largest white level whose every whole number float32 keeps."""


def check_white_level(white_level: float | None, largest: float = EXACT_WHITE) -> None:
    """Refuse a white level that is none.

    Raises:
        SettingsError: It is not above 0, or above ``largest``.
    """
    if white_level is not None and not 0 < white_level <= largest:
        raise SettingsError(f"Expected `white_level` to be above 0 and at most {largest:g} but got {white_level}.")


def in_unit_range(images: Tensor, white_level: float, what: str) -> Tensor:
    """Return pixel values of any type as float32 in [0, 1], where ``white_level`` is 1; no level is lost.

    Raises:
        DataError: There are values below 0 or above ``white_level``.
    """
    values = images.to(torch.float64)  # some whole-number types know no minimum
    if values.numel() and (float(values.min()) < 0 or float(values.max()) > white_level):
        raise DataError(
            f"Expected {what} from 0 to the white level {white_level:g} but they go from {float(values.min()):g} to "
            f"{float(values.max()):g}. State the value that is white as `white_level`."
        )
    return (values / white_level).to(torch.float32)


def warn_if_dark(images: Tensor, white_level: float | None) -> None:
    """Warn where the brightest pixel is below an eighth of white: another value is probably meant to be white.

    Args:
        images: uint8, or floating point in [0, 1].
        white_level: The value of the files that became 1, where one was stated.
    """
    whole = PIXEL_RANGE if images.dtype == torch.uint8 else 1.0
    share = float(images.max()) / whole
    if share < LEAST_USED:
        white = white_level or whole
        rank_zero_warn(
            f"The brightest training pixel is {share * white:g}, where {white:g} is white: the images are nearly "
            "black. If another value is white (4095 in 12-bit images), give it as `white_level` to ImageFolder or "
            "ArrayFile."
        )
