"""What a condensed set is compared with: real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from lit_condense.evaluation.training import LabelledImages, SmallSet

if TYPE_CHECKING:
    from lit_condense.synthetic_set import SyntheticSet


def random_real(module: SyntheticSet) -> Callable[[int], SmallSet]:
    """Return a function that draws as many random real images of each class as the set trains on.

    Network ``i`` gets its own draw, so the spread over networks includes the luck of the draw.
    """
    real = module.data.real
    counts = torch.bincount(module.training_set().labels, minlength=real.num_classes).tolist()

    def drawn(network: int) -> SmallSet:
        key = module.key.fold("baseline", "random", network)
        chosen = torch.cat([real.random_of_class(c, count, key.fold(c)) for c, count in enumerate(counts)])
        return SmallSet(real.at(chosen), real.labels_at(chosen))

    return drawn


def all_real(module: SyntheticSet) -> Callable[[int], LabelledImages]:
    """Return a function that gives every network all real images."""
    real = module.data.real
    return lambda _: real
