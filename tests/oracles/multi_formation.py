"""IDC's multi-formation, pixel by pixel (Kim et al., ICML 2022); nothing shared with the package."""

from __future__ import annotations

import math

import torch


def encode(pixels, factor):
    """Block k of n images goes into cell k of the n stored images, shrunk by taking the nearest pixel."""
    count, (height, width) = len(pixels) // factor**2, pixels.shape[-2:]
    stored = torch.full((count, *pixels.shape[1:]), math.nan, dtype=pixels.dtype)
    for i in range(factor):
        for j in range(factor):
            top, cell_height = cell(height, factor, i)
            left, cell_width = cell(width, factor, j)
            for n in range(count):
                source = pixels[(i * factor + j) * count + n]
                for y in range(cell_height):
                    for x in range(cell_width):
                        nearest = source[:, y * height // cell_height, x * width // cell_width]
                        stored[n, :, top + y, left + x] = nearest
    return stored


def cell(size, factor, index):
    """Start and length of a cell: the first ``size % factor`` are one longer."""
    lengths = [size // factor + 1 if i < size % factor else size // factor for i in range(factor)]
    return sum(lengths[:index]), lengths[index]


def decode(stored, factor, fill):
    """Cell (0, 0) of every image, then (0, 1), ...: each enlarged bilinearly; ``fill`` (C,) pads right and bottom."""
    height, width = stored.shape[-2:]
    cell_height, cell_width = math.ceil(height / factor), math.ceil(width / factor)
    decoded = []
    for i in range(factor):
        for j in range(factor):
            for image in stored:
                rows = [
                    [pixel(image, i * cell_height + y, j * cell_width + x, fill) for x in range(cell_width)]
                    for y in range(cell_height)
                ]
                decoded.append(enlarged(rows, height, width))
    return torch.stack(decoded)


def pixel(image, y, x, fill):
    inside = y < image.shape[1] and x < image.shape[2]
    return image[:, y, x] if inside else fill


def enlarged(rows, height, width):
    """Bilinear without aligned corners: output pixel centres fall between input pixel centres; the border repeats."""
    image = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    vertical = [neighbours(y, height, len(rows)) for y in range(height)]
    horizontal = [neighbours(x, width, len(rows[0])) for x in range(width)]
    columns = torch.stack([(1 - w) * image[:, a] + w * image[:, b] for a, b, w in vertical], dim=1)
    return torch.stack([(1 - w) * columns[..., a] + w * columns[..., b] for a, b, w in horizontal], dim=-1)


def neighbours(position, size, source):
    place = max((position + 0.5) * source / size - 0.5, 0.0)
    low = min(int(place), source - 1)
    return low, min(low + 1, source - 1), place - low


def bounded(count, factor, bound):
    """At which factor each of a class's images is used: one image at a time, keeping a place for each that is left."""
    factors, decoded = [], 0
    for f in range(factor, 1, -1):
        room = bound - decoded - (count - len(factors))
        while room >= f * f and len(factors) < count:
            factors.append(f)
            room, decoded = room - f * f, decoded + f * f
    return factors + [1] * (count - len(factors))


def decode_each(stored, factors, fill):
    """Neighbours at one factor are decoded together, the others after them."""
    parts = []
    for f in sorted(set(factors), reverse=True):
        chosen = torch.stack([image for image, own in zip(stored, factors, strict=True) if own == f])
        parts.append(decode(chosen, f, fill))
    return torch.cat(parts)
