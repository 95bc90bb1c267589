"""Last-layer gradients and Hessian diagonals of single samples, in closed form.

For a last layer ``logits = W z + b`` with features ``z`` (d entries), softmax ``p`` and one-hot label ``y``, one
sample's cross-entropy has, with ``e = p - y`` and elementwise products,

* gradient          ``[e, vec(e z^T)]``
* Hessian diagonal  ``[p (1 - p), vec((p (1 - p)) (z z)^T)]``

both of length ``C * (d + 1)``: first the C bias coordinates, then the C x d weight coordinates row by row. These are
per sample: nothing is divided by a batch size (Shin et al., *Loss-Curvature Matching*, AISTATS 2023, section 2).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def last_layer_gradients(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Return each sample's cross-entropy gradient in the last layer.

    Args:
        features: ``(n, d)``, the input of the last layer.
        logits: ``(n, C)``.
        labels: ``(n,)``.

    Returns:
        ``(n, C * (d + 1))``, differentiable in features and logits.
    """
    return _with_bias(softmax_error(logits, labels), features)


def last_layer_hessian_diagonal(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the diagonal of each sample's cross-entropy Hessian in the last layer; it does not depend on the labels.

    Args:
        features: ``(n, d)``.
        logits: ``(n, C)``.
        labels: ``(n,)``; only its length is checked.

    Returns:
        ``(n, C * (d + 1))``, non-negative.
    """
    if len(labels) != len(logits):
        raise ValueError(f"Expected one label for each of the {len(logits)} samples, got {len(labels)}.")
    p = logits.softmax(-1)
    return _with_bias(p * (1 - p), features.square())


def last_layer_gradient_variance(
    features: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Return, for every last-layer coordinate, the unbiased variance of the per-sample gradients (divisor n - 1).

    With weights, the samples are independent draws from a population of N with probabilities p, each with its weight
    ``w = 1 / (N p)``. The population's mean square is estimated by the mean of ``w g^2``, the square of its mean by the
    mean of ``w g w' g'`` over all pairs of *different* draws, whose expectation is a product. The difference is an
    unbiased estimate of the population's variance (divisor N), which a single batch may put below 0. With weights of 1
    it is the formula without them.

    Args:
        features: ``(n, d)``, n at least 2.
        logits: ``(n, C)``.
        labels: ``(n,)``.
        weights: ``(n,)``; None: all samples count alike.

    Returns:
        ``(C * (d + 1),)``: first the C bias coordinates. Differentiable in features and logits.
    """
    if len(logits) < 2:
        raise ValueError(f"Expected at least 2 samples for a variance, got {len(logits)}.")
    # Each coordinate is an outer product e_c z_k, so its two moments are matrix products and the n x C(d + 1) gradients
    # are never formed. In float64: the difference of the moments cancels.
    n, errors = len(logits), softmax_error(logits, labels).double()
    if weights is None:
        sums, squares = errors.T @ _one_and(features), errors.square().T @ _one_and(features).square()
        variance = (squares - sums.square() / n) / (n - 1)
    else:
        inputs, weighted = _one_and(features), weights.double().unsqueeze(1) * errors
        sums, own = weighted.T @ inputs, weighted.square().T @ inputs.square()
        mean_square = (weighted * errors).T @ inputs.square() / n
        variance = mean_square - (sums.square() - own) / (n * (n - 1))
    return torch.cat([variance[:, 0], variance[:, 1:].flatten()]).to(features.dtype)


def _one_and(features: Tensor) -> Tensor:
    """Return ``[1, z]`` in float64: the bias is the weight of an input that is always 1."""
    return torch.cat([features.new_ones(len(features), 1), features], dim=1).double()


def softmax_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``softmax(logits) - onehot(labels)``, ``(n, C)``."""
    return logits.softmax(-1) - F.one_hot(labels, logits.shape[-1]).to(logits.dtype)


def _with_bias(left: Tensor, right: Tensor) -> Tensor:
    """Return ``[left, vec(left right^T)]`` for every sample."""
    return torch.cat([left, torch.einsum("nc,nd->ncd", left, right).flatten(1)], dim=1)
