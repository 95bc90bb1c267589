"""A run that is told to end saves where it stands."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_condense.errors import BetweenUpdates, NonFiniteError
from lit_condense.runs.checkpointing import save_last
from lit_condense.sharding import Share

TWICE = "lit-condense: Ctrl-C: the update under way is finished and saved. Press it again to stop at once, unsaved."

LOST = (
    "lit-condense: Ctrl-C: the run ends after this step; the epochs under way are lost, all before them are recorded."
)


class SaveOnSignal(Callback):
    """Write ``last.ckpt`` when SIGTERM, Ctrl-C or a value that is not finite ends a fit between two updates.

    There, and only there, a checkpoint is exact. Lightning finishes the update or the evaluation network that is under
    way and then raises its ``SIGTERMException``. A first Ctrl-C ends the fit after the update under way, or at once in
    an evaluation, which changes nothing of the set; a second one ends it in the middle of an update, unsaved. With
    several processes it suffices that one is told: they agree on it after the update or evaluation. The command line
    always has this callback.
    """

    def __init__(self) -> None:
        self._told: set[signal.Signals] = set()
        self._evaluating = False
        self._before: Any = None
        self._twice = TWICE

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over Ctrl-C, and SIGTERM from Lightning where there are several processes, which takes it back."""
        self._told, self._evaluating = set(), False
        self._twice = TWICE if getattr(pl_module, "leaves_a_set", True) else LOST
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # another one has its reasons
            self._before = signal.signal(signal.SIGINT, self._note_interrupt)
        # Lightning's handler broadcasts in the middle of whatever the processes exchange: they hang or crash
        # (Lightning-AI/pytorch-lightning#20806).
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, self._note_sigterm)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """End the run on all processes, after the update before and its lines in the log, if one of them was told to.

        Raises:
            SIGTERMException: One was.
            BetweenUpdates: Somebody pressed Ctrl-C.
        """
        self._end_if_told(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do so too; from here on let Ctrl-C end a process that is alone at once."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._end_if_told(trainer, pl_module)
            self._evaluating = trainer.world_size == 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let an update be finished again."""
        self._evaluating = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the run after its last update too; give Ctrl-C back: what follows can be ended at any time."""
        self._end_if_told(trainer, pl_module)
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save if what ends the fit does so between two updates."""
        self._before = None  # Lightning gives it back
        if trainer.state.fn == "fit" and ends_between_updates(exception):
            save_last(trainer)

    def _end_if_told(self, trainer: Trainer, module: LightningModule) -> None:
        share = Share.of(trainer)
        told = torch.tensor([float(signum in self._told) for signum in (signal.SIGINT, signal.SIGTERM)])
        if share.world_size > 1:
            told = share.sum(told.to(module.device))
        interrupted, terminated = (told > 0).tolist()
        if terminated:
            raise SIGTERMException
        if interrupted:
            raise BetweenUpdates

    def _note_sigterm(self, *_: Any) -> None:
        self._told.add(signal.SIGTERM)

    def _note_interrupt(self, *_: Any) -> None:
        if self._evaluating:
            raise BetweenUpdates
        if signal.SIGINT in self._told:
            raise KeyboardInterrupt
        self._told.add(signal.SIGINT)
        print(self._twice, file=sys.stderr)


SaveOnSigterm = SaveOnSignal
"""Its name before it answered more than SIGTERM."""


def hear_interrupts() -> None:
    """Let Ctrl-C be heard again: Lightning ignores it while it shuts down, and for good after the end of its loops."""
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def ends_between_updates(exception: BaseException) -> bool:
    """Return whether what ended a fit left the set, its network and its optimizer as they were after an update."""
    if isinstance(exception, NonFiniteError):
        return exception.between_updates
    return isinstance(exception, SIGTERMException | BetweenUpdates)
