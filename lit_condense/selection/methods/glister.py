"""GLISTER (Killamsetty et al., *GLISTER: Generalization based Data Subset Selection*, AAAI 2021)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from lit_condense.errors import DataError, SettingsError, check_choice
from lit_condense.functional.last_layer_geometry import OuterProducts, gradient_products, precise_softmax_error
from lit_condense.selection.base import Candidates, Choice, Validation
from lit_condense.selection.candidates import require_finite
from lit_condense.selection.gradients import GradientSelection
from lit_condense.selection.program import program_scales

ValidationClasses = Literal["all", "class"]

GlisterVariant = Literal["definition", "deepcore", "deepcore_mended"]


DEFAULT_STEP = 128.0
"""A whole batch of the proxy model's training. Ours, by measurement (table of settings in docs/results.md)."""


class Glister(GradientSelection):
    """Images whose training step lowers the validation loss the most.

    Greedy: adds the image with the largest inner product ``g_j . v`` of its last-layer gradient and the mean gradient v
    of the validation images. After each addition v is taken anew where a step along the mean gradient of the chosen
    images leads: at the logits ``o - s (b + W z)`` with that gradient's bias b and weight W.

    Args:
        step: Length s of the step in units of ``lr / batch_size`` of the proxy model's training: what one image
            adds to a step there, and what DeepCore's program takes (its gradients are those of a batch's mean loss).
        validation: Whose loss is to fall: that of ``all`` training images, or of the candidates' ``class`` alone (of
            all candidates, where the budget is not balanced). A class alone prefers what looks the least like it.
        variant: What DeepCore's program does: ``step`` is 1, the validation images are the candidates, and losses are
            averaged over batches of 128, so that the images of the last, smaller batch have larger gradients and are
            picked first. ``deepcore`` never takes v anew, because the program passes its update under a misspelled
            name; ``deepcore_mended`` takes it.
    """

    def __init__(
        self,
        step: float = DEFAULT_STEP,
        validation: ValidationClasses = "all",
        *,
        variant: GlisterVariant = "definition",
    ) -> None:
        if not (step > 0 and math.isfinite(step)):
            raise SettingsError(f"Expected Glister.step to be above 0, got {step}.")
        check_choice("Glister.validation", validation, ValidationClasses)
        check_choice("Glister.variant", variant, GlisterVariant)
        self.step = step
        self.validation: ValidationClasses = validation
        self.variant: GlisterVariant = variant
        self.validates = validation == "all" and variant == "definition"

    def _choose(self, candidates: Candidates, count: int) -> Choice:
        view, scales = candidates.view, None
        length = self.step * view.lr / view.batch_size
        if self.variant != "definition":  # the gradients' scales hold the batch size already
            length, scales = view.lr, program_scales(len(candidates))
        gradients = gradient_products(view.features, view.logits, candidates.labels)
        gradients = gradients if scales is None else gradients.scaled(scales)
        judged = _Judged(self._validation(candidates), scales)
        scores = self._scores(gradients, judged)
        chosen: list[int] = []
        for _ in range(count):
            scores[chosen] = -torch.inf
            chosen.append(int(scores.argmax()))
            if self.variant != "deepcore" and len(chosen) < count:
                judged.add(gradients.left[chosen[-1]], gradients.right[chosen[-1]])
                scores = self._scores(gradients, judged, length)
        return Choice(torch.tensor(chosen))

    def _validation(self, candidates: Candidates) -> Validation:
        if not self.validates:
            return Validation(candidates.labels, candidates.view)
        if candidates.validation is None:
            raise DataError(
                "Glister with validation: all looks at all training images, but was shown its candidates only. Give "
                "Candidates.validation, or set validation: class."
            )
        return candidates.validation

    def _scores(self, gradients: OuterProducts, judged: _Judged, length: float = 0.0) -> Tensor:
        """Return every candidate's inner product with the validation images' mean gradient after a step, ``(n,)``."""
        scores = gradients.inner_products_with(judged.mean_gradient(length))
        require_finite(scores.isfinite(), "scores", type(self).__name__)
        return scores


class _Judged:
    """Validation images as the last layer moves along the mean gradient of what was added.

    Args:
        validation: N of them.
        scales: ``(N, 1)`` factors of their gradients, None for 1.
    """

    def __init__(self, validation: Validation, scales: Tensor | None) -> None:
        self.features, self.logits = validation.view.features.double(), validation.view.logits.double()
        self.labels, self.scales = validation.labels, scales
        self.shift = torch.zeros_like(self.logits)  # (b + W z) times the number of those added
        self.added = 0

    def add(self, left: Tensor, right: Tensor) -> None:
        """Let one image's gradient ``[a, vec(a b^T)]`` move the last layer too."""
        self.shift += (self.features @ right + 1).unsqueeze(1) * left
        self.added += 1

    def mean_gradient(self, length: float) -> Tensor:
        """Return the mean gradient after a step of this length, ``(K, 1 + d)``."""
        moved = self.logits - length / self.added * self.shift if self.added else self.logits
        gradients = OuterProducts(precise_softmax_error(moved, self.labels), self.features)
        return (gradients if self.scales is None else gradients.scaled(self.scales)).mean()
