"""Against which network: the inner network and the loops that train it between image updates."""

from lit_condense.inner.adaptive import DecreasingTraining, TrainUntilOverfitting, decreasing_epochs
from lit_condense.inner.base import InnerContext, InnerLoop
from lit_condense.inner.fresh import FreshNetwork
from lit_condense.inner.network import InnerNetwork
from lit_condense.inner.pool import Pool
from lit_condense.inner.real import TrainOnReal
from lit_condense.inner.synthetic import TrainOnSynthetic, loops_for

__all__ = [
    "DecreasingTraining",
    "FreshNetwork",
    "InnerContext",
    "InnerLoop",
    "InnerNetwork",
    "Pool",
    "TrainOnReal",
    "TrainOnSynthetic",
    "TrainUntilOverfitting",
    "decreasing_epochs",
    "loops_for",
]
