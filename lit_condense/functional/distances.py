"""Distances between two sets of gradients.

Every function takes ``real`` and ``synthetic``, dictionaries from parameter name to ``(k, *shape)`` tensors with the
same names and shapes (k class blocks), and returns one **sum** per block, ``(k,)``: nothing is averaged over layers,
rows or entries. A *row* is all that belongs to one output unit: the leading dimension of a parameter's shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Distance = Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor]

COSINE_EPSILON = 1e-6
"""Added to the product of the norms (the DC authors' program); it also makes two zero rows differ by 1."""

NORM_FLOOR = 1e-8
"""Smallest norm in EGM's cosine (Jiang et al., 2022: the norms are clamped, nothing is added)."""


def row_cosine(real: dict[str, Tensor], synthetic: dict[str, Tensor]) -> Tensor:
    """Sum of ``1 - cos`` over the rows of every tensor with at least two dimensions; 1-D tensors are skipped.

    ``cos = <a, b> / (|a| |b| + 1e-6)``. A block's value lies in ``[0, 2 * rows]``.
    Source: Zhao et al., ICLR 2021, eq. 9 (the authors' default distance).
    """
    return _sum(1 - _cosine(a, b) for a, b in _rows(real, synthetic))


def row_cosine_clamped(real: dict[str, Tensor], synthetic: dict[str, Tensor]) -> Tensor:
    """As ``row_cosine``, but with ``cos = <a, b> / (max(|a|, 1e-8) max(|b|, 1e-8))``: small gradients count in full.

    What EGM's program uses where its improved distance is not asked for (Jiang et al., 2022).
    """
    return _sum(1 - _clamped_cosine(a, b) for a, b in _rows(real, synthetic))


def row_cosine_norm(real: dict[str, Tensor], synthetic: dict[str, Tensor]) -> Tensor:
    """Sum over rows of ``1 - cos`` plus the Euclidean norm of the rows' difference; 1-D tensors are skipped.

    ``cos = <a, b> / (max(|a|, 1e-8) max(|b|, 1e-8))``; the norm's derivative at two equal rows is 0.
    Source: Jiang et al., *Delving into Effective Gradient Matching*, 2022.
    """
    return _sum(1 - _clamped_cosine(a, b) + (a - b).norm(dim=-1) for a, b in _rows(real, synthetic))


def squared_l2(real: dict[str, Tensor], synthetic: dict[str, Tensor]) -> Tensor:
    """Sum of squared differences over every entry of every tensor, 1-D tensors included."""
    return _sum((a - b).square() for a, b in _flat(real, synthetic))


def l1(real: dict[str, Tensor], synthetic: dict[str, Tensor]) -> Tensor:
    """Sum of absolute differences over every entry of every tensor, 1-D tensors included."""
    return _sum((a - b).abs() for a, b in _flat(real, synthetic))


def l1_mean(real: dict[str, Tensor], synthetic: dict[str, Tensor]) -> Tensor:
    """Sum over rows of the mean absolute difference within the row (one of IDC's metrics); 1-D entries are rows."""

    def terms() -> Iterator[Tensor]:
        for a, b in _pairs(real, synthetic):
            rows = (a - b).abs().flatten(2) if a.ndim > 2 else (a - b).abs().unsqueeze(-1)
            yield rows.mean(-1)

    return _sum(terms())


def global_cosine(real: dict[str, Tensor], synthetic: dict[str, Tensor]) -> Tensor:
    """``1 - cos`` of all tensors joined to one vector, 1-D tensors included, in ``[0, 2]``.

    ``cos = <a, b> / (|a| |b| + 1e-6)``.
    """
    a, b = (
        torch.cat([t.reshape(len(t), -1) for t in side], dim=1) for side in zip(*_pairs(real, synthetic), strict=True)
    )
    return 1 - _cosine(a, b)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    norms: Tensor = a.norm(dim=-1) * b.norm(dim=-1)
    return (a * b).sum(-1) / (norms + COSINE_EPSILON)


def _clamped_cosine(a: Tensor, b: Tensor) -> Tensor:
    norms: Tensor = a.norm(dim=-1).clamp(min=NORM_FLOOR) * b.norm(dim=-1).clamp(min=NORM_FLOOR)
    return (a * b).sum(-1) / norms


def _pairs(real: dict[str, Tensor], synthetic: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    if real.keys() != synthetic.keys():
        raise KeyError(f"Expected the same parameter names on both sides, got {list(real)} and {list(synthetic)}.")
    for name, a in real.items():
        yield a, synthetic[name]


def _rows(real: dict[str, Tensor], synthetic: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``(k, rows, entries)`` pairs of the tensors that have rows: two or more dimensions besides k."""
    for a, b in _pairs(real, synthetic):
        if a.ndim > 2:
            yield a.flatten(2), b.flatten(2)


def _flat(real: dict[str, Tensor], synthetic: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    for a, b in _pairs(real, synthetic):
        yield a.reshape(len(a), -1), b.reshape(len(b), -1)


def _sum(terms: Iterator[Tensor]) -> Tensor:
    """Add up ``(k, ...)`` terms over everything but k."""
    per_tensor = [term.reshape(len(term), -1).sum(1) for term in terms]
    if not per_tensor:
        raise ValueError("Expected at least one gradient tensor with two or more dimensions, got none to compare.")
    return torch.stack(per_tensor).sum(0)
