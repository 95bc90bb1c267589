"""Against which network: the inner network and the loops that train it between image updates."""

from lit_condense.inner.base import InnerLoop, TrainingMaterial
from lit_condense.inner.network import InnerNetwork
from lit_condense.inner.synthetic import TrainOnSynthetic, loops_for

__all__ = ["InnerLoop", "InnerNetwork", "TrainOnSynthetic", "TrainingMaterial", "loops_for"]
