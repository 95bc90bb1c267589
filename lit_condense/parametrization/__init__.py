"""How the synthetic images are stored, and what they start from."""

from lit_condense.parametrization.first import FirstReal
from lit_condense.parametrization.initial import Clustered, Initialization, Noise, RandomReal
from lit_condense.parametrization.multi_formation import MultiFormation
from lit_condense.parametrization.pixels import Pixels
from lit_condense.parametrization.selected import FromFile, Selected

__all__ = [
    "Clustered",
    "FirstReal",
    "FromFile",
    "Initialization",
    "MultiFormation",
    "Noise",
    "Pixels",
    "RandomReal",
    "Selected",
]
