"""Contextual diversity."""

from __future__ import annotations

from lit_condense.functional.geometry import farthest_first, symmetric_divergence
from lit_condense.rng import RandomKey
from lit_condense.selection.base import Candidates, Choice, Selection
from lit_condense.selection.candidates import in_index_order, log_predictions, random_row


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
