"""What selections share that look at last-layer gradients: their input, the pairs they compare, and covering them.

Letters: n candidates, d features, K classes, k images to keep; D = K (d + 1) entries of a gradient.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from lit_condense.errors import SettingsError
from lit_condense.functional import greedy
from lit_condense.functional.last_layer_geometry import pairs
from lit_condense.rng import RandomKey
from lit_condense.selection.base import Candidates, Choice, ProxyOutputs, Selection
from lit_condense.selection.candidates import in_index_order, require_finite

MOST_PAIRED = 16_384
"""Candidates of which every pair can be compared: their float32 matrix takes 1 GiB."""


class GradientSelection(Selection):
    """Looks at the candidates' last-layer gradients through the first proxy model; draws nothing."""

    def choose(self, candidates: Candidates, count: int, key: RandomKey) -> Choice:
        """Return ``count`` candidates in the order they were picked; of equals, the first image of the data.

        Raises:
            DataError: Features, logits or what follows from them are NaN or infinite.
            SettingsError: There are too many candidates for a method that compares every pair of them.
        """
        self._check_number(len(candidates))
        ordered, order = in_index_order(candidates)
        view = ordered.view
        finite = view.features.isfinite().all(1) & view.logits.isfinite().all(1)
        require_finite(finite, "features and logits", type(self).__name__)
        choice = self._choose(ordered, count)
        return Choice(order[choice.positions], choice.weights)

    def _check_number(self, n: int) -> None:
        """Refuse too many candidates."""

    @abstractmethod
    def _choose(self, candidates: Candidates, count: int) -> Choice:
        """Return the choice among candidates in the order of the data."""


class PairwiseSelection(GradientSelection):
    """Compares every pair of candidates: a few times ``n^2`` numbers, but never ``n x D``."""

    @abstractmethod
    def _block(self, view: ProxyOutputs, labels: Tensor) -> Callable[[slice], Tensor]:
        """Return what gives some rows ``(B, n)`` of the matrix of pairs."""

    def _check_number(self, n: int) -> None:
        if n > MOST_PAIRED:
            raise SettingsError(
                f"{type(self).__name__} compares every pair of candidates, at most {MOST_PAIRED} of them, but got {n}. "
                "Use a balanced budget, which chooses among the images of one class at a time."
            )

    def _pairs(self, view: ProxyOutputs, labels: Tensor) -> Tensor:
        """Return the matrix of pairs, ``(n, n)`` float32."""
        matrix = pairs(self._block(view, labels), len(labels), view.features.device)
        low, high = torch.aminmax(matrix, dim=1)
        require_finite(low.isfinite() & high.isfinite(), "distances", type(self).__name__)
        return matrix


class NearestCover(PairwiseSelection):
    """Facility location on distances: few images, so that every candidate has a near one among them.

    Minimises ``sum_i min_{j in S} D_ij`` greedily. With the similarity ``max(D) - D_ij`` that is facility location; any
    larger constant picks the same images. The weight of an image is the number of candidates it is nearest to, itself
    included.
    """

    def _choose(self, candidates: Candidates, count: int) -> Choice:
        similarity = self._similarity(self._pairs(candidates.view, candidates.labels))
        positions = greedy.lazy_greedy(greedy.FacilityLocation(similarity), count)
        if not self.weighted:
            return Choice(positions)
        sizes = torch.bincount(greedy.assignments(similarity, positions), minlength=count)
        return Choice(positions, sizes.float())

    def _similarity(self, distances: Tensor) -> Tensor:
        """Turn distances into similarities, in place."""
        largest = distances.max()
        return distances.neg_().add_(largest)
