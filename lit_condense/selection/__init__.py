"""Selections of real images (coresets): what is kept, scored by which network."""

from lit_condense.selection.base import Candidates, Choice, ProxyOutputs, Selection, Validation
from lit_condense.selection.budget import Budget
from lit_condense.selection.gradients import GradientSelection
from lit_condense.selection.methods.adacore import AdaCore
from lit_condense.selection.methods.cal import CAL
from lit_condense.selection.methods.contextual_diversity import ContextualDiversity
from lit_condense.selection.methods.craig import CRAIG
from lit_condense.selection.methods.deepfool import DeepFool
from lit_condense.selection.methods.errors import EL2N, GraNd
from lit_condense.selection.methods.forgetting import Forgetting
from lit_condense.selection.methods.glister import Glister
from lit_condense.selection.methods.grad_match import GradMatch
from lit_condense.selection.methods.herding import Herding
from lit_condense.selection.methods.k_center import KCenterGreedy
from lit_condense.selection.methods.kmeans import KMeansNearest
from lit_condense.selection.methods.lcmat import LCMatS
from lit_condense.selection.methods.random import RandomSubset
from lit_condense.selection.methods.submodular import FacilityLocation, GraphCut, LogDeterminant
from lit_condense.selection.methods.uncertainty import Entropy, LeastConfidence, Margin
from lit_condense.selection.proxy import ProxyTraining
from lit_condense.selection.scored import ScoreSelection
from lit_condense.selection.select import Subset, select, select_now

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
    "ProxyOutputs",
    "ProxyTraining",
    "RandomSubset",
    "ScoreSelection",
    "Selection",
    "Subset",
    "Validation",
    "select",
    "select_now",
]
