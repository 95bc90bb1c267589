"""k-means for picking representative images: seeded k-means++, no empty clusters, no image chosen twice.

Letters: b classes, n points of each, d entries, k clusters of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

DEFAULT_ITERATIONS = 100
DEFAULT_TOLERANCE = 1e-4
"""On the summed squared shift of the centres (the k-means that DREAM's program uses)."""
TIE = 64.0
"""Rounding errors, relative to the points' squared norms, within which two distances are the same."""


def squared_distances(a: Tensor, b: Tensor, a_norms: Tensor | None = None) -> Tensor:
    """Return squared Euclidean distances ``(*, n, m)`` between rows, never negative.

    Args:
        a: ``(*, n, d)``.
        b: ``(*, m, d)``.
        a_norms: Squared norms of the rows of ``a``, ``(*, n)``, where they are known already.
    """
    norms = a.square().sum(-1) if a_norms is None else a_norms
    products = a @ b.mT
    return products.mul_(-2).add_(norms.unsqueeze(-1)).add_(b.square().sum(-1).unsqueeze(-2)).clamp_(min=0)


def plus_plus(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Return ``k`` different rows of ``points`` as first centres: far points are more likely (k-means++).

    Args:
        points: ``(n, d)``, n at least k.
        k: Number of centres.
        generator: On the CPU.
    """
    n, norms = len(points), points.square().sum(1)  # once: a pass over the points costs as much as their products
    chosen = [int(torch.randint(n, (1,), generator=generator))]
    nearest = squared_distances(points, points[chosen], norms).squeeze(1)
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
        nearest = torch.minimum(nearest, squared_distances(points, points[index : index + 1], norms).squeeze(1))
    return torch.tensor(chosen)


def kmeans(
    points: Tensor,
    k: int,
    generator: torch.Generator,
    iterations: int = DEFAULT_ITERATIONS,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Tensor:
    """Return the ``(k, d)`` centres of the points ``(n, d)`` of one class; see :func:`kmeans_of_classes`."""
    return kmeans_of_classes(points.unsqueeze(0), k, [generator], iterations, tolerance)[0]


def kmeans_of_classes(
    points: Tensor,
    k: int,
    generators: Sequence[torch.Generator],
    iterations: int = DEFAULT_ITERATIONS,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Tensor:
    """Return the ``(b, k, d)`` centres of Lloyd's algorithm from a k-means++ start, for several classes at once.

    A cluster that loses all its points takes the point that is farthest from its own centre. A class stops on its own:
    what is clustered beside it makes no difference.

    Args:
        points: ``(b, n, d)``.
        k: Number of clusters of each class, at most n.
        generators: Of the start of each class, on the CPU.
        iterations: Most passes.
        tolerance: A class stops once the summed squared shift of its centres is at most this.

    Raises:
        ValueError: There are fewer points than clusters.
    """
    n = points.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"Expected 1 to {n} clusters for {n} points, got {k}.")
    starts = [plus_plus(x, k, generator) for x, generator in zip(points, generators, strict=True)]
    centres = torch.stack([x[start.to(x.device)] for x, start in zip(points, starts, strict=True)])
    running = torch.arange(len(points), device=points.device)
    moving, norms = points, points.square().sum(-1)
    for _ in range(iterations):
        moved = _means(moving, *squared_distances(moving, centres[running], norms).min(dim=2), k)
        shifts = (moved - centres[running]).square().sum(dim=(1, 2))
        centres[running] = moved
        going = shifts > tolerance
        if not bool(going.any()):
            break
        if not bool(going.all()):
            running, moving, norms = running[going], moving[going], norms[going]
    return centres


def _means(points: Tensor, distances: Tensor, owners: Tensor, k: int) -> Tensor:
    """Return the mean ``(b, k, d)`` of each cluster's points; an empty one gets a point far from its own centre."""
    b, n, d = points.shape
    cells = (owners + k * torch.arange(b, device=points.device).unsqueeze(1)).flatten()
    sizes = torch.bincount(cells, minlength=b * k).view(b, k)
    sums = points.new_zeros(b * k, d).index_add_(0, cells, points.reshape(b * n, d)).view(b, k, d)
    means = sums / sizes.clamp(min=1).unsqueeze(2).to(points.dtype)
    for c in (sizes == 0).any(dim=1).nonzero().flatten().tolist():
        empty = (sizes[c] == 0).nonzero().squeeze(1)
        means[c, empty] = points[c, distances[c].argsort(descending=True, stable=True)[: len(empty)]]
    return means


def nearest_distinct(points: Tensor, centres: Tensor, per_centre: int = 1) -> Tensor:
    """Return, for each centre in turn, the ``per_centre`` nearest points that no earlier centre has taken.

    Of points that are equally near, up to rounding, the first.

    Args:
        points: ``(n, d)``.
        centres: ``(k, d)`` with ``k * per_centre <= n``.
        per_centre: Points a centre takes.

    Returns:
        ``(k * per_centre,)`` different indices into ``points``, on the CPU.
    """
    distances = squared_distances(centres, points)
    # A cluster of two has both at the same distance: rounding (threads, devices, ranks) must not decide between them.
    scale = distances.amin(dim=1) + centres.square().sum(1) + points.square().sum(1).mean()
    slack = (TIE * torch.finfo(points.dtype).eps * scale).cpu()
    free, chosen = torch.ones(len(points), dtype=torch.bool), []
    for row, near in zip(distances.cpu(), slack, strict=True):
        for _ in range(per_centre):
            # not greater, rather than at most: features of a network that diverged are NaN, and any point will do
            index = int((free & ~(row > row[free].min() + near)).nonzero()[0])
            free[index] = False
            chosen.append(index)
    return torch.tensor(chosen)
