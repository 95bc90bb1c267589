"""How the synthetic images are stored, and what they start from."""

from lit_condense.parametrization.initial import Clustered, Initialization, Noise, RandomReal
from lit_condense.parametrization.multi_formation import MultiFormation
from lit_condense.parametrization.pixels import Pixels

__all__ = ["Clustered", "Initialization", "MultiFormation", "Noise", "Pixels", "RandomReal"]
