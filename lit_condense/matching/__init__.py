"""What is matched: one loss a file, each a Lightning callback."""

from lit_condense.matching.base import Loss, MatchingLoss, Progress
from lit_condense.matching.contrastive import ContrastiveGradientMatching, WarmUpGradientMatching
from lit_condense.matching.cross_entropy import ClassAwareCrossEntropy
from lit_condense.matching.curvature import CurvatureMatching
from lit_condense.matching.features import FeatureMatching
from lit_condense.matching.gradient import ClassMeanGradientMatching, GradientMatching
from lit_condense.matching.quantities import Quantities
from lit_condense.matching.quantity import Quantity, register
from lit_condense.matching.trajectory import TrajectoryMatching
from lit_condense.matching.whole import Student, Whole, WholeSetLoss, WithGradient

__all__ = [
    "ClassAwareCrossEntropy",
    "ClassMeanGradientMatching",
    "ContrastiveGradientMatching",
    "CurvatureMatching",
    "FeatureMatching",
    "GradientMatching",
    "Loss",
    "MatchingLoss",
    "Progress",
    "Quantities",
    "Quantity",
    "Student",
    "TrajectoryMatching",
    "WarmUpGradientMatching",
    "Whole",
    "WholeSetLoss",
    "WithGradient",
    "register",
]
