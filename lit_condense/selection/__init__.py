"""Selections of real images (coresets): what is kept, scored by which network."""

from lit_condense.selection.base import Candidates, Choice, ScoringView, Selection
from lit_condense.selection.kmeans import KMeansNearest
from lit_condense.selection.random import RandomSubset

__all__ = ["Candidates", "Choice", "KMeansNearest", "RandomSubset", "ScoringView", "Selection"]
