"""Whether one set does better than another: the difference of two scores, held against its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lit_condense.evaluation.evaluation import Score


@dataclass(frozen=True)
class Difference:
    """How many percentage points the mean of one score is above that of another."""

    points: float
    standard_error: float | None
    """Of the difference, in points; None where a score rests on one network and so has no known error."""

    @classmethod
    def of(cls, score: Score, other: Score) -> Difference:
        """Return by how much ``score`` is above ``other``."""
        alone = min(len(score.accuracies), len(other.accuracies)) < 2
        error = None if alone else 100 * math.hypot(score.standard_error, other.standard_error)
        return cls(100 * (score.mean - other.mean), error)

    @property
    def is_gain(self) -> bool:
        """Whether it is above its standard error; without one, whether it is above 0."""
        return self.points > (self.standard_error or 0.0)

    def as_plain(self) -> dict[str, Any]:
        """Return the difference as plain data for a card."""
        return {"points": self.points, "standard_error": self.standard_error}

    def __str__(self) -> str:
        error = "" if self.standard_error is None else f" +- {self.standard_error:.1f}"
        return f"{self.points:+.1f}{error} points"
