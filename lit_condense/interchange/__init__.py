"""Condensed sets of other programs: read safely, written in their layouts."""

from lit_condense.interchange.given import SPACES, Answers, Found, Given, Packing
from lit_condense.interchange.reading import read_set
from lit_condense.interchange.writing import FORMATS, write_set

__all__ = ["FORMATS", "SPACES", "Answers", "Found", "Given", "Packing", "read_set", "write_set"]
