"""The end of a run: evaluate the set beside its baselines, write it, and print one short table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lit_condense.callbacks.report import Report
from lit_condense.errors import ExportError, NonFiniteError
from lit_condense.evaluated_set import EvaluatedSet
from lit_condense.export import CondensedSet, load_condensed, save_condensed, write_grid
from lit_condense.export.card import condensed_from
from lit_condense.export.files import check_writable
from lit_condense.export.images import check_set_replaceable
from lit_condense.outputs import run_folder


class FinalReport(Callback):
    """Evaluate, export and summarise the set when condensing or selecting ends.

    Writes ``condensed.safetensors``, ``card.json`` and ``grid.png``, and prints a table to standard output. When a run
    stops at a non-finite value, the last good set is written, with the reason in its card and without an evaluation.

    Args:
        folder: Where to write; by default the trainer's log folder, or ``lit_condense_run`` where that is the working
            folder. What this program did not write is never replaced.
    """

    exports_the_set: ClassVar[bool] = True

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self._log_dir: str | None = None
        self._seconds = 0.0
        self._started: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse an output folder that cannot be written to, before any work."""
        self._log_dir = trainer.log_dir  # a collective call: every rank makes it, here and nowhere else
        if stage in ("fit", "predict") and trainer.is_global_zero:
            check_writable(self._folder(trainer))
            check_set_replaceable(self._folder(trainer))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of a run without training steps: what it does, it does before the loop."""
        self._started = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; preparations before the loop do not count."""
        self._started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._seconds, self._started = self._spent(), None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: evaluating is not condensing."""
        self._seconds, self._started = self._spent(), None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the seconds spent condensing so far beside the accuracy."""
        if trainer.state.fn == "fit":
            pl_module.log("time/condensing", self._seconds)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again."""
        self._started = time.perf_counter()

    def _spent(self) -> float:
        return self._seconds + (0.0 if self._started is None else time.perf_counter() - self._started)

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds spent so far, so that a resumed run counts all of them."""
        return {"seconds": self._spent()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the seconds of the runs before."""
        self._seconds = state_dict["seconds"]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate on every rank; write and print on the first."""
        assert isinstance(pl_module, EvaluatedSet)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if pl_module.unfinished:
            rank_zero_warn(f"There is no report: {pl_module.unfinished}")
            return
        self._seconds, self._started = self._spent(), None
        report = Report.of(pl_module)
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.log_metrics(report.metrics(), trainer.global_step)
        record = {"evaluation": report.as_plain(), "seconds": {pl_module.words[1]: round(self._seconds, 1)}}
        paths = self._write(trainer, pl_module, record)
        if self._log_dir is not None and trainer.loggers:
            paths.append(Path(self._log_dir))
        print(report.table(pl_module, self._seconds, paths))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the set without evaluating it; where it stands already, its card with the evaluation is kept."""
        assert isinstance(pl_module, EvaluatedSet)
        if trainer.is_global_zero and not _stands_in(self._folder(trainer), condensed_from(pl_module, {})):
            self._write(trainer, pl_module, {"evaluation": None})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the last good set where a run stops at a non-finite value."""
        if not isinstance(exception, NonFiniteError) or not isinstance(pl_module, EvaluatedSet):
            return
        if trainer.is_global_zero and not pl_module.unfinished:
            self._write(trainer, pl_module, {"evaluation": None, "stopped": str(exception)})

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.folder) if self.folder else run_folder(trainer, self._log_dir)

    def _write(self, trainer: Trainer, module: EvaluatedSet, record: dict[str, Any]) -> list[Path]:
        condensed = condensed_from(module, record)
        folder = self._folder(trainer)
        paths = list(save_condensed(folder, condensed).values())
        return [*paths, write_grid(folder / "grid.png", condensed.images, condensed.labels)]


def _stands_in(folder: Path, condensed: CondensedSet) -> bool:
    try:
        there = load_condensed(folder)
    except ExportError:
        return False
    return torch.equal(there.images, condensed.images) and torch.equal(there.labels, condensed.labels)
