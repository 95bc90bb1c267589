"""What a condensed or selected set is compared with: real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from lit_condense.evaluation.training import LabelledImages, SmallSet
from lit_condense.rng import RandomKey
from lit_condense.selection import Selection
from lit_condense.selection.select import candidates_of, validation_of
from lit_condense.selection.task import ScoringTask, plain_arithmetic

if TYPE_CHECKING:
    from lit_condense.evaluated_set import EvaluatedSet


def real_subset(module: EvaluatedSet, selection: Selection) -> Callable[[int], SmallSet]:
    """Return a function that gives network ``i`` as many selected real images of each class as the set trains on.

    A method without scoring networks selects anew for each network, so the spread over networks includes the luck of
    the draw. One with scoring networks trains them once, here, and selects once. A class with fewer images is taken
    whole. Networks are trained with the weights of a method that gives any.
    """
    key = module.key.fold("baseline", selection.tag)
    if selection.networks == 0:
        return lambda network: _selected(module, selection, key.fold(network))
    once = _selected(module, selection, key.fold(0))
    return lambda _: once


def _selected(module: EvaluatedSet, selection: Selection, key: RandomKey) -> SmallSet:
    real, scoring = module.data.real, module.evaluation.scoring_of_baselines
    counts = torch.bincount(module.training_set().labels, minlength=real.num_classes).tolist()
    task = ScoringTask(real, module.network, module.seed)
    trained = scoring.train_all(task, selection.networks)
    chosen, weights = [], []
    with plain_arithmetic(real.device):
        networks = [scoring.restore(task, one) for one in trained]
        forgetting = trained[0].forgetting if trained else None
        validation = validation_of(selection, networks, scoring, real)
        for c, count in enumerate(counts):
            if count == 0:  # a selection without a budget for each class may leave one out
                continue
            members = real.indices_of(c)
            candidates = candidates_of(networks, forgetting, scoring, real, members, validation)
            choice = selection.choose(candidates, min(count, len(members)), key.fold(c))
            chosen.append(members[choice.positions])
            weights += [] if choice.weights is None else [choice.weights.to(real.device)]
    indices = torch.cat(chosen)
    return SmallSet(real.at(indices), real.labels_at(indices), torch.cat(weights) if weights else None)


def all_real(module: EvaluatedSet) -> Callable[[int], LabelledImages]:
    """Return a function that gives every network all real images."""
    real = module.data.real
    return lambda _: real
