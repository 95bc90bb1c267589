"""How a set is evaluated: named protocols, fresh networks, baselines."""

from lit_condense.evaluation.evaluation import Evaluation, Evaluator, Score
from lit_condense.evaluation.training import SmallSet

__all__ = ["Evaluation", "Evaluator", "Score", "SmallSet"]
