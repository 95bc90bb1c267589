"""What a run needs of its trainer."""

from __future__ import annotations

from dataclasses import dataclass

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lit_condense.errors import SettingsError

PRECISIONS = ("32-true", "64-true")


@dataclass(frozen=True)
class Intervals:
    """How often a run on the command line saves and evaluates where it is not told, in training steps."""

    checkpoint: int
    validation: int


def check_precision(trainer: Trainer) -> None:
    """Refuse mixed precision: it would run the double backward in half precision."""
    if trainer.precision not in PRECISIONS:
        raise SettingsError(
            f"Expected trainer.precision 32-true (the engine decides where less is safe), got {trainer.precision}. "
            "Leave precision out and choose model.engine.mode: fast or exact."
        )


def check_validations(trainer: Trainer) -> None:
    """Refuse a validation every 0 updates or epochs, by which Lightning would divide."""
    for name in ("val_check_interval", "check_val_every_n_epoch"):
        if getattr(trainer, name, None) == 0:  # an interval of time is kept elsewhere
            raise SettingsError(
                f"Expected trainer.{name} to be above 0, got 0. Set trainer.val_check_interval to the updates between "
                "two validations, or trainer.limit_val_batches to 0 for none."
            )


def check_length(trainer: Trainer, updates_per_network: int, one_by_one: bool = True) -> None:
    """Refuse a run without an end; warn where it ends in the middle of the life of the one network.

    Args:
        trainer: Of the run.
        updates_per_network: What the inner loop says.
        one_by_one: Whether networks come one after the other; of a pool some are alive at any end.
    """
    if trainer.max_steps < 1:
        raise SettingsError(
            f"Expected trainer.max_steps, the number of image updates, to be 1 or more, got {trainer.max_steps}. "
            f"Set it, best to a multiple of {updates_per_network} (the updates of one network)."
        )
    if trainer.limit_train_batches == 0:
        raise SettingsError(
            "Expected trainer.limit_train_batches to be above 0, got 0: nothing would be learned, and what the images "
            "start from would be written as the set. Leave it out; trainer.max_steps says how many updates are done."
        )
    if one_by_one and trainer.max_steps % updates_per_network and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        rank_zero_warn(
            f"max_steps={trainer.max_steps} is no multiple of the {updates_per_network} updates that a network "
            "serves: the last network's life is cut short."
        )
