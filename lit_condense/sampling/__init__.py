"""Which real images stand for a class in an update."""

from lit_condense.sampling.base import Sampling
from lit_condense.sampling.importance import Importance
from lit_condense.sampling.random import RandomSampling
from lit_condense.sampling.representative import Representative

__all__ = ["Importance", "RandomSampling", "Representative", "Sampling"]
