"""Image operations as pure functions of images and drawn parameters.

Images are float ``(n, C, H, W)``: n images, C channels, H rows, W columns, in normalised space, where 0 is the data
set's mean colour and fills what an operation leaves empty. A parameter has shape ``(n,)``, one value for each image, or
``(1,)``, one value for all; parameters lie on the images' device. Every function returns the images' shape and dtype,
also under autocast, and is differentiable twice in the images.

There is no ``grid_sample`` here: its backward has no deterministic form on a GPU. Gathers and matrix products have.
Under a lowered ``float32_matmul_precision`` the products of ``scale`` have that precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

BRIGHTNESS = 1.0
SATURATION = 2.0
CONTRAST = 0.5
"""Strengths of Zhao & Bilen, ICML 2021."""


def brightness(images: Tensor, u: Tensor, strength: Tensor | float = BRIGHTNESS) -> Tensor:
    """Add ``(u - 0.5) * strength`` to every value; ``u`` in [0, 1]."""
    return images + _for_images((u - 0.5) * strength, images)


def saturation(images: Tensor, u: Tensor, strength: Tensor | float = SATURATION) -> Tensor:
    """Multiply each pixel's distance from its mean over channels by ``u * strength``; ``u`` in [0, 1].

    One channel is its own mean, so one-channel images stay as they are.
    """
    mean = images.mean(dim=1, keepdim=True)
    return (images - mean) * _for_images(u * strength, images) + mean


def contrast(images: Tensor, u: Tensor, strength: Tensor | float = CONTRAST) -> Tensor:
    """Multiply each value's distance from its image's mean by ``u + strength``; ``u`` in [0, 1]."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * _for_images(u + strength, images) + mean


def translate(images: Tensor, shift_y: Tensor, shift_x: Tensor, fill: Tensor | float = 0.0) -> Tensor:
    """Return the window that lies ``shift_y`` rows lower and ``shift_x`` columns further right.

    Args:
        images: ``(n, C, H, W)``.
        shift_y: Whole rows; positive moves the content up.
        shift_x: Whole columns; positive moves the content to the left.
        fill: What the window shows outside the image: a number, or one for each channel as ``(C, 1, 1)``.
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) + shift_y[:, None]
    columns = torch.arange(width, device=images.device) + shift_x[:, None]
    return pick(images, rows, columns, fill)


def reflected_translate(images: Tensor, shift_y: Tensor, shift_x: Tensor) -> Tensor:
    """Return the window that ``translate`` returns, of an image mirrored about its outermost rows and columns."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) + shift_y[:, None]
    columns = torch.arange(width, device=images.device) + shift_x[:, None]
    return pick(images, mirrored(rows, height), mirrored(columns, width))


def cutout(images: Tensor, centre_y: Tensor, centre_x: Tensor, size_h: Tensor | int, size_w: Tensor | int) -> Tensor:
    """Set a window to 0: rows ``centre_y - size_h // 2`` and the ``size_h - 1`` below it, columns alike.

    Only the part of the window inside the image shows.
    """
    height, width = images.shape[-2:]
    top, left = centre_y - size_h // 2, centre_x - size_w // 2
    rows, columns = _window(height, top, top + size_h), _window(width, left, left + size_w)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def flip(images: Tensor, mask: Tensor) -> Tensor:
    """Mirror left and right where the boolean ``mask`` holds."""
    return torch.where(mask.view(-1, 1, 1, 1), images.flip(3), images)


def scale(images: Tensor, s_y: Tensor, s_x: Tensor) -> Tensor:
    """Resize the content about the centre, bilinear with zeros outside.

    The published operation: ``theta = [[s_x, 0, 0], [0, s_y, 0]]`` for ``affine_grid`` and ``grid_sample``, so an
    output pixel at distance d from the centre shows the input at distance ``s * d``: ``s > 1`` shrinks the content.
    Positions follow ``align_corners=False``, the behaviour since torch 1.3; the publication ran on torch 1.2, which
    aligned corners.
    """
    height, width = images.shape[-2:]
    rows = _resampling_matrix(s_y, height, images)
    columns = _resampling_matrix(s_x, width, images)
    with torch.autocast(images.device.type, enabled=False):
        return rows @ images @ columns.mT


def rotate(images: Tensor, angle: Tensor) -> Tensor:
    """Rotate the content about the centre by ``angle`` radians, bilinear with zeros outside.

    The published operation: ``theta = [[cos, -sin, 0], [sin, cos, 0]]`` for ``affine_grid`` and ``grid_sample``, in
    coordinates that run from -1 to 1 along both sides; positive angles turn the content counter-clockwise. An image
    that is not square is therefore sheared as well, as ``affine_grid`` does. ``align_corners`` as in ``scale``.
    """
    height, width = images.shape[-2:]
    dtype = geometry_dtype(images)
    y = _centres(height, images)[:, None]
    x = _centres(width, images)
    cos, sin = angle.to(dtype).cos().view(-1, 1, 1), angle.to(dtype).sin().view(-1, 1, 1)
    return _bilinear(images, _to_pixels(sin * x + cos * y, height), _to_pixels(cos * x - sin * y, width))


def pick(images: Tensor, rows: Tensor, columns: Tensor, fill: Tensor | float = 0.0) -> Tensor:
    """Return images whose pixel (i, j) is the given images' pixel ``(rows[i], columns[j])``.

    Args:
        images: ``(n, C, H, W)``.
        rows: Whole numbers ``(n or 1, H)``; outside 0 to H - 1 the fill shows.
        columns: Whole numbers ``(n or 1, W)``; outside 0 to W - 1 the fill shows.
        fill: A number, or one for each channel as ``(C, 1, 1)``.
    """
    height, width = images.shape[-2:]
    inside = _window_of(rows, height)[:, :, None] & _window_of(columns, width)[:, None, :]
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    return torch.where(inside[:, None], take_pixels(images, index[:, None])[:, :, 0], fill)


def mirrored(positions: Tensor, size: int) -> Tensor:
    """Bring whole positions into 0 to ``size - 1``, mirrored about the outermost pixels' centres."""
    period = max(2 * size - 2, 1)
    folded = positions.abs() % period
    return torch.minimum(folded, period - folded)


def take_pixels(images: Tensor, index: Tensor) -> Tensor:
    """Return ``(n, C, T, H, W)``, the pixels at the flat positions ``index`` ``(n or 1, T, H, W)`` of ``H * W``."""
    n, channels, _, _ = images.shape
    wanted = index.flatten(1)[:, None].expand(n, channels, -1)
    return images.flatten(2).gather(2, wanted).view(n, channels, *index.shape[1:])


def weighted_pixels(images: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Return ``(n, C, H, W)``: the pixels at ``index`` times ``weights``, both ``(n or 1, T, H, W)``, summed over T."""
    return (take_pixels(images, index) * weights[:, None].to(images.dtype)).sum(dim=2)


def geometry_dtype(images: Tensor) -> torch.dtype:
    """Return the dtype for positions and weights: at least float32, bfloat16 cannot tell columns apart."""
    return torch.promote_types(images.dtype, torch.float32)


def _for_images(parameter: Tensor, images: Tensor) -> Tensor:
    return parameter.to(images.dtype).view(-1, 1, 1, 1)


def _window(size: int, start: Tensor, stop: Tensor) -> Tensor:
    """Return ``(s, size)``, true from ``start`` to before ``stop``."""
    positions = torch.arange(size, device=start.device)
    return (positions >= start[:, None]) & (positions < stop[:, None])


def _window_of(positions: Tensor, size: int) -> Tensor:
    return (positions >= 0) & (positions < size)


def _centres(size: int, images: Tensor) -> Tensor:
    """Return ``(size,)`` pixel centres in coordinates where the image's edges are -1 and 1."""
    return (2 * torch.arange(size, device=images.device, dtype=geometry_dtype(images)) + 1) / size - 1


def _to_pixels(coordinates: Tensor, size: int) -> Tensor:
    """Turn coordinates whose edges are -1 and 1 into positions in pixels, 0 at the first pixel's centre."""
    return ((coordinates + 1) * size - 1) / 2


def _resampling_matrix(s: Tensor, size: int, images: Tensor) -> Tensor:
    """Return ``(n or 1, 1, size, size)``: row i holds the weights of the input pixels in output pixel i."""
    positions = _to_pixels(s.to(geometry_dtype(images))[:, None] * _centres(size, images), size)
    distance = (positions[:, :, None] - torch.arange(size, device=images.device)).abs()
    return (1 - distance).clamp(min=0).to(images.dtype)[:, None]


def _bilinear(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Sample at the positions ``y``, ``x`` ``(n or 1, H, W)`` in pixels, with zeros outside."""
    height, width = images.shape[-2:]
    top, left = y.floor(), x.floor()
    rows = torch.stack([top, top, top + 1, top + 1], dim=1)
    columns = torch.stack([left, left + 1, left, left + 1], dim=1)
    weights = (1 - (y[:, None] - rows).abs()) * (1 - (x[:, None] - columns).abs())
    inside = _window_of(rows, height) & _window_of(columns, width)
    index = rows.clamp(0, height - 1).long() * width + columns.clamp(0, width - 1).long()
    return weighted_pixels(images, index, torch.where(inside, weights, 0.0))
