"""From proxy models and a budget to the images that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.errors import SettingsError
from lit_condense.networks import CondensableNetwork, NetworkFactory
from lit_condense.rng import RandomKey
from lit_condense.selection.base import Candidates, Choice, Selection, Validation
from lit_condense.selection.budget import Budget
from lit_condense.selection.proxy import ProxyTraining
from lit_condense.selection.task import ProxyTask, TrainedNetwork, plain_arithmetic
from lit_condense.sharding import Share

ALONE = Share()


@dataclass(frozen=True)
class Subset:
    """Real images that a selection keeps."""

    indices: Tensor
    """``(k,)`` different indices into the training split, int64 on the CPU: class by class, and in a class in the order
    they were picked."""
    weights: Tensor | None = None
    """``(k,)`` float32 on the CPU, beside the indices; None where the method has none."""


def select_now(
    selection: Selection,
    proxy: ProxyTraining,
    real: RealImages,
    budget: Budget,
    network: NetworkFactory,
    key: RandomKey,
) -> Subset:
    """Train the proxy models that a selection needs in a plain loop (or take them from the cache), and select.

    Args:
        selection: The method.
        proxy: How its networks are trained.
        real: The real images; training happens on their device.
        budget: How many are kept.
        network: Architecture of the proxy models.
        key: Names the draws of the method. The networks are named by its seed alone.
    """
    task = ProxyTask(real, network, key.seed)
    return select(selection, proxy.train_all(task, selection.networks), proxy, task, budget, key)


def select(
    selection: Selection,
    trained: Sequence[TrainedNetwork],
    proxy: ProxyTraining,
    task: ProxyTask,
    budget: Budget,
    key: RandomKey,
    share: Share = ALONE,
) -> Subset:
    """Let a selection choose inside each group of the budget; ranks share out the groups and gather the choice.

    Raises:
        SettingsError: The budget does not fit the data, or the method returned what it must not.
    """
    real = task.real
    groups = budget.groups(real)
    indices = torch.zeros(sum(count for _, count in groups), dtype=torch.int64)
    weights = torch.zeros(len(indices), dtype=torch.float32)
    starts = torch.tensor([0, *(count for _, count in groups)]).cumsum(0).tolist()
    with plain_arithmetic(real.device):
        networks = [proxy.restore(task, one) for one in trained]
        forgetting = trained[0].forgetting if trained else None
        validation = validation_of(selection, networks, proxy, real)
        for number in share.take(range(len(groups))):
            members, count = groups[number]
            candidates = candidates_of(networks, forgetting, proxy, real, members, validation)
            choice = checked(selection, selection.choose(candidates, count, key.fold("group", number)), count, members)
            place = slice(starts[number], starts[number] + count)
            indices[place] = members[choice.positions]
            if choice.weights is not None:
                weights[place] = choice.weights.float().cpu()
    indices, weights = (share.sum(part.to(real.device)).cpu() for part in (indices, weights))
    order = real.labels.cpu()[indices].argsort(stable=True)  # class by class, also where all were chosen at once
    return Subset(indices[order], weights[order] if selection.weighted else None)


def candidates_of(
    networks: Sequence[CondensableNetwork],
    forgetting: Tensor | None,
    proxy: ProxyTraining,
    real: RealImages,
    members: Tensor,
    validation: Validation | None = None,
) -> Candidates:
    """Return the real images at ``members`` ``(n,)`` as a selection sees them."""
    return Candidates(
        real,
        members,
        real.labels_at(members),
        [proxy.view(network, real, members) for network in networks],
        None if forgetting is None else forgetting[members].to(real.device),
        validation,
    )


def validation_of(
    selection: Selection, networks: Sequence[CondensableNetwork], proxy: ProxyTraining, real: RealImages
) -> Validation | None:
    """Return all real images as the first network sees them, None for a selection that does not ask for them."""
    if not selection.validates:
        return None
    everyone = torch.arange(len(real))
    return Validation(real.labels_at(everyone), proxy.view(networks[0], real, everyone))


def checked(selection: Selection, choice: Choice, count: int, members: Tensor) -> Choice:
    """Hold a selection, which may be the user's own, to its contract."""
    positions, weights = choice.positions, choice.weights
    different = torch.unique(positions)
    if positions.shape != (count,) or len(different) < count or different[0] < 0 or different[-1] >= len(members):
        raise SettingsError(
            f"Expected {type(selection).__name__}.choose to return {count} different positions among {len(members)} "
            f"candidates, got {len(positions)} of which {len(different)} differ: {positions.tolist()[:10]}."
        )
    if selection.weighted != (weights is not None):
        raise SettingsError(
            f"Expected {type(selection).__name__}.choose to return weights exactly where its attribute says so, got "
            f"{'none' if weights is None else 'weights'} and weighted = {selection.weighted}."
        )
    if weights is not None and (weights.shape != (count,) or not bool((weights >= 0).all() & weights.isfinite().all())):
        raise SettingsError(
            f"Expected {type(selection).__name__}.choose to return {count} finite weights of 0 or more, got shape "
            f"{tuple(weights.shape)} and {weights.tolist()[:5]}..."
        )
    return choice
