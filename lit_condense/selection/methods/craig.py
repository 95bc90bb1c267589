"""CRAIG (Mirzasoleiman et al., *Coresets for Data-efficient Training of Machine Learning Models*, ICML 2020)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lit_condense.errors import check_choice
from lit_condense.functional.last_layer_geometry import gradient_products
from lit_condense.selection.base import Candidates, Choice, ProxyOutputs
from lit_condense.selection.candidates import Variant
from lit_condense.selection.gradients import NearestCover
from lit_condense.selection.program import program_scales


class CRAIG(NearestCover):
    """Images whose weighted gradients approximate the sum of all gradients, by covering them in Euclidean distance.

    Minimises ``sum_i min_{j in S} |g_i - g_j|`` greedily, g the gradient of one sample in the last layer. The
    weight of an image is the number of candidates it is nearest to; the weights sum to n.

    Args:
        variant: ``deepcore`` makes each weight 1 larger, and takes gradients of a loss that is averaged over a batch of
            128: those of the last, smaller batch are larger, so that its images lie far out and lead the picks.
    """

    weighted = True

    def __init__(self, variant: Variant = "definition") -> None:
        check_choice("CRAIG.variant", variant, Variant)
        self.variant: Variant = variant

    def _block(self, view: ProxyOutputs, labels: Tensor) -> Callable[[slice], Tensor]:
        gradients = gradient_products(view.features, view.logits, labels)
        if self.variant == "deepcore":
            gradients = gradients.scaled(program_scales(len(labels)))
        return gradients.distances

    def _choose(self, candidates: Candidates, count: int) -> Choice:
        choice = super()._choose(candidates, count)
        if self.variant == "definition" or choice.weights is None:
            return choice
        return Choice(choice.positions, choice.weights + 1)
