"""CRAIG (Mirzasoleiman et al., *Coresets for Data-efficient Training of Machine Learning Models*, ICML 2020)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lit_condense.functional.last_layer_geometry import gradient_products
from lit_condense.selection.base import Choice, ScoringView
from lit_condense.selection.gradients import NearestCover
from lit_condense.selection.scores import Variant, check_variant


class CRAIG(NearestCover):
    """Images whose weighted gradients approximate the sum of all gradients, by covering them in Euclidean distance.

    Minimises ``sum_i min_{j in S} |g_i - g_j|`` greedily, g the gradient of one sample in the last layer. The
    weight of an image is the number of candidates it is nearest to; the weights sum to n.

    Args:
        variant: ``deepcore`` gives the same images, each weight 1 larger. (The program's gradients also have a larger
            scale in the last batch of its loader, which is not offered here.)
    """

    weighted = True

    def __init__(self, variant: Variant = "definition") -> None:
        check_variant("CRAIG", variant)
        self.variant: Variant = variant

    def _block(self, view: ScoringView, labels: Tensor) -> Callable[[slice], Tensor]:
        return gradient_products(view.features, view.logits, labels).distances

    def _choose(self, view: ScoringView, labels: Tensor, count: int) -> Choice:
        choice = super()._choose(view, labels, count)
        if self.variant == "definition" or choice.weights is None:
            return choice
        return Choice(choice.positions, choice.weights + 1)
