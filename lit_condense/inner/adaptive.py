"""Adaptive training between updates (Jiang et al., *Delving into Effective Gradient Matching*, 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lit_condense.errors import SettingsError, check_least
from lit_condense.inner.base import InnerContext
from lit_condense.inner.network import BatchNormStatistics, InnerNetwork
from lit_condense.inner.synthetic import TrainOnSynthetic
from lit_condense.matching.base import Progress
from lit_condense.rng import RandomKey

OPENING = (50, 40, 30, 20)
"""Epochs after a network's first updates, in the last release of EGM's program."""


class DecreasingTraining(TrainOnSynthetic):
    """Train on the synthetic set for many epochs first and few later: 50, 40, 30, 20, then 10, after 10 updates 5.

    The schedule that EGM's full method (MDA) is run with.

    Args:
        updates: Image updates a network serves; default as in :class:`TrainOnSynthetic`.
        batch_size: Images in a training step (published: 256).
        lr: Learning rate (published: 0.01).
        momentum: Momentum (published: 0.5).
        weight_decay: Weight decay (published: 0).
        batch_norm: See :class:`InnerLoop`.
        opening: Epochs after the first updates, a number for each (published: 50, 40, 30, 20; in the first release of
            the program: 100, 50, 50, 50).
    """

    def __init__(
        self,
        updates: int | None = None,
        batch_size: int = 256,
        *,
        lr: float = 0.01,
        momentum: float = 0.5,
        weight_decay: float = 0.0,
        batch_norm: BatchNormStatistics = "real_batch",
        opening: Sequence[int] = OPENING,
    ) -> None:
        super().__init__(
            updates,
            None,
            batch_size=batch_size,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            batch_norm=batch_norm,
        )
        if any(epochs < 0 for epochs in opening):
            raise SettingsError(f"Expected DecreasingTraining.opening to hold 0 or more epochs, got {list(opening)}.")
        self.opening = opening

    def epochs_after(self, progress: Progress, ipc: Sequence[int]) -> int:
        """Return the epochs that follow a network's update ``progress.match_index``."""
        return decreasing_epochs(progress.match_index, self.opening)


def decreasing_epochs(match_index: int, opening: Sequence[int] = OPENING) -> int:
    """Return EGM's epochs after a network's update ``match_index``: those of the opening, then 10, later 5."""
    if match_index < len(opening):
        return opening[match_index]
    return 10 if match_index < 10 else 5


class TrainUntilOverfitting(TrainOnSynthetic):
    """Train on the synthetic set until it over-fits: until the loss on unseen real images rises (EGM).

    Before the first epoch and after each one the loss on a mixed batch of real images, fresh for every update, is
    measured; training ends with the epoch after which it is above its previous value, or after ``most_epochs``.

    Args:
        updates: Image updates a network serves; default as in :class:`TrainOnSynthetic`.
        most_epochs: Most epochs between two updates (published: 50).
        held_out: Real images in the measuring batch (published: 256).
        batch_size: Images in a training step (published: 256).
        lr: Learning rate (published: 0.01).
        momentum: Momentum (published: 0.5).
        weight_decay: Weight decay (published: 0).
        batch_norm: See :class:`InnerLoop`.
    """

    def __init__(
        self,
        updates: int | None = None,
        most_epochs: int = 50,
        *,
        held_out: int = 256,
        batch_size: int = 256,
        lr: float = 0.01,
        momentum: float = 0.5,
        weight_decay: float = 0.0,
        batch_norm: BatchNormStatistics = "real_batch",
    ) -> None:
        super().__init__(
            updates,
            None,
            batch_size=batch_size,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            batch_norm=batch_norm,
        )
        check_least("TrainUntilOverfitting", 1, most_epochs=most_epochs, held_out=held_out)
        self.most_epochs = most_epochs
        self.held_out = held_out

    def batch_sizes(self, images: int, real: int) -> list[int]:
        """Return how many images its batches hold, the measuring one among them."""
        return [*super().batch_sizes(images, real), min(self.held_out, real)]

    def advance(self, inner: InnerNetwork, context: InnerContext, progress: Progress, key: RandomKey) -> None:
        """Train epoch by epoch until the loss on the measuring batch rises."""
        real = context.real
        chosen = real.mixed(self.held_out, key.fold("held_out"))
        images, labels = real.at(chosen).to(context.images.dtype), real.labels_at(chosen)

        def measure() -> float:
            with torch.no_grad():
                return float(context.loss(images, labels))

        before = measure()
        for epoch in range(self.most_epochs):
            self._train_epoch(inner, context, key, epoch)
            after = measure()
            if after > before:
                return
            before = after
