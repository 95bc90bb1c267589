"""k-means for picking representative images: seeded k-means++, no empty clusters, no image chosen twice."""

from __future__ import annotations

import torch
from torch import Tensor

DEFAULT_ITERATIONS = 100
DEFAULT_TOLERANCE = 1e-4
"""On the summed squared shift of the centres (the k-means that DREAM's program uses)."""


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return squared Euclidean distances ``(n, m)`` between the rows of ``(n, d)`` and ``(m, d)``, never negative."""
    return (a.square().sum(1, keepdim=True) - 2 * a @ b.T + b.square().sum(1)).clamp(min=0)


def plus_plus(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Return ``k`` different rows of ``points`` as first centres: far points are more likely (k-means++).

    Args:
        points: ``(n, d)``, n at least k.
        k: Number of centres.
        generator: On the CPU.
    """
    n = len(points)
    chosen = [int(torch.randint(n, (1,), generator=generator))]
    nearest = squared_distances(points, points[chosen]).squeeze(1)
    # float32 whatever the default is: Lightning changes it in a 64-true run, and the draws must not follow
    for draw in torch.rand(k - 1, generator=generator, dtype=torch.float32).tolist():
        nearest[chosen[-1]] = 0
        cumulative = nearest.double().cumsum(0)
        if cumulative[-1] <= 0:  # every point coincides with a centre: any other point will do
            free = torch.ones(n, dtype=torch.bool)
            free[chosen] = False
            index = int(free.nonzero()[0])
        else:
            index = min(int(torch.searchsorted(cumulative, draw * cumulative[-1], right=True)), n - 1)
        chosen.append(index)
        nearest = torch.minimum(nearest, squared_distances(points, points[index : index + 1]).squeeze(1))
    return torch.tensor(chosen)


def kmeans(
    points: Tensor,
    k: int,
    generator: torch.Generator,
    iterations: int = DEFAULT_ITERATIONS,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Tensor:
    """Return the ``(k, d)`` centres of Lloyd's algorithm from a k-means++ start.

    A cluster that loses all its points takes the point that is farthest from its own centre.

    Args:
        points: ``(n, d)``.
        k: Number of clusters, at most n.
        generator: Of the start, on the CPU.
        iterations: Most passes.
        tolerance: Stop once the summed squared shift of the centres is at most this.

    Raises:
        ValueError: There are fewer points than clusters.
    """
    if not 1 <= k <= len(points):
        raise ValueError(f"Expected 1 to {len(points)} clusters for {len(points)} points, got {k}.")
    centres = points[plus_plus(points, k, generator).to(points.device)].clone()
    for _ in range(iterations):
        distances, assigned = squared_distances(points, centres).min(dim=1)
        sizes = torch.bincount(assigned, minlength=k)
        sums = torch.zeros_like(centres).index_add_(0, assigned, points)
        moved = sums / sizes.clamp(min=1).unsqueeze(1).to(points.dtype)
        empty = (sizes == 0).nonzero().squeeze(1)
        if len(empty):
            moved[empty] = points[distances.argsort(descending=True, stable=True)[: len(empty)]]
        shift = (moved - centres).square().sum()
        centres = moved
        if float(shift) <= tolerance:
            break
    return centres


def nearest_distinct(points: Tensor, centres: Tensor, per_centre: int = 1) -> Tensor:
    """Return, for each centre in turn, the ``per_centre`` nearest points that no earlier centre has taken.

    Args:
        points: ``(n, d)``.
        centres: ``(k, d)`` with ``k * per_centre <= n``.
        per_centre: Points a centre takes.

    Returns:
        ``(k * per_centre,)`` different indices into ``points``, on the CPU.
    """
    order = squared_distances(centres, points).argsort(dim=1, stable=True).cpu()
    taken: set[int] = set()
    chosen: list[int] = []
    for row in order.tolist():
        free = (index for index in row if index not in taken)
        for _, index in zip(range(per_centre), free, strict=False):
            taken.add(index)
            chosen.append(index)
    return torch.tensor(chosen)
