"""The card: what a set is, where it comes from and how well it does, as plain data."""

from __future__ import annotations

from typing import Any

import torch

from lit_condense.engine.hardware import device_name
from lit_condense.evaluation import SmallSet
from lit_condense.export.condensed_set import CondensedSet
from lit_condense.export.versions import versions
from lit_condense.sets.base import SmallTrainingSet
from lit_condense.settings import settings_of


def condensed_from(module: SmallTrainingSet, record: dict[str, Any]) -> CondensedSet:
    """Return the set that a module holds now, in [0, 1] pixel space, with its card.

    Args:
        module: With its data.
        record: What was measured: evaluation, seconds, why the run ended.
    """
    current, images, stored = module.training_set(), module.pixels().cpu(), module.stored()
    settings = module.made_with
    card = {
        "data": module.data.describe(),
        "ipc": module.counts,
        "update": module.updates_done,
        "max_updates": module.most_updates,
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
        "bytes": _bytes_kept(module, current),
        "versions": versions(),
        # not the module's own, which Lightning takes back to the CPU at the end of a run
        "device": module.data.real.device.type,
        "device_name": device_name(module.data.real.device),
        **record,
    }
    return CondensedSet(
        images,
        current.labels.cpu(),
        card,
        soft_labels=None if current.soft_labels is None else current.soft_labels.cpu(),
        weights=module.weights_of_images(),
        inner_lr=module.step_size(),
        stored=None if stored is None or torch.equal(stored, images) else stored,
        averaged=module.averaged_pixels(),
    )


def _bytes_kept(module: SmallTrainingSet, current: SmallSet) -> dict[str, int]:
    """Return what the set takes to keep: stored images and their soft labels, or labels, in the types they have."""
    raw, stored = module.raw(), sum(module.counts)
    labels = current.labels if current.soft_labels is None else current.soft_labels
    of_labels = stored * labels[0].numel() * labels.element_size()
    beside = 4 * sum(value is not None for value in (module.step_size(),))
    images = raw.numel() * raw.element_size()
    return {"images": images, "labels": of_labels, "step_size": beside, "all": images + of_labels + beside}
