"""Images that start from a selection of real ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.init.base import RealStart
from lit_condense.networks import NetworkFactory
from lit_condense.rng import RandomKey
from lit_condense.selection import Budget, ProxyTraining, Selection, select_now


class Selected(RealStart):
    """The real images that a selection keeps.

    Its proxy models have the architecture that the set is condensed with. They are trained before the run begins,
    also where a checkpoint then brings other images: give ``proxy`` a ``cache`` to train them once.

    Args:
        selection: The method. Weights that it gives are not used.
        proxy: How the proxy models are trained, where it needs any; default: 10 epochs of SGD.
    """

    def __init__(self, selection: Selection, proxy: ProxyTraining | None = None) -> None:
        self.selection = selection
        self.proxy = proxy or ProxyTraining()

    def chosen(self, real: RealImages, counts: list[int], network: NetworkFactory, key: RandomKey) -> Sequence[Tensor]:
        """Return the images that the selection keeps of each class."""
        kept = select_now(self.selection, self.proxy, real, Budget(ipc=counts), network, key.fold("selection"))
        return torch.split(kept.indices, counts)
