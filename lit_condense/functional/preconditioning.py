"""Distances between last-layer gradients divided by a Hessian diagonal that is not each sample's own (AdaCore).

Letters as in :mod:`lit_condense.functional.last_layer_geometry`: n samples, d features, K classes, B of the n samples
compared at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_condense.functional.last_layer_geometry import (
    OuterProducts,
    gradient_products,
    hessian_products,
    squared_distances,
)


def mean_preconditioned_distances(
    features: Tensor, logits: Tensor, labels: Tensor, damping: float
) -> Callable[[slice], Tensor]:
    """Return what gives ``(B, n)`` distances of the samples' gradients divided by their mean Hessian diagonal.

    A coordinate's denominator is ``h + damping * mean(h)``, h its Hessian entry averaged over the samples and the mean
    over all coordinates. Where all of h is 0 (every prediction is sure), gradients are not divided.

    Args:
        features: ``(n, d)``.
        logits: ``(n, K)``.
        labels: ``(n,)``, beside the features.
        damping: Above 0.
    """
    gradients = gradient_products(features, logits, labels)
    curvature = hessian_products(features, logits).mean()
    denominators = curvature + damping * curvature.mean()
    squared = torch.where(denominators > 0, denominators, 1).square().reciprocal()  # (K, 1 + d)
    left, right = gradients.left, gradients.right
    norms = (left.square() * (right.square() @ squared[:, 1:].T + squared[:, 0])).sum(1)

    def distances(rows: slice) -> Tensor:
        products = (left[rows] * squared[:, 0]) @ left.T
        for c in range(left.shape[1]):  # the weights of the coordinates do not factorise, and n x D is too much
            own = (right[rows] * squared[c, 1:]).mul_(left[rows, c].unsqueeze(1))
            products.addmm_(own, (right * left[:, c].unsqueeze(1)).T)
        return squared_distances(products, norms, rows).sqrt_()

    return distances


def program_preconditioned_distances(features: Tensor, logits: Tensor, labels: Tensor) -> Callable[[slice], Tensor]:
    """Return what gives ``(B, n)`` distances of gradients divided by own Hessian diagonals as LCMat's program has them.

    It divides by 0 and then sets every distance that is not a number to 0. A feature that is exactly 0 (after a ReLU
    nearly every sample has one) makes the quotient ``0 * infinity`` and all distances of its sample NaN. A prediction
    that is sure in float32 is an infinite quotient, which among samples of one class gives NaN as well.

    Args:
        features: ``(n, d)``.
        logits: ``(n, K)``.
        labels: ``(n,)``, beside the features.
    """
    p = logits.float().softmax(1)
    own = labels.unsqueeze(1)
    left = p.scatter(1, own, p.gather(1, own) - 1) / (p * (1 - p))
    right = features.float() / features.float().square()
    usable = left.isfinite().all(1) & right.isfinite().all(1)
    known = usable.unsqueeze(1)
    quotients = OuterProducts(left.double().where(known, 0), right.double().where(known, 0))

    def distances(rows: slice) -> Tensor:
        return quotients.distances(rows).mul_(usable).mul_(known[rows])

    return distances
