"""Selections that rank the candidates by one score each.

Letters: n candidates.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from lit_condense.rng import RandomKey
from lit_condense.selection.base import Candidates, Choice, Selection
from lit_condense.selection.candidates import in_index_order, require_finite


class ScoreSelection(Selection):
    """Keeps the candidates with the highest priority, whatever else is kept; of equals, the first image of the data."""

    @abstractmethod
    def priorities(self, candidates: Candidates) -> Tensor:
        """Return ``(n,)`` numbers, the largest of the candidates to keep first."""

    def choose(self, candidates: Candidates, count: int, key: RandomKey) -> Choice:
        """Return the ``count`` candidates of the highest priority, highest first; nothing is drawn.

        Raises:
            DataError: A priority is NaN or infinite.
        """
        ordered, order = in_index_order(candidates)
        priorities = self.priorities(ordered).cpu()
        require_finite(priorities.isfinite(), "scores", type(self).__name__)
        return Choice(order[priorities.argsort(descending=True, stable=True)[:count]])
