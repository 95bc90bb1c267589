"""A limit in seconds of a processor, not of the clock: what else the machine does then takes nothing from a run."""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class CpuBudget(Callback):
    """End a fit after so many seconds of processor time, all threads and finished child processes counted.

    The first update, in which the engine compiles, is not counted; the update in which the time ends is finished.

    Args:
        seconds: The limit.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock after the first update, and look at it after every other."""
        if batch_idx == 0:
            self._start = _processor_seconds()
        elif _processor_seconds() - self._start >= self.seconds:
            trainer.should_stop = True


def _processor_seconds() -> float:
    return sum(os.times()[:4])
