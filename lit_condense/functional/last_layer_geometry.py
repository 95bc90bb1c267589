"""Distances and inner products between last-layer gradients of single samples, never written out.

Letters: n samples, d features (the input of the last linear layer), K classes, B of the n samples compared at a time.

A sample's gradient, its Hessian diagonal and its preconditioned gradient all have the form ``[a, vec(a b^T)]`` of
length ``D = K (d + 1)`` with a of K and b of d entries (see :mod:`lit_condense.functional.curvature`). Two of them have
the inner product ``(a.a')(1 + b.b')``, so two products of factors replace the ``n x D`` matrix. Everything is per
sample: nothing is divided by a batch size. It is computed in float64, because a squared distance is a small difference
of large numbers (and matrix products in float32 may run in TF32).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

BLOCK = 256
"""Rows of a matrix of pairs computed at a time: a handful of ``(BLOCK, n)`` float64 blocks exist at once."""


@dataclass(frozen=True)
class OuterProducts:
    """Vectors ``[a, vec(a b^T)]`` of many samples, held by their factors.

    A single vector of this space (a sum of samples, a target) is written as ``(K, 1 + d)``: the bias entry of each
    class first, then its row of weights.

    Args:
        left: a, ``(n, K)`` float64.
        right: b, ``(n, d)`` float64.
    """

    left: Tensor
    right: Tensor

    def __len__(self) -> int:
        return len(self.left)

    @cached_property
    def squared_norms(self) -> Tensor:
        """``(n,)``, non-negative."""
        return _squared_norms(self.left) * (1 + _squared_norms(self.right))

    def scaled(self, factors: Tensor) -> OuterProducts:
        """Return the samples, each times its factor ``(n, 1)``."""
        return OuterProducts(self.left * factors.to(self.left.device), self.right)

    def inner_products(self, rows: slice | Tensor, columns: slice | Tensor = slice(None)) -> Tensor:
        """Return ``(B, n)``, the inner products of some samples (a slice or indices) with all or some of them."""
        return (self.right[rows] @ self.right[columns].T).add_(1).mul_(self.left[rows] @ self.left[columns].T)

    def squared_distances(self, rows: slice) -> Tensor:
        """Return ``(B, n)``, squared Euclidean distances, never negative; 0 from a sample to itself."""
        return squared_distances(self.inner_products(rows), self.squared_norms, rows)

    def distances(self, rows: slice) -> Tensor:
        """Return ``(B, n)``, Euclidean distances."""
        return self.squared_distances(rows).sqrt_()

    def cosines(self, rows: slice) -> Tensor:
        """Return ``(B, n)`` in [-1, 1]; a vector of norm 0 has cosine 0 with every vector, itself included."""
        norms = self.squared_norms.sqrt()
        inverse = torch.where(norms > 0, 1 / norms, 0)
        return self.inner_products(rows).mul_(inverse).mul_(inverse[rows].unsqueeze(1)).clamp_(-1, 1)

    def weighted_sum(self, weights: Tensor, rows: slice | Tensor = slice(None)) -> Tensor:
        """Return ``(K, 1 + d)``, the sum of some of the samples, each times its weight ``(B,)``."""
        return _products(self.left[rows] * weights.unsqueeze(1), self.right[rows])

    def mean(self) -> Tensor:
        """Return ``(K, 1 + d)``, the mean over the samples."""
        return _products(self.left, self.right) / len(self)

    def inner_products_with(self, vector: Tensor) -> Tensor:
        """Return ``(n,)``, every sample's inner product with one vector ``(K, 1 + d)``."""
        return (self.right @ vector[:, 1:].T).add_(vector[:, 0]).mul_(self.left).sum(1)

    def variances(self) -> Tensor:
        """Return ``(K, 1 + d)``, the variance of each coordinate over the samples (divisor n)."""
        mean_square = _products(self.left.square(), self.right.square()) / len(self)
        return (mean_square - self.mean().square()).clamp(min=0)

    def coordinates(self, chosen: Tensor) -> Tensor:
        """Return ``(n, m)``, the chosen coordinates of every sample.

        Args:
            chosen: ``(m,)`` int64, positions in the flattened ``(K, 1 + d)``.
        """
        width = 1 + self.right.shape[1]
        column = chosen % width
        weights = self.right[:, (column - 1).clamp(min=0)]
        return self.left[:, chosen // width] * torch.where(column == 0, 1, weights)


def gradient_products(features: Tensor, logits: Tensor, labels: Tensor) -> OuterProducts:
    """Return the samples' cross-entropy gradients in the last layer, ``a = softmax - onehot`` and ``b`` the features.

    Args:
        features: ``(n, d)``.
        logits: ``(n, K)``.
        labels: ``(n,)``, beside the features.
    """
    return OuterProducts(precise_softmax_error(logits, labels), features.double())


def gradient_norms(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the Euclidean norm of each sample's cross-entropy gradient in the last layer, bias included.

    It is ``|softmax - onehot| * sqrt(1 + |z|^2)``: the gradient is the outer product of the error and ``[1, z]``.

    Args:
        features: z, ``(n, d)``.
        logits: ``(n, K)``.
        labels: ``(n,)``.

    Returns:
        ``(n,)`` float64, not negative.
    """
    return gradient_products(features, logits, labels).squared_norms.sqrt()


def precise_softmax_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``softmax(logits) - onehot(labels)``, ``(n, K)`` float64, with all its digits for confident predictions.

    Directions of gradients depend on them: where p is nearly 1, ``p - 1`` would be the rounding of p.
    """
    error = logits.double().softmax(1)
    own = labels.unsqueeze(1)
    error.scatter_(1, own, 0)
    return error.scatter_(1, own, -error.sum(1, keepdim=True))


def hessian_products(features: Tensor, logits: Tensor) -> OuterProducts:
    """Return the samples' Hessian diagonals in the last layer, ``a = p (1 - p)`` and b the squared features.

    Args:
        features: ``(n, d)``.
        logits: ``(n, K)``.
    """
    p = logits.double().softmax(1)
    return OuterProducts(p * (1 - p), features.double().square())


def preconditioned_gradient_products(features: Tensor, logits: Tensor, labels: Tensor, damping: float) -> OuterProducts:
    """Return the samples' gradients, each coordinate divided by its own Hessian diagonal (AdaCore, damped).

    The quotient ``g / h`` is ``e / (p (1 - p))`` on the bias and that times ``1 / z`` on the weights, so it factorises.
    Both factors are made finite by themselves:

    * ``e / (p (1 - p))`` is ``1 / (1 - p)``, and ``-1 / p`` for the own class, also in the limit of a sample without
      gradient and curvature. Only the denominators are held at ``damping`` or more: what a sample that is confidently
      wrong reaches.
    * ``1 / z`` becomes ``z / (z^2 + damping * mean(z^2))``, the mean over samples and features: 0 where a feature is 0
      (such a weight has neither gradient nor curvature), largest at ``|z| = sqrt(damping)`` root mean squares.

    Args:
        features: ``(n, d)``.
        logits: ``(n, K)``.
        labels: ``(n,)``, beside the features.
        damping: Above 0.
    """
    p = logits.double().softmax(1)
    own = labels.unsqueeze(1)
    left = 1 / (1 - p).clamp(min=damping)
    left.scatter_(1, own, -1 / p.gather(1, own).clamp(min=damping))
    z = features.double()
    squares = z.square()
    damped = squares.add_(damping * squares.mean())
    return OuterProducts(left, torch.where(damped > 0, z / damped, 0))


def squared_distances(products: Tensor, squared_norms: Tensor, rows: slice) -> Tensor:
    """Turn inner products ``(B, n)`` of some of n vectors with all of them into squared distances, in place.

    Never negative; 0 from a vector to itself.
    """
    squares = products.mul_(-2).add_(squared_norms)
    squares.add_(squared_norms[rows].unsqueeze(1)).clamp_(min=0)
    own = torch.arange(len(squared_norms), device=squares.device)[rows]
    squares[torch.arange(len(own), device=squares.device), own] = 0
    return squares


def widest_coordinates(vectors: OuterProducts, count: int) -> Tensor:
    """Return the ``count`` coordinates (all, if there are fewer) with the largest variance over the samples.

    Returns:
        ``(m,)`` int64, positions in the flattened ``(K, 1 + d)``, the widest first; the lowest first among equals.
    """
    return vectors.variances().flatten().argsort(descending=True, stable=True)[:count]


def l1_distances(points: Tensor, rows: slice) -> Tensor:
    """Return ``(B, n)``, the summed absolute differences between some rows of ``(n, m)`` and all of them."""
    distances: Tensor = torch.cdist(points[rows], points, p=1)
    return distances


def pairs(block: Callable[[slice], Tensor], n: int, device: torch.device) -> Tensor:
    """Return the ``(n, n)`` float32 matrix that ``block`` gives ``BLOCK`` rows at a time."""
    matrix = torch.empty(n, n, dtype=torch.float32, device=device)
    for start in range(0, n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        matrix[rows] = block(rows)
    return matrix


def _squared_norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms.square()


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Return the sum over samples of ``a [1, b]^T``, ``(K, 1 + d)``."""
    return torch.cat([left.sum(0).unsqueeze(1), left.T @ right], dim=1)
