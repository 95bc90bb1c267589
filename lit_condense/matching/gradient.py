"""Gradient matching (Zhao, Mopuri, Bilen: *Dataset Condensation with Gradient Matching*, ICLR 2021)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lit_condense.errors import SettingsError
from lit_condense.functional import distances
from lit_condense.matching.base import MatchingLoss, Quantities

DISTANCES: dict[str, distances.Distance] = {
    "row_cosine": distances.row_cosine,
    "squared_l2": distances.squared_l2,
    "l1": distances.l1,
    "global_cosine": distances.global_cosine,
}


class GradientMatching(MatchingLoss):
    """Sum over classes of a distance between the real and the synthetic class gradient (DC, eq. 4 to 9).

    Args:
        distance: ``row_cosine`` (DC's own: 1 - cosine for each output unit, 1-D parameters skipped), ``squared_l2``,
            ``l1`` or ``global_cosine`` (these three read every parameter). All are sums, never means.
        weight: Factor on the loss.
        name: Tag in the logs.
    """

    def __init__(
        self,
        distance: Literal["row_cosine", "squared_l2", "l1", "global_cosine"] = "row_cosine",
        weight: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, name)
        if distance not in DISTANCES:
            raise SettingsError(f"Expected GradientMatching.distance to be one of {list(DISTANCES)}, got {distance!r}.")
        self.distance = distance

    def loss(self, real: Quantities, synthetic: Quantities) -> Tensor:
        """Return the distance summed over the class blocks."""
        return DISTANCES[self.distance](real.gradients, synthetic.gradients).sum()
