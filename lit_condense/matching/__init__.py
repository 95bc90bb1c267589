"""What is matched: one loss a file, each a Lightning callback."""

from lit_condense.matching.base import MatchingLoss, Progress
from lit_condense.matching.contrastive import ContrastiveGradientMatching, WarmUpGradientMatching
from lit_condense.matching.curvature import CurvatureMatching
from lit_condense.matching.features import FeatureMatching
from lit_condense.matching.gradient import ClassMeanGradientMatching, GradientMatching
from lit_condense.matching.quantities import Quantities, Quantity, register

__all__ = [
    "ClassMeanGradientMatching",
    "ContrastiveGradientMatching",
    "CurvatureMatching",
    "FeatureMatching",
    "GradientMatching",
    "MatchingLoss",
    "Progress",
    "Quantities",
    "Quantity",
    "WarmUpGradientMatching",
    "register",
]
