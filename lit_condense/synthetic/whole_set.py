"""The losses of scope ``whole`` in an update: what they see, and which process is called."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_condense.engine.unrolling import Unroller
from lit_condense.engine.whole_set import as_function, whole_set_gradient
from lit_condense.matching.base import Progress
from lit_condense.matching.whole import INNER_LR, Leaves, Whole, WholeSetLoss
from lit_condense.sharding import Share
from lit_condense.synthetic.data import targets_of
from lit_condense.synthetic.gather import Gatherer


def whole_of(gatherer: Gatherer, network: nn.Module, loss: WholeSetLoss, progress: Progress, share: Share) -> Whole:
    """Return what a loss sees in an update; a new graph starts from its leaves.

    Args:
        gatherer: Of the update.
        network: The inner network.
        loss: The loss.
        progress: Where the run and the network stand.
        share: The rank.
    """
    storage = gatherer.parametrization.for_training
    rows = storage.decode_labels(torch.arange(len(gatherer.labels), device=gatherer.labels.device))

    def decode(leaves: Leaves) -> tuple[Tensor, Tensor]:
        images = storage.decode(leaves["images"], gatherer.real.normalization)
        return images, targets_of(leaves, gatherer.labels)[rows]

    forward, parameters = as_function(network)
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in gatherer.leaves().items()}
    return Whole(
        leaves=leaves,
        decode=decode,
        decoded=len(rows),
        forward=forward,
        parameters=parameters,
        real=gatherer.real,
        augmentation=gatherer.augmentation,
        key=gatherer.key.fold("whole", progress.update, progress.network_index, loss.tag),
        run_key=gatherer.key.fold("whole", "run", loss.tag),
        progress=progress,
        share=share if loss.shared else Share(),
        step_size=leaves.get(INNER_LR, gatherer.step_size),
    )


def match_whole(
    gatherer: Gatherer,
    network: nn.Module,
    share: Share,
    losses: Sequence[tuple[WholeSetLoss, float]],
    progress: Progress,
    unroller: Unroller | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return this rank's part of the unweighted losses by tag, and of their weighted gradient by leaf.

    Args:
        gatherer: Of the update.
        network: The inner network.
        share: The rank.
        losses: Each with its weight; one whose weight is 0 is evaluated for the log only.
        progress: Where the run and the network stand.
        unroller: Trains students; by default eager.
    """
    unroller = unroller or Unroller(network)
    values: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}
    for loss, weight in losses:
        if share.rank > 0 and not loss.shared:
            continue
        whole = whole_of(gatherer, network, loss, progress, share)
        # layers that draw do so by the update, whichever losses stand beside this one
        with whole.key.fold("layers").isolated():
            values[loss.tag], found = whole_set_gradient(loss, whole, weight, weight != 0, unroller)
        for name, gradient in found.items():
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
    return values, gradients
