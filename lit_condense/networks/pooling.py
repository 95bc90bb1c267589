"""Average pooling over 2x2 squares, in the way that is fastest for the maps."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MATRIX_UP_TO = 8
"""Pixels of a map's width up to which a matrix pools: a fourteenth off a training step of a small network, and the same
at a width of 16."""


class HalvingAverage(nn.Module):
    """Average over 2x2 squares, as ``nn.AvgPool2d(2)``: an odd last row or column is left out.

    On a CPU it adds views of the four corners: a matching update of PyTorch's average pooling is slower, and a compiled
    real gradient takes 1.2 times as long with it or with strided slices, whose derivatives are scattered. Two rows of
    narrow maps are multiplied with a matrix, where nothing is compiled. Equal to rounding.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Return ``(*, H // 2, W // 2)`` of maps ``(*, H, W)``."""
        if maps.device.type != "cpu":
            return F.avg_pool2d(maps, 2)
        height, width = (side // 2 for side in maps.shape[-2:])
        even = maps[..., : 2 * height, : 2 * width]
        if 2 * width <= MATRIX_UP_TO and not torch.compiler.is_compiling():
            return even.reshape(*maps.shape[:-2], height, 4 * width) @ _averaging(width, maps.dtype)
        upper, lower = even.reshape(*maps.shape[:-2], height, 2, width, 2).unbind(-3)
        left, right = (upper + lower).unbind(-1)
        return (left + right) / 4


@functools.cache
def _averaging(width: int, dtype: torch.dtype) -> Tensor:
    """Return the matrix ``(4 * width, width)`` that takes two rows, one after the other, to the averages of squares."""
    with torch.inference_mode(False):  # it is kept for training too
        columns = torch.eye(width, dtype=dtype).repeat_interleave(2, 0) / 4
        return columns.repeat(2, 1)
