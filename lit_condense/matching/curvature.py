"""Loss-curvature matching for condensation (Shin et al.: *Loss-Curvature Matching*, AISTATS 2023, LCMat-C)."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor

from lit_condense.errors import check_choice
from lit_condense.functional.curvature import last_layer_gradient_variance
from lit_condense.matching.base import MatchingLoss
from lit_condense.matching.quantities import Quantities

Norm = Literal["l1", "squared_l2"]


class CurvatureMatching(MatchingLoss):
    """``rho / 2`` times the difference of the variances of last-layer per-sample gradients, class by class.

    The variances stand in for the diagonal of the Hessian. Add it to a gradient-matching loss to get LCMat-C. Where the
    real images have weights, :func:`last_layer_gradient_variance` estimates their variance with these, without bias.

    Args:
        rho: Radius of the ball in which the loss gap shall stay flat; the paper tunes 0.01 to 0.5 for selection and
            states none for condensation.
        norm: ``l1`` (the paper's single bars) or ``squared_l2``, summed over the coordinates.
        name: Tag in the logs.
    """

    needs = frozenset({"features", "logits"})
    reads_weights = True
    least_images = 2

    def __init__(self, rho: float = 0.05, norm: Norm = "l1", *, name: str | None = None) -> None:
        super().__init__(rho / 2, name)
        check_choice("CurvatureMatching.norm", norm, Norm)
        self.rho = rho
        self.norm = norm

    def loss(self, real: Quantities, synthetic: Quantities) -> Tensor:
        """Return the norm of the difference of variances, summed over the class blocks."""
        difference = _variances(real) - _variances(synthetic)
        return difference.abs().sum() if self.norm == "l1" else difference.square().sum()


def _variances(side: Quantities) -> Tensor:
    features, logits, labels = (cast(Tensor, found) for found in (side.features, side.logits, side.labels))
    weights = [None] * len(labels) if side.weights is None else side.weights
    blocks = zip(features, logits, labels, weights, strict=True)
    return torch.stack([last_layer_gradient_variance(*block) for block in blocks])
