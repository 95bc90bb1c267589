"""What is matched: one loss a file, each a Lightning callback."""

from lit_condense.matching.base import MatchingLoss, Progress, Quantities
from lit_condense.matching.contrastive import ContrastiveGradientMatching, WarmUpGradientMatching
from lit_condense.matching.curvature import CurvatureMatching
from lit_condense.matching.features import FeatureMatching
from lit_condense.matching.gradient import ClassMeanGradientMatching, GradientMatching

__all__ = [
    "ClassMeanGradientMatching",
    "ContrastiveGradientMatching",
    "CurvatureMatching",
    "FeatureMatching",
    "GradientMatching",
    "MatchingLoss",
    "Progress",
    "Quantities",
    "WarmUpGradientMatching",
]
