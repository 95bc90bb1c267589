"""The card: what a condensed set is, where it comes from and how well it does, as plain data."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import lightning
import torch
import torchvision

from lit_condense._version import __version__
from lit_condense.export.condensed_set import CondensedSet
from lit_condense.settings import settings_of

if TYPE_CHECKING:
    from lit_condense.evaluated_set import EvaluatedSet


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "lit_condense": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
    }


def condensed_from(module: EvaluatedSet, record: dict[str, Any]) -> CondensedSet:
    """Return the set that a module holds now, in [0, 1] pixel space, with its card.

    Args:
        module: Attached to a trainer.
        record: What was measured: evaluation, seconds, why the run ended.
    """
    current, images = module.training_set(), module.pixels().cpu()
    settings = module.made_with
    card = {
        "data": module.data.describe(),
        "ipc": module.counts,
        "update": module.updates_done,
        "max_updates": module.trainer.max_steps,
        "seed": settings["model"]["seed"],
        "method": {name: part for name, part in settings.items() if name != "data"},
        **module.particulars(),
        "evaluation_settings": settings_of(module.evaluation),
        "pixels": {
            "space": "[0, 1]",
            "min": float(images.min()),
            "max": float(images.max()),
            "share_outside": float(((images < 0) | (images > 1)).double().mean()),
        },
        "versions": versions(),
        # not the module's own, which Lightning takes back to the CPU at the end of a run
        "device": module.trainer.strategy.root_device.type,
        **record,
    }
    return CondensedSet(images, current.labels.cpu(), card, weights=module.weights_of_images(), stored=module.stored())
