"""How the synthetic images are stored, and what they start from."""

from lit_condense.parametrization.initial import Initialization, Noise, RandomReal
from lit_condense.parametrization.pixels import Pixels

__all__ = ["Initialization", "Noise", "Pixels", "RandomReal"]
