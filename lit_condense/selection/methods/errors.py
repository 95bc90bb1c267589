"""The scores of errors and of gradient norms, averaged over networks.

Letters: n candidates, d features, K classes, k images to keep; z features, p = softmax(logits), y the one-hot label.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_condense.errors import DataError, SettingsError, check_choice
from lit_condense.functional.curvature import softmax_error
from lit_condense.functional.geometry import ROWS
from lit_condense.selection.base import Candidates, ProxyOutputs, Selection
from lit_condense.selection.candidates import Variant
from lit_condense.selection.program import program_scales
from lit_condense.selection.scored import ScoreSelection

NETWORKS = 10
"""Proxy models that GraNd and EL2N average over (Paul et al., NeurIPS 2021)."""


class GraNd(ScoreSelection):
    """Largest expected gradient norm: the mean over networks of ``|g| = |p - y| sqrt(1 + |z|^2)`` of the last layer.

    g is one sample's own gradient. Source: Paul et al., *Deep Learning on a Data Diet*, NeurIPS 2021, definition 2.1.

    Args:
        networks: Proxy models that are averaged over.
        variant: ``deepcore`` takes gradients of a loss that is averaged over a batch of 128 of the training split in
            its order: those of the last, smaller batch are larger (CIFAR-10's last 80 images, by 1.6).
    """

    tag = "grand"

    def __init__(self, networks: int = NETWORKS, variant: Variant = "definition") -> None:
        _check_networks("GraNd", networks)
        check_choice("GraNd.variant", variant, Variant)
        self.networks = networks
        self.variant: Variant = variant

    def priorities(self, candidates: Candidates) -> Tensor:
        """Return the mean gradient norms."""
        norms = _mean_over_networks(self, candidates, _gradient_norms)
        if self.variant == "definition":
            return norms
        return norms * program_scales(len(candidates.real)).to(norms.device)[candidates.indices, 0]


class EL2N(ScoreSelection):
    """Largest error: the mean over networks of ``|p - y|`` (Paul et al., NeurIPS 2021, definition 2.2).

    Args:
        networks: Proxy models that are averaged over.
    """

    tag = "el2n"

    def __init__(self, networks: int = NETWORKS) -> None:
        _check_networks("EL2N", networks)
        self.networks = networks

    def priorities(self, candidates: Candidates) -> Tensor:
        """Return the mean error norms."""
        return _mean_over_networks(self, candidates, _error_norms)


def _mean_over_networks(
    selection: Selection, candidates: Candidates, score: Callable[[ProxyOutputs, Tensor], Tensor]
) -> Tensor:
    views = candidates.views[: selection.networks]
    if len(views) < selection.networks:
        raise DataError(
            f"{type(selection).__name__} averages over {selection.networks} proxy models, but got {len(views)}. "
            "Train more or lower `networks`."
        )
    return torch.stack([score(view, candidates.labels) for view in views]).mean(0)


def _error_norms(view: ProxyOutputs, labels: Tensor) -> Tensor:
    """Return ``|p - y|``, ``(n,)`` float64: in float32 the errors of confident predictions would all be 0."""
    parts = zip(torch.split(view.logits, ROWS), torch.split(labels, ROWS), strict=True)
    return torch.cat([softmax_error(logits.double(), y).norm(dim=1) for logits, y in parts])


def _gradient_norms(view: ProxyOutputs, labels: Tensor) -> Tensor:
    lengths = torch.linalg.vector_norm(view.features, dim=1).double()
    return _error_norms(view, labels) * torch.hypot(lengths, torch.ones_like(lengths))


def _check_networks(method: str, networks: int) -> None:
    if networks < 1:
        raise SettingsError(f"Expected {method}.networks to be 1 or more proxy models, got {networks}.")
