"""An inner network trained on the synthetic set itself (DC, DSA)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lit_condense.augmentation.contract import applied
from lit_condense.data.batching import batch_sizes, batches
from lit_condense.errors import check_least
from lit_condense.inner.base import InnerContext, InnerLoop
from lit_condense.inner.network import BatchNormStatistics, InnerNetwork
from lit_condense.matching.base import Progress
from lit_condense.rng import RandomKey
from lit_condense.transfer import sent

PUBLISHED_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Images per class -> (updates per network, epochs between them); Zhao et al., ICLR 2021, and their program."""


def loops_for(ipc: int) -> tuple[int, int]:
    """Return (updates per network, epochs between them) for any number of images per class.

    The published pairs where they exist. Elsewhere: as many updates as images per class, at most 50; and the epochs of
    the next published number above (2 to 9: 50 epochs, 11 to 20: 25, ...); beyond 50: 50 updates and 10 epochs, the
    pair its author suggests for larger sets.
    """
    if ipc in PUBLISHED_LOOPS:
        return PUBLISHED_LOOPS[ipc]
    above = min((known for known in PUBLISHED_LOOPS if known > ipc), default=max(PUBLISHED_LOOPS))
    return min(ipc, max(PUBLISHED_LOOPS)), PUBLISHED_LOOPS[above][1]


class TrainOnSynthetic(InnerLoop):
    """A network that starts fresh, serves some updates and is trained on the synthetic set between them (DC).

    Args:
        updates: Image updates a network serves (the published *outer loop*). By default the published number for the
            images per class, see :func:`loops_for`; with unequal classes, for their mean.
        epochs: Epochs over the synthetic set between two updates (the published *inner loop*); default as above.
        batch_size: Images in a training step (published: 256).
        lr: Learning rate (published: 0.01).
        momentum: Momentum (published: 0).
        weight_decay: Weight decay (published: 0).
        batch_norm: See :class:`InnerLoop`.
    """

    def __init__(
        self,
        updates: int | None = None,
        epochs: int | None = None,
        *,
        batch_size: int = 256,
        lr: float = 0.01,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        batch_norm: BatchNormStatistics = "real_batch",
    ) -> None:
        super().__init__(lr, momentum, weight_decay=weight_decay, batch_norm=batch_norm)
        check_least("TrainOnSynthetic", 1, updates=updates, batch_size=batch_size)
        check_least("TrainOnSynthetic", 0, epochs=epochs)
        self.updates = updates
        self.epochs = epochs
        self.batch_size = batch_size

    def updates_per_network(self, ipc: Sequence[int]) -> int:
        """Return the given number of updates, or the published one for the mean images per class."""
        return self.updates if self.updates is not None else loops_for(_typical(ipc))[0]

    def epochs_between(self, ipc: Sequence[int]) -> int:
        """Return the given number of epochs, or the published one for the mean images per class."""
        return self.epochs if self.epochs is not None else loops_for(_typical(ipc))[1]

    def batch_sizes(self, images: int, real: int) -> list[int]:
        """Return how many synthetic images its batches hold."""
        return batch_sizes(images, self.batch_size)

    def advance(self, inner: InnerNetwork, context: InnerContext, progress: Progress, key: RandomKey) -> None:
        """Train for some epochs on shuffled batches, augmented per sample if the method augments."""
        for epoch in range(self.epochs_after(progress, context.ipc)):
            self._train_epoch(inner, context, key, epoch)

    def epochs_after(self, progress: Progress, ipc: Sequence[int]) -> int:
        """Return the epochs that follow update ``progress``."""
        return self.epochs_between(ipc)

    def _train_epoch(self, inner: InnerNetwork, context: InnerContext, key: RandomKey, epoch: int) -> None:
        order = torch.randperm(len(context.labels), generator=key.fold("order", epoch).generator())
        for step, chosen in enumerate(batches(order, self.batch_size)):
            images = context.images[sent(chosen, context.images.device)]
            labels = context.targets[sent(chosen, context.targets.device)]
            draw = context.augmentation.draw(
                key.fold("augment", epoch, step), (images.shape[-2], images.shape[-1]), samples=len(images)
            )
            inner.train_step(context.loss, applied(context.augmentation, images, draw), labels)


def _typical(ipc: Sequence[int]) -> int:
    return max(1, round(sum(ipc) / len(ipc)))
