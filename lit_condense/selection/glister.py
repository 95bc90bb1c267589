"""GLISTER (Killamsetty et al., *GLISTER: Generalization based Data Subset Selection*, AAAI 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_condense.errors import SettingsError
from lit_condense.functional.last_layer_geometry import OuterProducts, gradient_products, precise_softmax_error
from lit_condense.selection.base import Choice, ScoringView
from lit_condense.selection.gradients import GradientSelection
from lit_condense.selection.scores import Variant, check_variant, require_finite

DEFAULT_LR = 0.1
"""The learning rate of the scoring network's training in DeepCore."""


class Glister(GradientSelection):
    """Images whose training step lowers the loss of all candidates the most.

    Greedy: adds the image with the largest inner product ``g_j . v`` of its last-layer gradient and the mean gradient v
    of the validation images. After each addition v is taken anew where one step of size ``lr`` along the mean gradient
    of the chosen images leads: at the logits ``o - lr (b + W z)`` with that
    gradient's bias b and weight W. The validation images are the candidates.

    Args:
        lr: Size of the step.
        variant: ``deepcore`` never takes v anew, so that it keeps the largest inner products with the mean gradient.
    """

    def __init__(self, lr: float = DEFAULT_LR, variant: Variant = "definition") -> None:
        if not (lr > 0 and math.isfinite(lr)):
            raise SettingsError(f"Expected Glister.lr to be above 0, got {lr}.")
        check_variant("Glister", variant)
        self.lr = lr
        self.variant: Variant = variant

    def _choose(self, view: ScoringView, labels: Tensor, count: int) -> Choice:
        gradients = gradient_products(view.features, view.logits, labels)
        logits = view.logits.double()
        shift = torch.zeros_like(logits)  # (b + W z) times the number of chosen images
        scores = self._scores(gradients, gradients.left)
        chosen: list[int] = []
        for _ in range(count):
            scores[chosen] = -torch.inf
            best = int(scores.argmax())
            chosen.append(best)
            if self.variant == "definition" and len(chosen) < count:
                shift += effect_on_logits(gradients, best)
                moved = logits - self.lr / len(chosen) * shift
                scores = self._scores(gradients, precise_softmax_error(moved, labels))
        return Choice(torch.tensor(chosen))

    def _scores(self, gradients: OuterProducts, errors: Tensor) -> Tensor:
        """Return every candidate's inner product with the mean gradient of the candidates at other errors, ``(n,)``."""
        scores = gradients.inner_products_with(OuterProducts(errors, gradients.right).mean())
        require_finite(scores.isfinite(), "scores", type(self).__name__)
        return scores


def effect_on_logits(gradients: OuterProducts, index: int) -> Tensor:
    """Return how one sample's gradient, added to the last layer, moves the logits of all samples, ``(n, K)``."""
    along = gradients.right @ gradients.right[index] + 1
    return along.unsqueeze(1) * gradients.left[index]
