"""An inner network trained on real data (IDC, DREAM, LCMat-C)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_condense.augmentation import AlwaysOn, Augmentation
from lit_condense.augmentation.contract import applied
from lit_condense.augmentation.cutmix import mixed
from lit_condense.data.batching import batch_sizes, batches
from lit_condense.data.real_images import RealImages
from lit_condense.data.walk import Batches, walked
from lit_condense.errors import SettingsError, check_choice, check_least
from lit_condense.inner.base import InnerContext, InnerLoop
from lit_condense.inner.network import BatchNormStatistics, InnerNetwork
from lit_condense.matching.base import Progress
from lit_condense.rng import RandomKey


class TrainOnReal(InnerLoop):
    """A network that starts fresh, serves some updates and is trained on augmented real images after each (IDC).

    Args:
        updates: Image updates a network serves (published: 100).
        images: Real images it is trained on between two updates, rounded up to whole batches (published: 2,000 for
            CIFAR, 500 for MNIST, FashionMNIST and SVHN).
        batch_size: Images in a training step (IDC: 64, DREAM: 128).
        cutmix: Probability that a training batch is mixed by CutMix (published: 0.5).
        augmentation: Drawn for each image of a training batch; default: colour and crop, always on (IDC leaves its
            cutout to CutMix here).
        lr: Learning rate (published: 0.01).
        momentum: Momentum (published: 0.9).
        weight_decay: Weight decay (published: 5e-4).
        batch_norm: See :class:`InnerLoop`.
        early: Epochs over all real images that a new network is trained for before its first update (published: 0; IDC
            on ten classes of ImageNet: 10, DREAM+: 1).
        batches: Whether each batch is drawn ``anew`` from all images, or batches go through them in ``epochs``, from
            network to network, as in IDC's program. The last batch of an epoch is then shorter, which a compiled
            network pays for with a second shape. As in the program, batches that a network's last update would have
            trained it on are gone past.
    """

    def __init__(
        self,
        updates: int = 100,
        images: int = 2000,
        *,
        batch_size: int = 64,
        cutmix: float = 0.5,
        augmentation: Augmentation | None = None,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        batch_norm: BatchNormStatistics = "own_batch",
        early: int = 0,
        batches: Batches = "anew",
    ) -> None:
        super().__init__(lr, momentum, weight_decay=weight_decay, batch_norm=batch_norm)
        check_least("TrainOnReal", 1, updates=updates, batch_size=batch_size)
        check_least("TrainOnReal", 0, images=images, early=early)
        if not 0 <= cutmix <= 1:
            raise SettingsError(f"Expected TrainOnReal.cutmix to be a probability, got {cutmix}.")
        check_choice("TrainOnReal.batches", batches, Batches)
        self.updates = updates
        self.images = images
        self.batch_size = batch_size
        self.cutmix = cutmix
        self.augmentation = augmentation or AlwaysOn(("color", "crop"))
        self.early = early
        self.batches: Batches = batches

    def updates_per_network(self, ipc: Sequence[int]) -> int:
        """Return the given number of updates."""
        return self.updates

    @property
    def trains_new(self) -> bool:
        """Whether there are early epochs."""
        return self.early > 0

    def batch_sizes(self, images: int, real: int) -> list[int]:
        """Return how many real images its batches hold."""
        drawn = [min(self.batch_size, real)] * (self.images > 0)
        return drawn + (batch_sizes(real, self.batch_size) if self.early or self.batches == "epochs" else [])

    def begin(self, inner: InnerNetwork, context: InnerContext, key: RandomKey) -> None:
        """Train for the early epochs, each over all real images in a new order."""
        for epoch in range(self.early):
            here = key.fold("early", epoch)
            order = torch.randperm(len(context.real), generator=here.generator())
            for step, chosen in enumerate(batches(order, self.batch_size)):
                self._train_batch(inner, context, chosen, here.fold(step))

    def advance(self, inner: InnerNetwork, context: InnerContext, progress: Progress, key: RandomKey) -> None:
        """Train on random real batches, augmented per sample (without cutout where CutMix cuts already)."""
        steps = -(-self.images // self.batch_size)
        for step in range(steps):
            here = key.fold("real", step)
            chosen = self._chosen(context.real, progress.update * steps + step, here)
            self._train_batch(inner, context, chosen, here)

    def _chosen(self, real: RealImages, number: int, key: RandomKey) -> Tensor:
        """Return the images of a step, the run's step ``number`` counted from 0."""
        if self.batches == "anew":
            return real.mixed(self.batch_size, key)
        return walked(len(real), self.batch_size, number, RandomKey(key.seed).fold("walk", "inner"))

    def _train_batch(self, inner: InnerNetwork, context: InnerContext, chosen: Tensor, key: RandomKey) -> None:
        real = context.real
        images, labels = real.at(chosen).to(context.images.dtype), real.labels_at(chosen)
        draw = self.augmentation.draw(key.fold("augment"), (images.shape[-2], images.shape[-1]), samples=len(images))
        images = applied(self.augmentation, images, draw)
        inner.train_step(context.loss, *mixed(images, labels, self.cutmix, real.num_classes, key.fold("cutmix")))
