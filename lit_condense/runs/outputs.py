"""What a run leaves behind: where it goes, whose files stand there already, and what will not be written at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lit_condense.errors import CheckpointError
from lit_condense.runs import checkpointing, ownership

OWN_FOLDER = "lit_condense_run"
"""Below the working folder, for a run that is told of no folder."""


def run_folder(trainer: Trainer, log_dir: str | None) -> Path:
    """Return the folder of a run that names no other: its logger's, or the trainer's ``default_root_dir``.

    The working folder is nobody's: what would land there goes into a folder below it.

    Args:
        trainer: The run's.
        log_dir: The trainer's ``log_dir``, which every rank has to ask for.
    """
    if log_dir is not None and trainer.loggers:
        chosen = isinstance(trainer.loggers[0], TensorBoardLogger | CSVLogger)  # others take the working folder unasked
        if chosen or not _is_working_folder(log_dir):
            return Path(log_dir)
    root = trainer.default_root_dir
    return Path(root, OWN_FOLDER) if _is_working_folder(root) else Path(root)


def check_checkpoints(trainer: Trainer) -> None:
    """Refuse a run whose checkpoints would take the place of another program's.

    Raises:
        CheckpointError: There is one where this run writes.
    """
    if checkpointing.is_dry(trainer):
        return
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is not None:
            foreign = _foreign(Path(callback.dirpath))
            if foreign is not None:
                raise CheckpointError(
                    f"Expected a folder for the checkpoints of this run alone, but {foreign} was not written by "
                    "lit_condense, or is broken. Move it away, or choose another dirpath for ModelCheckpoint."
                )


def announce_missing(trainer: Trainer) -> None:
    """Say at the start what a run will not leave behind: a warning on the command line, a remark in Python."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    if checkpointing.is_dry(trainer):
        return
    if any(isinstance(callback, SaveConfigCallback) for callback in callbacks):  # the command line writes the set
        if not any(_saves_in_between(callback) for callback in callbacks):
            rank_zero_warn(
                "This run will leave no checkpoint before its end: an interruption loses it. Leave "
                "trainer.enable_checkpointing out, or give --checkpoint.every_n_train_steps."
            )
    elif not any(getattr(callback, "exports_the_set", False) for callback in callbacks):
        rank_zero_info("No set, card or table will be written: call evaluate() and save(folder) on the set after it.")


def _saves_in_between(callback: Any) -> bool:
    if not isinstance(callback, ModelCheckpoint):
        return False
    # an epoch here is the whole run
    return callback._every_n_train_steps > 0 or callback._train_time_interval is not None


def _foreign(folder: Path) -> Path | None:
    """Return a checkpoint that is not ours; an unreadable one is ours where another beside it is."""
    found = sorted(folder.glob("*.ckpt"))
    ours = [path for path in found if ownership.is_our_checkpoint(path)]
    return next((path for path in found if path not in ours and not (ours and _is_broken(path))), None)


def _is_broken(path: Path) -> bool:
    try:
        checkpointing.read(path)
    except CheckpointError:
        return True
    return False


def _is_working_folder(folder: str | Path) -> bool:
    return Path(folder).resolve() == Path.cwd()
