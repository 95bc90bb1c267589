"""Experts are trained on the real images, and recorded."""

from lit_condense.recording.module import ExpertTrajectories

__all__ = ["ExpertTrajectories"]
