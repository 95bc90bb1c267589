"""A run that is told to end saves where it stands."""

from __future__ import annotations

import signal
import threading
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_condense.checkpointing import save_last
from lit_condense.sharding import Share


class SaveOnSigterm(Callback):
    """Write ``last.ckpt`` when SIGTERM ends a fit.

    Lightning finishes the update or the evaluation network that is under way and then raises its ``SIGTERMException``:
    that is between two updates, where a checkpoint is exact. With several processes it suffices that one is told: they
    agree on it after the update. The command line always has this callback.
    """

    def __init__(self) -> None:
        self._told = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM over from Lightning where there are several processes; it takes it back at the end."""
        self._told = False
        # Lightning's handler broadcasts in the middle of whatever the processes exchange: they hang or crash
        # (Lightning-AI/pytorch-lightning#20806).
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the run on all processes if one of them was told to.

        Raises:
            SIGTERMException: One was.
        """
        share = Share.of(trainer)
        if share.world_size > 1 and bool(share.sum(torch.tensor(float(self._told), device=pl_module.device)) > 0):
            raise SIGTERMException

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save if it is Lightning's answer to SIGTERM that ends the fit."""
        if isinstance(exception, SIGTERMException) and trainer.state.fn == "fit":
            save_last(trainer)

    def _note(self, *_: Any) -> None:
        self._told = True
