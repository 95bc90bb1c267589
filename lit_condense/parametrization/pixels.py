"""How the synthetic images are stored: as plain pixels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_condense.data.normalization import Normalizer
from lit_condense.errors import SettingsError, check_choice
from lit_condense.parametrization.base import Clamp, Parametrization

Space = Literal["normalized", "pixel"]


class Pixels(Parametrization):
    """Each stored image is one image, in normalised or in [0, 1] pixel space.

    Args:
        space: ``normalized`` stores what networks see (DC, DSA, EGM); ``pixel`` stores [0, 1] images (IDC, DREAM).
        clamp: See :class:`Parametrization`.
        most_matched: See :class:`Parametrization`.
    """

    def __init__(self, space: Space = "normalized", clamp: Clamp = "never", *, most_matched: int | None = None) -> None:
        super().__init__(clamp, most_matched)
        check_choice(f"{type(self).__name__}.space", space, Space)
        self.space = space

    def check_normalization(self, normalization: Normalizer) -> None:
        """Refuse to clamp normalised values where they have no range of their own.

        Raises:
            SettingsError: They would be clamped.
        """
        if self.clamp != "never":
            self._insist_on_range(normalization)

    def _insist_on_range(self, normalization: Normalizer) -> None:
        if self.space == "normalized" and not normalization.per_channel:
            owner = type(self).__name__
            raise SettingsError(
                f"Expected {owner}.space pixel to clamp images under {type(normalization).__name__}, where the range "
                "of a normalised value depends on the whole image, got normalized. Set space: pixel, or clamp: never."
            )

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return a start from noise: N(0, 1) in normalised space (DC), N(0.5, 0.25) clamped to [0, 1] else (IDC)."""
        noise = torch.randn(shape, generator=generator, dtype=torch.float32)
        return noise if self.space == "normalized" else (noise / 4 + 0.5).clamp(0, 1)

    def encode(self, pixels: Tensor, normalization: Normalizer) -> Tensor:
        """Return the stored form of ``(n, C, H, W)`` images in [0, 1]."""
        return normalization.normalize(pixels) if self.space == "normalized" else pixels.clone()

    def decode(self, stored: Tensor, normalization: Normalizer) -> Tensor:
        """Return the normalised images."""
        return stored if self.space == "normalized" else normalization.normalize(stored)

    def project_(self, stored: Tensor, normalization: Normalizer) -> None:
        """Bring the stored values back, in place, to the range of real pixels.

        Raises:
            SettingsError: Normalised values have no such range.
        """
        self._insist_on_range(normalization)
        channels = stored.shape[1]
        low, high = stored.new_zeros(channels, 1, 1), stored.new_ones(channels, 1, 1)
        if self.space == "normalized":
            low, high = normalization.normalize(low), normalization.normalize(high)
        stored.copy_(torch.minimum(torch.maximum(stored, low), high))
