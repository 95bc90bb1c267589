"""One image update of a synthetic set: what it gathers, how its work is cut over ranks, and the step it takes."""

from lit_condense.synthetic.data import Learnables, SyntheticData
from lit_condense.synthetic.gather import Gatherer
from lit_condense.synthetic.image_step import ImageStep, NonFinite
from lit_condense.synthetic.update import UpdateResult, match

__all__ = ["Gatherer", "ImageStep", "Learnables", "NonFinite", "SyntheticData", "UpdateResult", "match"]
