"""What a condensed or selected set is compared with: real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from lit_condense.evaluation.training import LabelledImages, SmallSet
from lit_condense.selection import Candidates, Selection

if TYPE_CHECKING:
    from lit_condense.evaluated_set import EvaluatedSet


def real_subset(module: EvaluatedSet, selection: Selection) -> Callable[[int], SmallSet]:
    """Return a function that selects as many real images of each class as the set trains on.

    Network ``i`` gets its own selection, so the spread over networks includes the luck of the draw. A class with fewer
    images is taken whole.
    """
    real = module.data.real
    counts = torch.bincount(module.training_set().labels, minlength=real.num_classes).tolist()

    def selected(network: int) -> SmallSet:
        key = module.key.fold("baseline", selection.tag, network)
        chosen = []
        for c, count in enumerate(counts):
            if count == 0:  # a selection without a budget for each class may leave one out
                continue
            members = real.indices_of(c)
            candidates = Candidates(real, members, real.labels_at(members))
            choice = selection.choose(candidates, min(count, len(members)), key.fold(c))
            chosen.append(members[choice.positions])
        return SmallSet(real.at(torch.cat(chosen)), real.labels_at(torch.cat(chosen)))

    return selected


def all_real(module: EvaluatedSet) -> Callable[[int], LabelledImages]:
    """Return a function that gives every network all real images."""
    real = module.data.real
    return lambda _: real
