"""AdaCore (Pooladzandi et al., *Adaptive Second Order Coresets for Data-efficient Machine Learning*, ICML 2022)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor

from lit_condense.errors import SettingsError, check_choice
from lit_condense.functional.last_layer_geometry import preconditioned_gradient_products
from lit_condense.functional.preconditioning import mean_preconditioned_distances, program_preconditioned_distances
from lit_condense.selection.base import ProxyOutputs
from lit_condense.selection.candidates import LCMatVariant
from lit_condense.selection.gradients import NearestCover
from lit_condense.selection.program import PROGRAM_OFFSET

Hessian = Literal["mean", "sample"]

DEFAULT_DAMPING = 1.0
"""Ours, by measurement (table of settings in docs/results.md): the programs divide by Hessian entries of 0, and lightly
damped quotients single out images that the proxy model gets badly wrong, whose subsets are worse than random."""


class AdaCore(NearestCover):
    """As CRAIG, on gradients divided elementwise by a Hessian diagonal.

    Minimises ``sum_i min_{j in S} |g_i / h_i - g_j / h_j|`` greedily, g and h one sample's gradient and Hessian
    diagonal in the last layer.

    Args:
        damping: Keeps the quotient finite, above 0: of each sample's own diagonal, see
            :func:`~lit_condense.functional.last_layer_geometry.preconditioned_gradient_products`; of the mean, see
            :func:`~lit_condense.functional.preconditioning.mean_preconditioned_distances`. From 1 on the own diagonal's
            share of the predictions is damped away, and images are compared by their features.
        weighted: Also give each image the number of candidates it is nearest to as its weight. Published results leave
            weights out.
        hessian: Whose diagonal each gradient is divided by: the ``sample``'s own, or the ``mean`` over the candidates,
            which takes K times as long.
        variant: ``lcmat_program`` divides by each sample's own diagonal without damping, sets distances that are not a
            number to 0, and covers with the similarity ``10 - distance``, as the program of Shin et al.
            (*Loss-Curvature Matching*, AISTATS 2023). After a ReLU nearly every sample has a feature that is exactly 0
            and so only distances of 0: the program keeps the first k images of each class in the order of the data.
            The accuracy published for it (39.09 +- 1.0 on 1 % of CIFAR-10) is that of those, not of AdaCore.
    """

    tag = "adacore"

    def __init__(
        self,
        damping: float = DEFAULT_DAMPING,
        weighted: bool = False,
        *,
        hessian: Hessian = "sample",
        variant: LCMatVariant = "definition",
    ) -> None:
        if not (damping > 0 and math.isfinite(damping)):
            raise SettingsError(f"Expected AdaCore.damping to be above 0, got {damping}.")
        check_choice("AdaCore.hessian", hessian, Hessian)
        check_choice("AdaCore.variant", variant, LCMatVariant)
        self.damping = damping
        self.weighted = weighted
        self.hessian: Hessian = hessian
        self.variant: LCMatVariant = variant

    def _block(self, view: ProxyOutputs, labels: Tensor) -> Callable[[slice], Tensor]:
        if self.variant == "lcmat_program":
            return program_preconditioned_distances(view.features, view.logits, labels)
        if self.hessian == "mean":
            return mean_preconditioned_distances(view.features, view.logits, labels, self.damping)
        return preconditioned_gradient_products(view.features, view.logits, labels, self.damping).distances

    def _similarity(self, distances: Tensor) -> Tensor:
        if self.variant == "lcmat_program":
            return distances.neg_().add_(PROGRAM_OFFSET)
        return super()._similarity(distances)
