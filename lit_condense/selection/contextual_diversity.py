"""Contextual diversity, and the divergence between predictions that it shares with CAL.

Letters: n candidates, K classes, k images to keep.
"""

from __future__ import annotations

from torch import Tensor

from lit_condense.rng import RandomKey
from lit_condense.selection.base import Candidates, Choice, Selection
from lit_condense.selection.k_center import farthest_first, random_row
from lit_condense.selection.scores import in_index_order, require_finite


class ContextualDiversity(Selection):
    """Images whose predictions differ: greedy k-centre under the symmetric divergence of the softmax outputs.

    The distance is ``(KL(p || q) + KL(q || p)) / 2``, always finite; the first image is drawn. Of equals, the first
    image of the data is taken. Source: Agarwal et al., *Contextual Diversity for Active Learning*, ECCV 2020.
    """

    def choose(self, candidates: Candidates, count: int, key: RandomKey) -> Choice:
        """Return ``count`` candidates in the order they were picked; the key draws the first.

        Raises:
            DataError: Logits are NaN or infinite.
        """
        ordered, order = in_index_order(candidates)
        predicted = log_predictions(ordered, "ContextualDiversity")
        first = random_row(len(predicted), key)
        chosen = farthest_first(lambda index: symmetric_divergence(predicted, predicted[index]), first, count)
        return Choice(order[chosen])


def log_predictions(candidates: Candidates, method: str) -> Tensor:
    """Return the logarithms of the first network's softmax outputs, ``(n, K)``.

    Raises:
        DataError: Logits are NaN or infinite.
    """
    logits = candidates.view.logits
    require_finite(logits.isfinite().all(1), "logits", method)
    return logits.log_softmax(1)


def symmetric_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return ``(KL(p || q) + KL(q || p)) / 2``, 0 or more, of log-probabilities ``(*, K)`` that broadcast.

    Summed as ``(p - q) (log p - log q) / 2``, finite even where a probability rounds to 0.
    """
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1).div(2).clamp(min=0)
