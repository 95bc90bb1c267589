"""What the command line asks of every module that it runs."""

from __future__ import annotations

from typing import ClassVar

from lightning.pytorch import LightningModule

from lit_condense.runs.trainer import Intervals


class RunModule(LightningModule):
    """A LightningModule with its own idea of how often it saves and evaluates, and of what it leaves behind."""

    leaves_a_set: ClassVar[bool] = True
    """Whether a run ends in a small training set: it is then evaluated, shown, written, and kept in checkpoints."""

    @classmethod
    def intervals(cls, max_steps: int) -> Intervals:
        """Return how often a run saves and evaluates by default: at least four times, and twice.

        Args:
            max_steps: The trainer's; below 1 where it is not set.
        """
        return Intervals(max(1, min(50, max_steps // 4)), max(1, max_steps // 2))
