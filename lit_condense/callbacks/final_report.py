"""The end of a run: evaluate the set beside its baselines, write it, and print one short table."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_condense.callbacks.save_on_signal import ends_between_updates, hear_interrupts
from lit_condense.errors import BetweenUpdates, ExportError, NonFiniteError
from lit_condense.evaluation.published import PublishedAccuracy, of_row
from lit_condense.export import CondensedSet, load_condensed
from lit_condense.export.images import GRID_NAME, check_set_replaceable
from lit_condense.runs.checkpointing import is_dry
from lit_condense.runs.files import check_writable
from lit_condense.runs.outputs import run_folder
from lit_condense.runs.timing import Timer
from lit_condense.sets.card import condensed_from
from lit_condense.sets.evaluated_set import EvaluatedSet

PENDING = "pending: fit --ckpt_path last does it where it was cut off"
"""What a card says between the end of a run and the end of the final evaluation."""

CUT_OFF = (
    "lit-condense: the final evaluation did not end. The set, its card and its picture are in {folder}; "
    "fit --ckpt_path last evaluates it."
)
STOPPED: dict[type[BaseException], str] = {SIGTERMException: "by SIGTERM", BetweenUpdates: "by Ctrl-C"}


class FinalReport(Callback):
    """Evaluate, export and summarise the set when condensing or selecting ends.

    Writes ``condensed.safetensors``, ``card.json`` and ``grid.png``, evaluates, completes the card, and prints a table
    to standard output: whatever happens to the evaluation, the set is there. When a run is stopped, or stops at a value
    that is not finite, the last good set is written, with the reason in its card and without an evaluation. A dry run
    writes nothing.

    Args:
        folder: Where to write; by default the trainer's log folder, or ``lit_condense_run`` where that is the working
            folder. What this program did not write is never replaced.
        row: Shipped config whose published accuracy the table and the card show beside the result, where the run is
            about its data and its number of images; on the command line the first config, if it is a shipped one.
    """

    exports_the_set: ClassVar[bool] = True

    def __init__(self, folder: str | None = None, row: str | None = None) -> None:
        self.folder = folder
        self.row = row
        self._log_dir: str | None = None
        self._timer = Timer()
        self._evaluating = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse an output folder that cannot be written to, before any work."""
        self._log_dir = trainer.log_dir  # a collective call: every rank makes it, here and nowhere else
        self._evaluating = False
        if stage in ("fit", "predict") and trainer.is_global_zero and not is_dry(trainer):
            check_writable(self._folder(trainer))
            check_set_replaceable(self._folder(trainer))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of a run without training steps: what it does, it does before the loop."""
        self._timer.start()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; preparations before the loop do not count."""
        self._timer.start()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._timer.stop()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: evaluating is not condensing."""
        self._timer.stop()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the seconds spent condensing so far beside the accuracy."""
        if trainer.state.fn == "fit":
            pl_module.log("time/condensing", self._timer.seconds)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again."""
        self._timer.start()

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds spent so far, so that a resumed run counts all of them."""
        return {"seconds": self._timer.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the seconds of the runs before."""
        self._timer.seconds = state_dict["seconds"]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the set; evaluate it on every rank; complete its card and print on the first."""
        assert isinstance(pl_module, EvaluatedSet)
        if is_dry(trainer):
            return
        pl_module.keep_last()  # also where there was nothing left to train
        if pl_module.unfinished:
            rank_zero_warn(f"There is no report: {pl_module.unfinished}")
            return
        self._timer.stop()
        record: dict[str, Any] = {"seconds": {pl_module.words[1]: round(self._timer.seconds, 1)}}
        known = self._published(pl_module)
        if known:
            record["published"] = {"row": self.row, **asdict(known)}
        if trainer.is_global_zero:
            self._write_unless_there(trainer, pl_module, {"final_evaluation": PENDING, **record})
        self._evaluating = True
        report = pl_module.evaluate()
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.log_metrics(report.metrics(), trainer.global_step)
        paths = pl_module.save(self._folder(trainer), report, record)
        self._evaluating = False
        if self._log_dir is not None and trainer.loggers:
            paths.append(Path(self._log_dir))
        print(report.table(self._timer.seconds, paths, f"Published for {self.row}: {known}." if known else ""))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the set without evaluating it; where it stands already, its card with the evaluation is kept."""
        assert isinstance(pl_module, EvaluatedSet)
        if trainer.is_global_zero and not is_dry(trainer):
            self._write_unless_there(trainer, pl_module, {})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the last good set where a fit is stopped or stops; say where it is if it was being evaluated."""
        if not isinstance(pl_module, EvaluatedSet) or not trainer.is_global_zero or is_dry(trainer):
            return
        if trainer.state.fn != "fit" or pl_module.unfinished:
            return
        if self._evaluating:
            hear_interrupts()
            print(CUT_OFF.format(folder=self._folder(trainer)), file=sys.stderr)
        elif isinstance(exception, NonFiniteError) or ends_between_updates(exception):
            record = {"stopped": str(exception) or STOPPED[type(exception)]}
            self._write_unless_there(trainer, pl_module, record)

    def _published(self, module: EvaluatedSet) -> PublishedAccuracy | None:
        """Return what is published for the row, where the run is about all of its data."""
        data = module.data
        if self.row is None or data.classes is not None or data.held_out or data.train_limit_per_class:
            return None
        real = [len(data.real.indices_of(c)) for c in range(data.real.num_classes)]
        return of_row(self.row, data.dataset_name, module.counts, real)

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.folder) if self.folder else run_folder(trainer, self._log_dir)

    def _write_unless_there(self, trainer: Trainer, module: EvaluatedSet, record: dict[str, Any]) -> None:
        """Write a set that is not evaluated, but not over the card of the same one that is."""
        if not _stands_in(self._folder(trainer), condensed_from(module, {})):
            module.save(self._folder(trainer), record=record)


def _stands_in(folder: Path, condensed: CondensedSet) -> bool:
    try:
        there = load_condensed(folder)
    except ExportError:
        return False
    same = torch.equal(there.images, condensed.images) and torch.equal(there.labels, condensed.labels)
    return same and there.card.get("update") == condensed.card["update"] and (folder / GRID_NAME).exists()
