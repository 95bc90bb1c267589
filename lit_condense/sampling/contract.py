"""What a sampling of one's own must return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.errors import SettingsError, described, is_count
from lit_condense.matching.base import Loss, real_needs
from lit_condense.matching.quantity import GRADIENTS, built_in
from lit_condense.rng import RandomKey
from lit_condense.sampling.base import Sampling


def size(sampling: Sampling, real: RealImages, class_index: int) -> int:
    """Return how many real images of a class an update sees."""
    found: object = sampling.size(real, class_index)
    if not is_count(found):
        raise SettingsError(
            f"Expected {type(sampling).__name__}.size to return a whole number, 1 or more, got {found!r} for class "
            f"{class_index}."
        )
    return int(found)  # type: ignore[call-overload, no-any-return]


def selected(sampling: Sampling, found: Any, real: RealImages, class_index: int) -> Tensor:
    """Return the chosen real images of a class, if they are as many indices as the sampling announced."""
    wanted = sampling.size(real, class_index)
    if not isinstance(found, Tensor) or found.dtype != torch.int64 or tuple(found.shape) != (wanted,):
        raise SettingsError(
            f"Expected {type(sampling).__name__}.select to return {wanted} indices into the real images (as its size "
            f"says) as an int64 tensor of shape {(wanted,)}, got {described(found)}."
        )
    return found


def weights(sampling: Sampling, real: RealImages, class_index: int, chosen: Tensor) -> Tensor | None:
    """Return what each chosen real image of a class counts, if these are numbers that a mean can be made with."""
    found: object = sampling.weights_of(real, class_index, chosen)
    if found is None:
        return None
    owner = f"{type(sampling).__name__}.weights_of"
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.shape != chosen.shape:
        raise SettingsError(
            f"Expected {owner} to return None, or what each chosen image counts as a floating-point tensor of shape "
            f"{tuple(chosen.shape)}, got {described(found)}."
        )
    wrong = found[~(found.isfinite() & (found > 0))]
    if len(wrong):
        raise SettingsError(
            f"Expected {owner} to return finite numbers above 0, got {wrong.tolist()[:5]} ({len(wrong)} of "
            f"{len(found)}) for class {class_index}. An image that is drawn must have a probability above 0."
        )
    return found


def weighs(sampling: Sampling) -> bool:
    """Return whether a sampling says what its images count."""
    return type(sampling).weights_of is not Sampling.weights_of


def check_weighed(sampling: Sampling, losses: Sequence[Loss]) -> None:
    """Refuse losses beside a sampling with weights, if something in them would count all real images alike."""
    for loss in losses if weighs(sampling) else ():
        read = real_needs([loss])
        advice = f"Choose a sampling without weights (RandomSampling) beside {type(loss).__name__}"
        if not built_in(read):
            raise SettingsError(
                f"Expected losses that read gradients, features or logits of the real images, because "
                f"{type(sampling).__name__} weighs these and a quantity of one's own does not know the weights, got "
                f"{type(loss).__name__}, which reads {', '.join(sorted(read))}. {advice}."
            )
        if not (read <= GRADIENTS or loss.reads_weights):
            raise SettingsError(
                f"Expected {type(loss).__name__} to weigh what it reads of single real images "
                f"({', '.join(sorted(read - GRADIENTS))}), because {type(sampling).__name__} does not draw all alike. "
                f"{advice}, or use real.weights in its loss and say so: reads_weights = True."
            )


def of_classes(sampling: Sampling, real: RealImages, key: RandomKey) -> None:
    """Refuse a sampling that chooses images of another class, or none at all, or weighs them wrongly.

    Args:
        sampling: The sampling.
        real: The real images.
        key: Names the draws of an update; a class is folded into it.
    """
    for c in range(real.num_classes):
        found = selected(sampling, sampling.select(real, c, key.fold(c)), real, c)
        strangers = found[~torch.isin(found.cpu(), real.indices_of(c))]
        if len(strangers):
            raise SettingsError(
                f"Expected {type(sampling).__name__}.select to return indices of images of class {c}, got "
                f"{strangers.tolist()[:5]} ({len(strangers)} of {len(found)}), which are not. Choose among "
                "real.indices_of(class_index)."
            )
        weights(sampling, real, c, found)
