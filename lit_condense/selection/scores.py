"""Selections that rank the candidates by one score each, and the scores of errors and of forgetting.

Letters: n candidates, d features, K classes, k images to keep; z features, p = softmax(logits), y the one-hot label.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_condense.errors import DataError, SettingsError, check_choice
from lit_condense.functional.curvature import softmax_error
from lit_condense.rng import RandomKey
from lit_condense.selection.base import Candidates, Choice, ScoringView, Selection
from lit_condense.selection.program import program_scales

Variant = Literal["definition", "deepcore"]
LCMatVariant = Literal["definition", "lcmat_program"]
"""``definition``: as the method's paper defines it. ``deepcore``: as DeepCore's program (Guo et al., DEXA 2022)."""

NETWORKS = 10
"""Scoring networks that GraNd and EL2N average over (Paul et al., NeurIPS 2021)."""

ROWS = 4096
"""Candidates whose logits are held in double precision at a time."""


class ScoreSelection(Selection):
    """Keeps the candidates with the highest priority, whatever else is kept; of equals, the first image of the data."""

    @abstractmethod
    def priorities(self, candidates: Candidates) -> Tensor:
        """Return ``(n,)`` numbers, the largest of the candidates to keep first."""

    def choose(self, candidates: Candidates, count: int, key: RandomKey) -> Choice:
        """Return the ``count`` candidates of the highest priority, highest first; nothing is drawn.

        Raises:
            DataError: A priority is NaN or infinite.
        """
        ordered, order = in_index_order(candidates)
        priorities = self.priorities(ordered).cpu()
        require_finite(priorities.isfinite(), "scores", type(self).__name__)
        return Choice(order[priorities.argsort(descending=True, stable=True)[:count]])


class GraNd(ScoreSelection):
    """Largest expected gradient norm: the mean over networks of ``|g| = |p - y| sqrt(1 + |z|^2)`` of the last layer.

    g is one sample's own gradient. Source: Paul et al., *Deep Learning on a Data Diet*, NeurIPS 2021, definition 2.1.

    Args:
        networks: Scoring networks that are averaged over.
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
        networks: Scoring networks that are averaged over.
    """

    tag = "el2n"

    def __init__(self, networks: int = NETWORKS) -> None:
        _check_networks("EL2N", networks)
        self.networks = networks

    def priorities(self, candidates: Candidates) -> Tensor:
        """Return the mean error norms."""
        return _mean_over_networks(self, candidates, _error_norms)


class Forgetting(ScoreSelection):
    """Most often forgotten: how often training went from right to wrong on an image (Toneva et al., ICLR 2019).

    Args:
        variant: In the definition an image that never was right counts as forgotten more often than all others;
            ``deepcore`` counts it as never forgotten.
    """

    tracks_forgetting: ClassVar[bool] = True

    def __init__(self, variant: Variant = "definition") -> None:
        check_choice("Forgetting.variant", variant, Variant)
        self.variant: Variant = variant

    def priorities(self, candidates: Candidates) -> Tensor:
        """Return the counts, with a number for images that never were right."""
        counts = candidates.forgetting
        if counts is None:
            raise DataError(
                "Forgetting needs the forgetting counts of the scoring network's training, but got none. "
                "Track them while it trains."
            )
        never_right = int(counts.max()) + 1 if self.variant == "definition" else 0
        return torch.where(counts < 0, never_right, counts)


def in_index_order(candidates: Candidates) -> tuple[Candidates, Tensor]:
    """Return the candidates in the order of the data, and where each stood among those given, ``(n,)`` on the CPU.

    Choosing in this order makes a choice independent of the order given: ties, draws and the last digits of sums too.
    """
    order = candidates.indices.argsort()
    if torch.equal(order, torch.arange(len(order))):
        return candidates, order
    forgetting = candidates.forgetting
    ordered = Candidates(
        candidates.real,
        candidates.indices[order],
        _rows(candidates.labels, order),
        [replace(v, features=_rows(v.features, order), logits=_rows(v.logits, order)) for v in candidates.views],
        None if forgetting is None else _rows(forgetting, order),
        candidates.validation,
    )
    return ordered, order


def require_finite(finite: Tensor, what: str, method: str) -> None:
    """Refuse candidates of which a value is not finite.

    Args:
        finite: ``(n,)``, whether the candidate's is.
        what: The values, for the message.
        method: The selection, for the message.

    Raises:
        DataError: One is not.
    """
    bad = int((~finite).sum())
    if bad:
        raise DataError(
            f"{method} needs finite {what}, but those of {bad} of {len(finite)} candidates are NaN or infinite. "
            "The scoring network has diverged or is constant: lower its learning rate, and look at the images."
        )


def _rows(values: Tensor, order: Tensor) -> Tensor:
    return values[order.to(values.device)]


def _check_networks(method: str, networks: int) -> None:
    if networks < 1:
        raise SettingsError(f"Expected {method}.networks to be 1 or more scoring networks, got {networks}.")


def _mean_over_networks(
    selection: Selection, candidates: Candidates, score: Callable[[ScoringView, Tensor], Tensor]
) -> Tensor:
    views = candidates.views[: selection.networks]
    if len(views) < selection.networks:
        raise DataError(
            f"{type(selection).__name__} averages over {selection.networks} scoring networks, but got {len(views)}. "
            "Train more or lower `networks`."
        )
    return torch.stack([score(view, candidates.labels) for view in views]).mean(0)


def _error_norms(view: ScoringView, labels: Tensor) -> Tensor:
    """Return ``|p - y|``, ``(n,)`` float64: in float32 the errors of confident predictions would all be 0."""
    parts = zip(torch.split(view.logits, ROWS), torch.split(labels, ROWS), strict=True)
    return torch.cat([softmax_error(logits.double(), y).norm(dim=1) for logits, y in parts])


def _gradient_norms(view: ScoringView, labels: Tensor) -> Tensor:
    lengths = torch.linalg.vector_norm(view.features, dim=1).double()
    return _error_norms(view, labels) * torch.hypot(lengths, torch.ones_like(lengths))
