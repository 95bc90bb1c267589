"""What is matched: one loss a file, each a Lightning callback."""

from lit_condense.matching.base import MatchingLoss, Progress, Quantities
from lit_condense.matching.gradient import GradientMatching

__all__ = ["GradientMatching", "MatchingLoss", "Progress", "Quantities"]
