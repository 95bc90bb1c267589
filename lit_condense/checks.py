"""Checks of a run against its data, trainer and checkpoint: one clear sentence, before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_condense import contracts
from lit_condense.data import CondenseDataModule, RealImages
from lit_condense.errors import CheckpointError, DataError, SettingsError
from lit_condense.matching import MatchingLoss
from lit_condense.networks import NetworkFactory, build_network
from lit_condense.rng import RandomKey
from lit_condense.settings import Plain, differences

if TYPE_CHECKING:
    from lit_condense.synthetic_set import SyntheticSet

PRECISIONS = ("32-true", "64-true")


def images_per_class(ipc: int | list[int]) -> int | list[int]:
    """Return ``ipc`` if it is one whole number above 0, or a list of them."""
    numbers = ipc if isinstance(ipc, list) else [ipc]
    if not numbers or any(number < 1 for number in numbers):
        raise SettingsError(f"Expected ipc to be 1 or more images for every class, got {ipc}.")
    return ipc


def optimizer(factory: OptimizerCallable) -> OptimizerCallable:
    """Return an optimizer factory if it makes one that steps images along a gradient."""
    image = torch.nn.Parameter(torch.zeros(1, 1, 2, 2))
    try:
        made = contracts.steps_alone(factory([image]), "the images")
        image.grad = torch.ones_like(image)
        made.step()
    except (ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"Expected an optimizer that steps images with its settings, it says: {error}.") from error
    return factory


def counts(ipc: int | list[int], real: RealImages) -> list[int]:
    """Return the images of each class."""
    if isinstance(ipc, int):
        return [ipc] * real.num_classes
    if len(ipc) != real.num_classes:
        raise SettingsError(
            f"Expected ipc to be one number or one for each of the {real.num_classes} classes, got {len(ipc)} numbers."
        )
    return ipc


def datamodule_of(trainer: Trainer) -> CondenseDataModule:
    """Return the trainer's data module."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, CondenseDataModule):
        raise SettingsError(
            f"Expected the real images in a lit_condense data module, got {type(data).__name__}. "
            "Call trainer.fit(synthetic_set, datamodule=...) with one of lit_condense.data."
        )
    return data


def precision(trainer: Trainer) -> None:
    """Refuse mixed precision: it would run the double backward in half precision."""
    if trainer.precision not in PRECISIONS:
        raise SettingsError(
            f"Expected trainer.precision 32-true (the engine decides where less is safe), got {trainer.precision}. "
            "Leave precision out and choose model.engine.mode: fast or exact."
        )


def enough_classes(real: RealImages) -> None:
    """Refuse data without anything to tell apart."""
    if real.num_classes < 2:
        raise DataError(f"Expected images of 2 or more classes, the data have {real.num_classes}. Use more classes.")


def set_fits(images: Tensor, labels: Tensor, real: RealImages) -> None:
    """Refuse a set (from a checkpoint) that belongs to other data, and data without anything to tell apart."""
    enough_classes(real)
    if tuple(images.shape[1:]) != real.image_shape or int(labels.max()) >= real.num_classes:
        raise DataError(
            f"The set holds images {tuple(images.shape[1:])} of {int(labels.max()) + 1} classes, the data have "
            f"{real.image_shape} and {real.num_classes}. Use the data that the set was condensed from."
        )


def matching_losses(losses: Sequence[MatchingLoss], synthetic_images: int, real_images: int) -> None:
    """Refuse a run that matches nothing, two losses with one name, or a loss that needs more images of each class."""
    if not losses:
        raise SettingsError(
            "Expected at least one matching loss among trainer.callbacks, got none. Add for instance "
            "lit_condense.matching.GradientMatching."
        )
    for loss in losses:
        contracts.declared(loss)
    tags = [loss.tag for loss in losses]
    if len(set(tags)) < len(tags):
        raise SettingsError(f"Expected matching losses with different names, got {tags}. Give one a `name`.")
    if all(loss.weight == 0 for loss in losses):
        raise SettingsError(f"Expected a matching loss with a weight above 0, got only 0 ({tags}). Nothing is matched.")
    for loss in losses:
        loss.check_companions(losses)
        if loss.least_images > synthetic_images:
            raise SettingsError(
                f"{loss.tag} needs at least {loss.least_images} decoded synthetic images of each class, a class has "
                f"{synthetic_images}. Raise ipc or the parametrization's factor."
            )
        if loss.least_images > real_images:
            raise SettingsError(
                f"{loss.tag} needs at least {loss.least_images} real images of each class in an update, a class has "
                f"{real_images}. Raise the sampling's batch_size or leave the class out."
            )


def fit(module: SyntheticSet) -> None:
    """Refuse a run whose losses, network, images and length do not fit one another, before it starts."""
    real, losses = module.data.real, module.matching_losses
    for stored in set(module.counts):
        contracts.counts(module.parametrization, stored)
    real_images = min(contracts.size(module.sampling, real, c) for c in range(real.num_classes))
    synthetic_images = min(map(module.parametrization.matched_count, module.counts))
    matching_losses(losses, synthetic_images, real_images)
    length_of_run(module.trainer, contracts.updates(module.inner, module.updates_per_network))
    network(losses, module.network, real, module.key.fold("network", 0))


def network(losses: Sequence[MatchingLoss], factory: NetworkFactory, real: RealImages, key: RandomKey) -> None:
    """Refuse a network that does not fit the images, or in which a loss finds nothing to match."""
    channels, height, width = real.image_shape
    built = build_network(factory, channels, (height, width), real.num_classes, key)
    for loss in losses:
        loss.check_network(built)


def validations(trainer: Trainer) -> None:
    """Refuse a validation every 0 updates or epochs, by which Lightning would divide."""
    for name in ("val_check_interval", "check_val_every_n_epoch"):
        if getattr(trainer, name, None) == 0:  # an interval of time is kept elsewhere
            raise SettingsError(
                f"Expected trainer.{name} to be above 0, got 0. Set trainer.val_check_interval to the updates between "
                "two validations, or trainer.limit_val_batches to 0 for none."
            )


def length_of_run(trainer: Trainer, updates_per_network: int) -> None:
    """Refuse a run without an end; warn where it ends in the middle of a network's life."""
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
    if trainer.max_steps % updates_per_network and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        rank_zero_warn(
            f"max_steps={trainer.max_steps} is no multiple of the {updates_per_network} updates that a network "
            "serves: the last network's life is cut short."
        )


def checkpoint(content: dict[str, Any], expected: int, holds: str = "images") -> dict[str, Any]:
    """Return our part of a checkpoint.

    Args:
        content: The checkpoint.
        expected: Its format.
        holds: What is in its ``state_dict``: ``images`` of a synthetic set, ``indices`` of a selected one.
    """
    state = content.get("lit_condense")
    if not isinstance(state, dict) or holds not in content.get("state_dict", {}):
        kind = "synthetic" if holds == "images" else "selected"
        raise CheckpointError(
            f"Expected a checkpoint of a lit_condense {kind} set, got one with the entries {sorted(content)}. "
            "Give the path of a checkpoint that `lit-condense fit` wrote."
        )
    if state.get("format") != expected:
        raise CheckpointError(
            f"Expected checkpoint format {expected}, got {state.get('format')}. Use the lit_condense version that "
            "wrote it."
        )
    return state


def same_settings(before: Plain, now: Plain) -> None:
    """Refuse to go on under other settings than those a checkpoint was written with."""
    lines = differences(before, now)
    if lines:
        raise CheckpointError(
            "Expected the settings that the checkpoint was written with, got others:\n  "
            + "\n  ".join(lines)
            + "\nPut them back, or start a new run without ckpt_path."
        )


def same_route(before: str, now: str) -> None:
    """Warn where a run goes on with other arithmetic than that of its checkpoint."""
    if before != now:
        rank_zero_warn(
            f"The checkpoint was written with other arithmetic ({before}) than this run uses ({now}): the result will "
            "agree to rounding, not to the byte."
        )
