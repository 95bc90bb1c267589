"""AdaCore (Pooladzandi et al., *Adaptive Second Order Coresets for Data-efficient Machine Learning*, ICML 2022)."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from lit_condense.errors import SettingsError
from lit_condense.functional.last_layer_geometry import preconditioned_gradient_products
from lit_condense.selection.base import ScoringView
from lit_condense.selection.gradients import NearestCover

DEFAULT_DAMPING = 1e-4
"""Ours: the programs divide by Hessian entries of 0. Features below 1% of the root mean square are held back."""


class AdaCore(NearestCover):
    """As CRAIG, on gradients divided elementwise by their own Hessian diagonal.

    Minimises ``sum_i min_{j in S} |g_i / h_i - g_j / h_j|`` greedily, g and h one sample's gradient and Hessian
    diagonal in the last layer, as in the comparison of Shin et al. (*Loss-Curvature Matching*, AISTATS 2023), whose
    program has no damping and so gives NaN where a feature is exactly 0.

    Args:
        damping: Keeps the quotient finite; see
            :func:`~lit_condense.functional.last_layer_geometry.preconditioned_gradient_products`.
        weighted: Also give each image the number of candidates it is nearest to as its weight. Published results leave
            weights out.
    """

    tag = "adacore"

    def __init__(self, damping: float = DEFAULT_DAMPING, weighted: bool = False) -> None:
        if not (damping > 0 and math.isfinite(damping)):
            raise SettingsError(f"Expected AdaCore.damping to be above 0, got {damping}.")
        self.damping = damping
        self.weighted = weighted

    def _block(self, view: ScoringView, labels: Tensor) -> Callable[[slice], Tensor]:
        return preconditioned_gradient_products(view.features, view.logits, labels, self.damping).distances
