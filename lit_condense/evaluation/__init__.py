"""How a set is judged: named protocols, fresh networks, baselines."""

from lit_condense.evaluation.evaluation import Evaluation, Judge, Score
from lit_condense.evaluation.training import SmallSet

__all__ = ["Evaluation", "Judge", "Score", "SmallSet"]
