"""What the synthetic images start from."""

from lit_condense.init.base import Initialization
from lit_condense.init.clustered import Clustered
from lit_condense.init.from_file import FromFile
from lit_condense.init.noise import Noise
from lit_condense.init.real import FirstReal, RandomReal
from lit_condense.init.recognised import RecognisedReal
from lit_condense.init.selected import Selected

__all__ = ["Clustered", "FirstReal", "FromFile", "Initialization", "Noise", "RandomReal", "RecognisedReal", "Selected"]
