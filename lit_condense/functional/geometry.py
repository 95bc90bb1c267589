"""Distances between features and between predictions, and rows chosen by them.

Letters: n rows, d features, K classes, k rows to choose.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROWS = 4096
"""Rows that are held in double precision at a time."""

BLOCK_ENTRIES = 2**22
"""Distances (or probabilities) held at a time: 16 MiB in float32, and some times that to rank them."""


def mean_feature(features: Tensor) -> Tensor:
    """Return the mean of ``(n, d)`` features, ``(d,)`` float64."""
    # block by block: converting all of them at once would take twice their memory
    return torch.stack([part.double().sum(0) for part in torch.split(features, ROWS)]).sum(0) / len(features)


def euclidean(features: Tensor, point: Tensor) -> Tensor:
    """Return the distances ``(n,)`` of ``(n, d)`` features to a point ``(d,)``.

    From the differences themselves, not from products: equal features get equal distances, 0 where they are the point.
    """
    wanted = point.to(features.dtype).unsqueeze(0)
    return torch.cdist(features, wanted, compute_mode="donot_use_mm_for_euclid_dist").squeeze(1)


def farthest_first(distances_to: Callable[[int], Tensor], first: int, count: int) -> Tensor:
    """Return rows that each are the farthest from the nearest row before them.

    Args:
        distances_to: Gives the distances ``(n,)`` of all rows to one row, 0 or more.
        first: The first row.
        count: Rows to return, at most n.

    Returns:
        ``(count,)`` different rows, on the CPU; of equally far ones, the first.
    """
    chosen = [first]
    nearest = distances_to(first)
    nearest[first] = -1  # below every distance: never again, not even among duplicates
    while len(chosen) < count:
        index = int(nearest.argmax())
        chosen.append(index)
        nearest = torch.minimum(nearest, distances_to(index))
        nearest[index] = -1
    return torch.tensor(chosen)


def symmetric_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return ``(KL(p || q) + KL(q || p)) / 2``, 0 or more, of log-probabilities ``(*, K)`` that broadcast.

    Summed as ``(p - q) (log p - log q) / 2``, finite even where a probability rounds to 0.
    """
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1).div(2).clamp(min=0)


def nearest_others(features: Tensor, count: int) -> Tensor:
    """Return the ``count`` nearest other rows of each row of ``(n, d)`` features: ``(n, count)``, ascending."""
    centred = features - mean_feature(features).to(features.dtype)  # small norms: products round less
    norms = torch.linalg.vector_norm(centred, dim=1).square()
    found = []
    for rows in torch.split(torch.arange(len(features), device=features.device), rows_at_once(len(features))):
        # squared distances less the row's own squared norm, which changes no order
        distances = torch.addmm(norms, centred[rows], centred.T, alpha=-2)
        distances[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        found.append(_smallest(distances, count))
    return torch.cat(found)


def _smallest(values: Tensor, count: int) -> Tensor:
    """Return the columns of the ``count`` smallest values of each row, ascending; of equal values, the first ones."""
    # topk alone takes any of the equal ones, and sorting takes longer than the distances
    largest = values.topk(count, dim=1, largest=False).values[:, -1:]
    below, equal = values < largest, values == largest
    free = count - below.sum(1, keepdim=True)
    kept = below | (equal & (equal.cumsum(1, dtype=torch.int32) <= free))
    return kept.nonzero()[:, 1].view(-1, count)


def rows_at_once(entries: int) -> int:
    """Return how many rows of so many numbers are held at a time."""
    return max(1, BLOCK_ENTRIES // entries)
