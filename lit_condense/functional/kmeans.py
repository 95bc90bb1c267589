"""k-means for picking representative images: keyed starts, no empty clusters, no image chosen twice.

Letters: b classes, n points of each, d entries, k clusters of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Seeding = Literal["kmeans++", "random"]
"""Where centres start: at points that lie far apart, or at random points (the k-means that DREAM's program uses)."""

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


def random_points(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Return ``k`` different rows of ``points`` as first centres, all with the same chance.

    Args:
        points: ``(n, d)``, n at least k.
        k: Number of centres.
        generator: On the CPU.
    """
    return torch.randperm(len(points), generator=generator)[:k]


def kmeans(
    points: Tensor,
    k: int,
    generator: torch.Generator,
    iterations: int = DEFAULT_ITERATIONS,
    tolerance: float = DEFAULT_TOLERANCE,
    seeding: Seeding = "kmeans++",
) -> Tensor:
    """Return the ``(k, d)`` centres of Lloyd's algorithm.

    A cluster that loses all its points takes the point that is farthest from its own centre.

    Args:
        points: ``(n, d)``.
        k: Number of clusters, at most n.
        generator: Of the start, on the CPU.
        iterations: Most passes.
        tolerance: It stops once the summed squared shift of the centres is at most this.
        seeding: See :data:`Seeding`.

    Raises:
        ValueError: There are fewer points than clusters.
    """
    n = len(points)
    if not 1 <= k <= n:
        raise ValueError(f"Expected 1 to {n} clusters for {n} points, got {k}.")
    first = plus_plus if seeding == "kmeans++" else random_points
    centres = points[first(points, k, generator).to(points.device)]
    norms = points.square().sum(-1)
    distances = squared_distances(points, centres, norms)
    for _ in range(iterations):
        moved = _means(points, *distances.min(dim=1), k)
        shifts = (moved - centres).square().sum(dim=1)
        centres = moved
        if not bool(shifts.sum() > tolerance):
            break
        # a cluster that keeps its points keeps its centre, and towards the end most do
        changed = shifts.nonzero().squeeze(1)
        distances[:, changed] = squared_distances(points, centres[changed], norms)
    return centres


def kmeans_of_classes(
    points: Tensor,
    k: int,
    generators: Sequence[torch.Generator],
    iterations: int = DEFAULT_ITERATIONS,
    tolerance: float = DEFAULT_TOLERANCE,
    seeding: Seeding = "kmeans++",
) -> Tensor:
    """Return the ``(b, k, d)`` centres of several classes, each as :func:`kmeans` gives them alone.

    One after the other: a class is work enough, and what is clustered beside it must not make a difference, not even to
    rounding, because ranks share out the classes.

    Args:
        points: ``(b, n, d)``.
        k: Number of clusters of each class, at most n.
        generators: Of the start of each class, on the CPU.
        iterations: As for :func:`kmeans`, and so the rest.
        tolerance: As above.
        seeding: As above.
    """
    each = zip(points, generators, strict=True)
    return torch.stack([kmeans(x, k, generator, iterations, tolerance, seeding) for x, generator in each])


def _means(points: Tensor, distances: Tensor, owners: Tensor, k: int) -> Tensor:
    """Return the mean ``(k, d)`` of each cluster's points; an empty one gets a point far from its own centre."""
    sizes = torch.bincount(owners, minlength=k)
    sums = points.new_zeros(k, points.shape[1]).index_add_(0, owners, points)
    means = sums / sizes.clamp(min=1).unsqueeze(1).to(points.dtype)
    empty = (sizes == 0).nonzero().squeeze(1)
    if len(empty):
        means[empty] = points[distances.argsort(descending=True, stable=True)[: len(empty)]]
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
