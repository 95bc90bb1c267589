"""A fresh network for every image update, never trained (DM)."""

from __future__ import annotations

from collections.abc import Sequence

from lit_condense.inner.base import InnerContext, InnerLoop
from lit_condense.inner.network import BatchNormStatistics, InnerNetwork
from lit_condense.matching.base import Progress
from lit_condense.rng import RandomKey


class FreshNetwork(InnerLoop):
    """A new random network for each image update (DM).

    Args:
        batch_norm: See :class:`InnerLoop`; DM lets each batch have its own statistics.
    """

    def __init__(self, batch_norm: BatchNormStatistics = "own_batch") -> None:
        super().__init__(batch_norm=batch_norm)

    def updates_per_network(self, ipc: Sequence[int]) -> int:
        """Return 1."""
        return 1

    def advance(self, inner: InnerNetwork, context: InnerContext, progress: Progress, key: RandomKey) -> None:
        """Leave the network as it is."""
