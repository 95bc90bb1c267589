"""How a pass over images is cut into batches: the same wherever networks are trained or tested.

A rest of exactly one image is merged into the batch before it, whatever the network: batch norm of features cannot
normalise a single image, and the steps of a pass must not depend on the architecture. Every other rest stays a batch of
its own, as in the published programs, none of whose settings leaves one image over.
"""

from __future__ import annotations

import torch
from torch import Tensor


def batch_count(images: int, size: int) -> int:
    """Return the batches of a pass over so many images."""
    full, rest = divmod(images, size)
    return full + (rest > 0) - _merges(full, rest, size)


def batch_sizes(images: int, size: int) -> list[int]:
    """Return how many images each batch of a pass holds."""
    count = batch_count(images, size)
    return [size] * (count - 1) + [images - size * (count - 1)]


def batches(order: Tensor, size: int) -> tuple[Tensor, ...]:
    """Cut indices ``(n,)`` into the batches of a pass."""
    return torch.split(order, batch_sizes(len(order), size))


def batch_at(order: Tensor, size: int, position: int) -> Tensor:
    """Return batch ``position`` of a pass."""
    last = position == batch_count(len(order), size) - 1
    return order[position * size : None if last else (position + 1) * size]


def _merges(full: int, rest: int, size: int) -> bool:
    return rest == 1 and full > 0 and size > 1
