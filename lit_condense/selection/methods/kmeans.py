"""The real images nearest to k-means centres."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lit_condense.errors import check_choice
from lit_condense.functional.kmeans import kmeans, nearest_distinct
from lit_condense.rng import RandomKey
from lit_condense.selection.base import Candidates, Choice, Selection
from lit_condense.selection.candidates import in_index_order, require_finite

Space = Literal["pixels", "features"]


class KMeansNearest(Selection):
    """The images nearest to the centres of as many clusters, each taken once.

    Args:
        space: Where distances are measured: ``pixels`` (normalised; needs no network) or ``features`` of a proxy
            network.
    """

    tag = "kmeans"

    def __init__(self, space: Space = "pixels") -> None:
        check_choice("KMeansNearest.space", space, Space)
        self.space = space
        self.networks = 0 if space == "pixels" else 1

    def choose(self, candidates: Candidates, count: int, key: RandomKey) -> Choice:
        """Return the candidates nearest to ``count`` centres."""
        ordered, order = in_index_order(candidates)
        points = self._points(ordered)
        require_finite(points.isfinite().all(1), self.space, type(self).__name__)
        return Choice(order[nearest_distinct(points, kmeans(points, count, key.generator()))])

    def _points(self, candidates: Candidates) -> Tensor:
        if self.space == "features":
            return candidates.view.features
        return candidates.real.at(candidates.indices).flatten(1)
