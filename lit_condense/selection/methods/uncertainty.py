"""Selections of the images whose predictions are the least certain.

Letters: n candidates, K classes; p = softmax(logits). Sources: Lewis and Gale (SIGIR 1994), Shannon's entropy, and
Scheffer et al. (IDA 2001), as surveyed by Settles, *Active Learning Literature Survey*, 2009, section 3.1.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from lit_condense.errors import check_choice
from lit_condense.functional.geometry import ROWS
from lit_condense.selection.base import Candidates
from lit_condense.selection.candidates import Variant
from lit_condense.selection.scored import ScoreSelection

DEEPCORE_EPSILON = 1e-6
"""Inside the logarithm of DeepCore's entropy."""


class _Uncertainty(ScoreSelection):
    """Most uncertain first. In double precision: float32 rounds all confident predictions to the same certainty."""

    def __init__(self, variant: Variant = "definition") -> None:
        check_choice(f"{type(self).__name__}.variant", variant, Variant)
        self.variant: Variant = variant

    def priorities(self, candidates: Candidates) -> Tensor:
        """Return how uncertain the first network is."""
        rows = torch.split(candidates.view.logits, ROWS)
        if self.variant == "definition":
            return torch.cat([self._uncertainty(logits.double()) for logits in rows])
        certainty = torch.cat([self._published_certainty(logits.double()) for logits in rows])
        return certainty if _of_many_classes(candidates.labels) else -certainty

    @abstractmethod
    def _uncertainty(self, logits: Tensor) -> Tensor:
        """Return the definition, ``(n,)``."""

    @abstractmethod
    def _published_certainty(self, logits: Tensor) -> Tensor:
        """Return the quantity of DeepCore's program, ``(n,)``."""


class LeastConfidence(_Uncertainty):
    """Largest ``1 - max p``: the images whose best class is the least probable.

    Args:
        variant: ``deepcore`` takes the smallest of the largest logits instead; where the candidates are of more than
            one class (an unbalanced budget) its order is reversed, and the most certain are kept.
    """

    def _uncertainty(self, logits: Tensor) -> Tensor:
        return -torch.expm1(logits.log_softmax(1).amax(1))

    def _published_certainty(self, logits: Tensor) -> Tensor:
        return logits.amax(1)


class Entropy(_Uncertainty):
    """Largest entropy ``-sum p ln p``, in nats.

    Args:
        variant: ``deepcore`` adds 1e-6 inside the logarithm; where the candidates are of more than one class (an
            unbalanced budget) its order is reversed, and the most certain are kept.
    """

    def _uncertainty(self, logits: Tensor) -> Tensor:
        log_p = logits.log_softmax(1)
        return -(log_p.exp() * log_p).sum(1)

    def _published_certainty(self, logits: Tensor) -> Tensor:
        p = logits.softmax(1)
        return (p * (p + DEEPCORE_EPSILON).log()).sum(1)


class Margin(_Uncertainty):
    """Smallest margin between the two most probable classes, ``p_(1) - p_(2)``.

    Args:
        variant: ``deepcore`` differs only where the candidates are of more than one class (an unbalanced budget): its
            order is reversed there, and the most certain are kept.
    """

    def _uncertainty(self, logits: Tensor) -> Tensor:
        return -self._published_certainty(logits)

    def _published_certainty(self, logits: Tensor) -> Tensor:
        best = logits.softmax(1).topk(2, dim=1).values
        return best[:, 0] - best[:, 1]


def _of_many_classes(labels: Tensor) -> bool:
    return bool((labels != labels[0]).any())
