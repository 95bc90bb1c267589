"""LCMat-S (Shin et al., *Loss-Curvature Matching for Dataset Selection and Condensation*, AISTATS 2023)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lit_condense.errors import check_choice, check_least
from lit_condense.functional.last_layer_geometry import (
    gradient_products,
    hessian_products,
    l1_distances,
    widest_coordinates,
)
from lit_condense.selection.base import ProxyOutputs
from lit_condense.selection.candidates import LCMatVariant
from lit_condense.selection.gradients import NearestCover
from lit_condense.selection.program import PROGRAM_OFFSET, program_scales

DEFAULT_RHO = 0.05
"""The program's default; the paper tunes rho in {0.01, 0.05, 0.1, 0.5}."""

DEFAULT_COORDINATES = 100
"""Of the Hessian diagonal (as published)."""


class LCMatS(NearestCover):
    """Images that match the loss and its curvature: they cover gradients and Hessian diagonals of the last layer.

    Minimises ``sum_i min_{j in S} (|g_i - g_j|_2 + rho / 2 * |h_i - h_j|_1)`` greedily. The L1 distance is over the
    coordinates of the Hessian diagonal h with the largest variance over the candidates. ``rho: 0`` is CRAIG.

    Args:
        rho: Radius of the ball of weights in which the losses are to agree, 0 or more.
        coordinates: Coordinates of the Hessian diagonal in the L1 distance.
        weighted: Also give each image the number of candidates it is nearest to as its weight. Published results leave
            weights out.
        variant: ``lcmat_program`` weighs the L1 distance by rho instead of ``rho / 2``, takes gradients and Hessians of
            a loss that is averaged over a batch of 128 (those of the last, smaller batch are larger), and covers with
            the similarity ``10 - distance``, so that candidates farther than 10 count as uncovered. (Its batch-norm
            statistics, those of batches of one class, are not offered here.)
    """

    def __init__(
        self,
        rho: float = DEFAULT_RHO,
        coordinates: int = DEFAULT_COORDINATES,
        *,
        weighted: bool = False,
        variant: LCMatVariant = "definition",
    ) -> None:
        check_least("LCMatS", 0, rho=rho)
        check_least("LCMatS", 1, coordinates=coordinates)
        check_choice("LCMatS.variant", variant, LCMatVariant)
        self.rho = rho
        self.coordinates = coordinates
        self.weighted = weighted
        self.variant: LCMatVariant = variant

    def _block(self, view: ProxyOutputs, labels: Tensor) -> Callable[[slice], Tensor]:
        published = self.variant == "lcmat_program"
        gradients = gradient_products(view.features, view.logits, labels)
        hessians = hessian_products(view.features, view.logits)
        if published:
            scales = program_scales(len(labels))
            gradients, hessians = gradients.scaled(scales), hessians.scaled(scales)
        if self.rho == 0:
            return gradients.distances
        values = hessians.coordinates(widest_coordinates(hessians, self.coordinates))
        weight = self.rho if published else self.rho / 2
        return lambda rows: gradients.distances(rows).add_(l1_distances(values, rows), alpha=weight)

    def _similarity(self, distances: Tensor) -> Tensor:
        if self.variant == "lcmat_program":
            return distances.neg_().add_(PROGRAM_OFFSET)
        return super()._similarity(distances)
