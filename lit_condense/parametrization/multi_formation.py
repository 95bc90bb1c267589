"""Multi-formation (Kim et al., *Dataset Condensation via Efficient Synthetic-Data Parameterization*, ICML 2022)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_condense.data.normalization import Normalization
from lit_condense.errors import SettingsError
from lit_condense.parametrization.pixels import Clamp, Pixels, Space

PADDING_VALUE = 0.5
"""Grey, in [0, 1] pixel space, where the size is no multiple of the factor."""


class MultiFormation(Pixels):
    """Each stored image holds ``factor x factor`` smaller ones, enlarged bilinearly when they are used.

    Decoded order: cell (0, 0) of every image, then cell (0, 1), ...: ``factor**2 * n`` images.

    Args:
        factor: Cells per side (IDC: 2 for 28 and 32 pixels, 3 for ImageNet).
        space: As in :class:`Pixels`; IDC stores [0, 1] pixels.
        clamp: As in :class:`Pixels`; IDC clamps before each new network.
    """

    def __init__(self, factor: int = 2, space: Space = "pixel", clamp: Clamp = "every_network") -> None:
        super().__init__(space, clamp)
        if factor < 1:
            raise SettingsError(f"Expected MultiFormation.factor to be 1 or more, got {factor}.")
        self.factor = factor

    def encode(self, pixels: Tensor, normalization: Normalization) -> Tensor:
        """Pack ``factor**2 * n`` real images into ``n`` stored ones (IDC's mixed initialisation).

        Block ``k`` of ``n`` images goes, shrunk by nearest neighbour, into cell ``k`` (row by row) of the n images.
        """
        f = self.factor
        count, (height, width) = len(pixels) // f**2, pixels.shape[-2:]
        stored = pixels.new_empty(count, pixels.shape[1], height, width)
        rows, columns = _cells(height, f), _cells(width, f)
        for k, block in enumerate(torch.split(pixels, count)):
            (top, bottom), (left, right) = rows[k // f], columns[k % f]
            stored[:, :, top:bottom, left:right] = F.interpolate(block, size=(bottom - top, right - left))
        return super().encode(stored, normalization)

    def decode(self, stored: Tensor, normalization: Normalization) -> Tensor:
        """Return normalised ``(factor**2 * n, C, H, W)``: crops of equal size, enlarged bilinearly."""
        f, (height, width) = self.factor, stored.shape[-2:]
        down, right = -height % f, -width % f
        padded = stored
        if down or right:
            grey = stored.new_full((stored.shape[1], 1, 1), PADDING_VALUE)
            if self.space == "normalized":
                grey = normalization.normalize(grey)
            padded = grey.expand(*stored.shape[:2], height + down, width + right).clone()
            padded[:, :, :height, :width] = stored
        cells = [cell for row in padded.chunk(f, dim=2) for cell in row.chunk(f, dim=3)]
        enlarged = F.interpolate(torch.cat(cells), size=(height, width), mode="bilinear", align_corners=False)
        return super().decode(enlarged, normalization)

    def decode_labels(self, labels: Tensor) -> Tensor:
        """Return the labels repeated for every cell, in the order of the decoded images."""
        return labels.repeat(self.factor**2)


def _cells(size: int, factor: int) -> list[tuple[int, int]]:
    """Cut ``size`` pixels into ``factor`` cells; the first ``size % factor`` are one larger."""
    small, larger = divmod(size, factor)
    edges = [0]
    for i in range(factor):
        edges.append(edges[-1] + small + (1 if i < larger else 0))
    return list(pairwise(edges))
