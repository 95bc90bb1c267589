"""Rotation by cubic splines, what ``scipy.ndimage.rotate(order=3, reshape=False, mode="constant")`` computes.

A cubic spline through the pixels is a sum of B-splines, one centred on each pixel. Finding their coefficients is a
linear system along rows and one along columns (Unser, IEEE Signal Processing Magazine 1999); a value between pixels is
then a weighted sum of 4 x 4 coefficients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_condense.augmentation.operations import geometry_dtype, mirrored, weighted_pixels


def rotate_cubic(
    images: Tensor,
    degrees: Tensor,
    fill: Tensor | float = 0.0,
    offsets: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Rotate about the centre, in pixels; positive angles turn the content counter-clockwise.

    Args:
        images: ``(n, C, H, W)``.
        degrees: Angles, ``(n,)`` or ``(1,)``.
        fill: Shown where the position lies beyond the outermost pixels' centres: a number, or one for each channel as
            ``(C, 1, 1)``.
        offsets: Rows and columns, ``(n,)`` or ``(1,)``, by which the window that is shown lies lower and further right.
    """
    height, width = images.shape[-2:]
    dtype = geometry_dtype(images)
    down, right = offsets or (torch.zeros(1, device=images.device),) * 2
    shift = (down.to(dtype).view(-1, 1, 1), right.to(dtype).view(-1, 1, 1))
    y, x = _rotated_positions(height, width, torch.deg2rad(degrees.to(dtype)), shift)
    rows, row_weights = _taps(y, height)
    columns, column_weights = _taps(x, width)
    index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1, 2)
    weights = (row_weights[:, :, None] * column_weights[:, None, :]).flatten(1, 2)
    inside = (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)
    return torch.where(inside[:, None], weighted_pixels(spline_coefficients(images), index, weights), fill)


def spline_coefficients(images: Tensor) -> Tensor:
    """Return ``(n, C, H, W)`` B-spline coefficients of the cubic spline through the pixels.

    At the borders the pixels are mirrored about the outermost centres.
    """
    height, width = images.shape[-2:]
    with torch.autocast(images.device.type, enabled=False):
        return _to_coefficients(height, images) @ images @ _to_coefficients(width, images).mT


def _rotated_positions(height: int, width: int, angle: Tensor, shift: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the rows and columns ``(n or 1, H, W)`` of the input that the output pixels show."""
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y = (torch.arange(height, device=angle.device, dtype=angle.dtype) - middle_y)[:, None] + shift[0]
    x = torch.arange(width, device=angle.device, dtype=angle.dtype) - middle_x + shift[1]
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    return cos * y + sin * x + middle_y, cos * x - sin * y + middle_x


def _taps(positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the 4 coefficients next to each position and their weights, both ``(n or 1, 4, H, W)``."""
    offsets = torch.arange(-1, 3, device=positions.device, dtype=positions.dtype).view(1, 4, 1, 1)
    taps = positions.floor()[:, None] + offsets
    distance = (positions[:, None] - taps).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return mirrored(taps.long(), size), torch.where(distance < 1, near, far)


def _to_coefficients(size: int, images: Tensor) -> Tensor:
    """Return the ``(size, size)`` matrix from pixels to coefficients, worked out in float64 on the CPU."""
    pixels = torch.arange(size)
    one = torch.eye(size, dtype=torch.float64)
    to_pixels = (4 * one + one[mirrored(pixels - 1, size)] + one[mirrored(pixels + 1, size)]) / 6
    to_coefficients: Tensor = torch.linalg.inv(to_pixels)
    return to_coefficients.to(images.dtype).to(images.device)
