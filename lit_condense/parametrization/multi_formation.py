"""Multi-formation (Kim et al., *Dataset Condensation via Efficient Synthetic-Data Parameterization*, ICML 2022)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_condense.data.normalization import Normalizer
from lit_condense.errors import SettingsError, check_choice, check_least
from lit_condense.parametrization.base import Clamp
from lit_condense.parametrization.pixels import Pixels, Space

if TYPE_CHECKING:
    from typing_extensions import Self

PADDING_VALUE = 0.5
"""Grey, in [0, 1] pixel space, where the size is no multiple of the factor."""

BOUND = 128
"""Decoded images of a class under ``bound`` (IDC's program, for ImageNet with 20 and more images a class)."""

Decoding = Literal["uniform", "multi", "bound"]
Order = Literal["row", "column"]
Shrinking = Literal["nearest", "mean"]


class MultiFormation(Pixels):
    """Each stored image holds ``factor x factor`` smaller ones, enlarged bilinearly when they are used.

    ``uniform`` decodes every image at ``factor``: cell (0, 0) of all images, then cell (0, 1), and so on. ``multi``
    decodes every image at each factor from 1 to ``factor``, in this order. ``bound`` decodes the first images at
    ``factor`` and the others at smaller ones, so that a class never gives more than ``bound`` images. It saves memory
    in matching only: networks are trained on the ``uniform`` set, as IDC evaluates it.

    Args:
        factor: Cells per side (IDC: 2 for 28 and 32 pixels, 3 for ImageNet).
        space: As in :class:`Pixels`; IDC stores [0, 1] pixels.
        clamp: As in :class:`Pixels`; IDC clamps before each new network.
        most_matched: As in :class:`Pixels`.
        decoding: ``uniform`` (``single`` in IDC's program), ``multi`` or ``bound``, as above.
        bound: Most decoded images of a class under ``bound``; a class with more stored images decodes each to itself.
        order: How cells are counted: ``row`` by row (IDC), or ``column`` by column (the partition and expansion of
            IDM). It decides which image of a start goes into which cell, and the order of the decoded ones.
        shrinking: How images of a start are made to fit their cells: by the ``nearest`` pixel (IDC), or the ``mean`` of
            those that fall on one (IDM).
    """

    # trained on, ``bound`` is ``uniform``; the order of cells and how a start fits them do not change what they hold
    of_updates = (*Pixels.of_updates, "bound", "order", "shrinking")

    def __init__(
        self,
        factor: int = 2,
        space: Space = "pixel",
        *,
        clamp: Clamp = "every_network",
        most_matched: int | None = None,
        decoding: Decoding = "uniform",
        bound: int = BOUND,
        order: Order = "row",
        shrinking: Shrinking = "nearest",
    ) -> None:
        super().__init__(space, clamp, most_matched=most_matched)
        check_least("MultiFormation", 1, factor=factor, bound=bound)
        check_choice("MultiFormation.decoding", decoding, Decoding)
        check_choice("MultiFormation.order", order, Order)
        check_choice("MultiFormation.shrinking", shrinking, Shrinking)
        self.factor = factor
        self.decoding = decoding
        self.bound = bound
        self.order = order
        self.shrinking = shrinking

    @property
    def for_training(self) -> Self:
        """Itself, but with ``uniform`` decoding in place of ``bound``, as IDC evaluates."""
        if self.decoding != "bound":
            return self
        trained_on = copy.copy(self)
        trained_on.decoding, trained_on.most_matched = "uniform", None
        return trained_on

    def check_size(self, image_size: tuple[int, int]) -> None:
        """Refuse images with fewer pixels a side than cells."""
        if self.factor > min(image_size):
            raise SettingsError(
                f"Expected MultiFormation.factor to be at most {min(image_size)}, the shorter side of these "
                f"{image_size[0]} x {image_size[1]} images, got {self.factor}. Lower it: each cell needs a pixel."
            )

    def check_normalization(self, normalization: Normalizer) -> None:
        """Refuse to cut normalised images into cells where a normalised value depends on the whole image.

        Raises:
            SettingsError: They would be cut.
        """
        if self.space == "normalized" and not normalization.per_channel:
            raise SettingsError(
                f"Expected MultiFormation.space pixel under {type(normalization).__name__}, which normalises an image "
                "as a whole and not the cells that it is cut into, got normalized. Set space: pixel."
            )
        super().check_normalization(normalization)

    def encode(self, pixels: Tensor, normalization: Normalizer) -> Tensor:
        """Pack ``factor**2 * n`` real images into ``n`` stored ones (IDC's mixed initialisation).

        Block ``k`` of ``n`` images goes, shrunk, into cell ``k`` of the n images.
        """
        f = self.factor
        count, (height, width) = len(pixels) // f**2, pixels.shape[-2:]
        stored = pixels.new_empty(count, pixels.shape[1], height, width)
        rows, columns = _cells(height, f), _cells(width, f)
        for (i, j), block in zip(self._places(f), torch.split(pixels, count), strict=True):
            (top, bottom), (left, right) = rows[i], columns[j]
            size = (bottom - top, right - left)
            shrunk = F.interpolate(block, size) if self.shrinking == "nearest" else F.adaptive_avg_pool2d(block, size)
            stored[:, :, top:bottom, left:right] = shrunk
        return super().encode(stored, normalization)

    def decode(self, stored: Tensor, normalization: Normalizer) -> Tensor:
        """Return the normalised images that n stored images of a class stand for: enlarged crops of equal size."""
        parts = [self._enlarged(stored[part], f, normalization) for f, part in self._uses(len(stored))]
        return super().decode(parts[0] if len(parts) == 1 else torch.cat(parts), normalization)

    def decode_labels(self, labels: Tensor) -> Tensor:
        """Return the labels of the decoded images, in their order."""
        return torch.cat([labels[part].repeat(f**2) for f, part in self._uses(len(labels))])

    def decoded_count(self, stored: int) -> int:
        """Return how many images ``stored`` images of a class decode to."""
        return sum(f**2 * (part.stop - part.start) for f, part in self._uses(stored))

    def _places(self, factor: int) -> list[tuple[int, int]]:
        """Return row and column of each cell, in the order in which cells are counted."""
        by_row = [(i, j) for i in range(factor) for j in range(factor)]
        return by_row if self.order == "row" else [(i, j) for j, i in by_row]

    def _uses(self, stored: int) -> list[tuple[int, slice]]:
        """Return at which factor which of a class's images are used, in decoded order."""
        if self.decoding == "uniform":
            return [(self.factor, slice(0, stored))]
        if self.decoding == "multi":
            return [(f, slice(0, stored)) for f in range(1, self.factor + 1)]
        return list(_bounded(stored, self.factor, self.bound))

    def _enlarged(self, stored: Tensor, factor: int, normalization: Normalizer) -> Tensor:
        """Return the cells of the images at a factor, in the stored space: ``(factor**2 * n, C, H, W)``."""
        height, width = stored.shape[-2:]
        down, right = -height % factor, -width % factor
        padded = stored
        if down or right:
            grey = stored.new_full((stored.shape[1], 1, 1), PADDING_VALUE)
            if self.space == "normalized":
                grey = normalization.normalize(grey)
            padded = grey.expand(*stored.shape[:2], height + down, width + right).clone()
            padded[:, :, :height, :width] = stored
        rows = [row.chunk(factor, dim=3) for row in padded.chunk(factor, dim=2)]
        cells = [rows[i][j] for i, j in self._places(factor)]
        return F.interpolate(torch.cat(cells), size=(height, width), mode="bilinear", align_corners=False)


def _bounded(stored: int, largest: int, bound: int) -> Iterator[tuple[int, slice]]:
    """Yield factor and images from the largest factor down; together they decode to at most ``bound`` images.

    As IDC's program counts, the room at a factor is what is left of the bound after one place for *every* image not yet
    used, those that get more at this factor included.
    """
    start = decoded = 0
    for factor in range(largest, 0, -1):
        left = stored - start
        room = max(0, bound - decoded - left)
        count = min(left, room // factor**2) if factor > 1 else left
        if count:
            yield factor, slice(start, start + count)
        start, decoded = start + count, decoded + count * factor**2


def _cells(size: int, factor: int) -> list[tuple[int, int]]:
    """Cut ``size`` pixels into ``factor`` cells; the first ``size % factor`` are one larger."""
    small, larger = divmod(size, factor)
    edges = [0]
    for i in range(factor):
        edges.append(edges[-1] + small + (1 if i < larger else 0))
    return list(pairwise(edges))
