"""Experts: networks trained on the real images, whose weights were recorded after every epoch."""

from lit_condense.experts.experts import Experts
from lit_condense.experts.file import ExpertFile

__all__ = ["ExpertFile", "Experts"]
