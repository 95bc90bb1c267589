"""Class-aware regularisation (Zhao et al.: *Improved Distribution Matching for Dataset Condensation*, CVPR 2023)."""

from __future__ import annotations

from typing import cast

from torch import Tensor
from torch.nn import functional as F

from lit_condense.matching.base import MatchingLoss, Progress
from lit_condense.matching.quantities import Quantities

PERCENT = 100
"""IDM's program weighs by the accuracy in percent: at 40 % a printed weight of 0.5 is one of 20."""


class ClassAwareCrossEntropy(MatchingLoss):
    """Sum over classes of the mean cross-entropy of their synthetic images under the inner network (IDM).

    No real image is looked at. The factor on it is ``weight`` times the accuracy of the network in percent, as the
    inner loop says it (``Pool``): an untrained network, which knows nothing about classes, has no say.

    Args:
        weight: Factor at an accuracy of 1 % (published: 0.5 for most rows).
        name: Tag in the logs.
    """

    needs = frozenset({"logits"})
    needs_real = frozenset()
    reads = frozenset({"accuracy"})

    def __init__(self, weight: float = 0.5, *, name: str | None = None) -> None:
        super().__init__(weight, name)

    def weight_at(self, progress: Progress) -> float:
        """Return ``weight`` times the network's accuracy in percent; 0 before the inner loop has said any."""
        return self.weight * PERCENT * progress.numbers.get("accuracy", 0.0)

    def watched_at(self, progress: Progress) -> bool:
        """Return True unless it is switched off: it is logged where its factor is 0 too, by the same compiled code."""
        return self.weight > 0

    def loss(self, real: Quantities, synthetic: Quantities) -> Tensor:
        """Return the mean cross-entropy of each class, summed over the class blocks."""
        logits, labels = cast(Tensor, synthetic.logits), cast(Tensor, synthetic.labels)
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return each.view_as(labels).mean(1).sum()
