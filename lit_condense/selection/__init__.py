"""Selections of real images (coresets): what is kept, scored by which network."""

from lit_condense.selection.adacore import AdaCore
from lit_condense.selection.base import Candidates, Choice, ScoringView, Selection, Validation
from lit_condense.selection.budget import Budget
from lit_condense.selection.cal import CAL
from lit_condense.selection.contextual_diversity import ContextualDiversity
from lit_condense.selection.craig import CRAIG
from lit_condense.selection.deepfool import DeepFool
from lit_condense.selection.glister import Glister
from lit_condense.selection.grad_match import GradMatch
from lit_condense.selection.gradients import GradientSelection
from lit_condense.selection.herding import Herding
from lit_condense.selection.k_center import KCenterGreedy
from lit_condense.selection.kmeans import KMeansNearest
from lit_condense.selection.lcmat import LCMatS
from lit_condense.selection.random import RandomSubset
from lit_condense.selection.scores import EL2N, Forgetting, GraNd, ScoreSelection
from lit_condense.selection.scoring import Scoring
from lit_condense.selection.select import Subset, select, select_now
from lit_condense.selection.submodular import FacilityLocation, GraphCut, LogDeterminant
from lit_condense.selection.uncertainty import Entropy, LeastConfidence, Margin

__all__ = [
    "CAL",
    "CRAIG",
    "EL2N",
    "AdaCore",
    "Budget",
    "Candidates",
    "Choice",
    "ContextualDiversity",
    "DeepFool",
    "Entropy",
    "FacilityLocation",
    "Forgetting",
    "Glister",
    "GraNd",
    "GradMatch",
    "GradientSelection",
    "GraphCut",
    "Herding",
    "KCenterGreedy",
    "KMeansNearest",
    "LCMatS",
    "LeastConfidence",
    "LogDeterminant",
    "Margin",
    "RandomSubset",
    "ScoreSelection",
    "Scoring",
    "ScoringView",
    "Selection",
    "Subset",
    "Validation",
    "select",
    "select_now",
]
