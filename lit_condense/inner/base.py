"""Against which network: how long an inner network lives and how it is trained between image updates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lit_condense.augmentation import Augmentation
from lit_condense.data.real_images import RealImages
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.errors import check_choice, check_least
from lit_condense.inner.network import BatchNormStatistics, InnerNetwork
from lit_condense.matching.base import Progress
from lit_condense.rng import RandomKey


@dataclass(frozen=True)
class InnerContext:
    """What an inner network may be trained on between two image updates."""

    images: Tensor
    """The decoded synthetic images as they are now, detached and normalised, ``(n, C, H, W)``."""
    labels: Tensor
    """Their labels, ``(n,)``."""
    ipc: Sequence[int]
    """Stored images of each class."""
    augmentation: Augmentation
    """Drawn per sample when a network is trained."""
    real: RealImages
    loss: FirstOrderLoss
    """The engine's mean cross-entropy of the inner network."""
    soft_labels: Tensor | None = None
    """``(n, classes)``, where the set has learned them."""

    @property
    def targets(self) -> Tensor:
        """What cross-entropy takes for the synthetic images: soft labels where there are any, else the labels."""
        return self.labels if self.soft_labels is None else self.soft_labels


class InnerLoop(ABC):
    """Which networks updates are matched on, how long they live, and what happens to them between updates.

    Args:
        lr: Learning rate of the inner network's SGD.
        momentum: Its momentum.
        weight_decay: Its weight decay.
        batch_norm: Statistics that batch norm is frozen on while gradients are matched: those of one real batch
            (``real_batch``, the DC paper), running averages moved towards it (``running_average``, its program), or
            nothing frozen (``own_batch``: IDC, DM).
    """

    gives: frozenset[str] = frozenset()
    """Names of the numbers about a network that ``numbers`` returns and losses may ask for (``Loss.reads``)."""

    def __init__(
        self,
        lr: float = 0.01,
        momentum: float = 0.0,
        *,
        weight_decay: float = 0.0,
        batch_norm: BatchNormStatistics = "real_batch",
    ) -> None:
        check_least(type(self).__name__, 0, lr=lr, momentum=momentum, weight_decay=weight_decay)
        check_choice(f"{type(self).__name__}.batch_norm", batch_norm, BatchNormStatistics)
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_norm = batch_norm

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of a new network."""
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def begin_run(self, key: RandomKey) -> None:  # noqa: B027 - most need none
        """Begin a run anew, before anything else is asked, and forget what was held in another one.

        Args:
            key: The run's. A loop that draws which networks an update is about keeps it and folds the update into it,
                so that the same ones come out whenever and wherever it is asked.
        """

    @abstractmethod
    def updates_per_network(self, ipc: Sequence[int]) -> int:
        """Return how many image updates a network serves, for the images each class has.

        Of a pool: after how many a new network comes in.
        """

    def networks(self, update: int, updates_per_network: int) -> list[int]:
        """Return the networks that an image update is matched on; their losses and gradients are added up.

        Networks are named by their number in the run, counted from 0 (their *slot*). By default one at a time: the next
        one every ``updates_per_network`` updates.
        """
        return [update // updates_per_network]

    def alive(self, update: int, updates_per_network: int) -> list[int]:
        """Return the networks that exist in an update: those that were not there before begin, the others go on.

        A pool names more than it matches on. By default those that the update is matched on.
        """
        return self.networks(update, updates_per_network)

    def trained_after(self, update: int, updates_per_network: int) -> list[int]:
        """Return the networks that ``advance`` is called for after an update; by default all that go on living."""
        later = self.alive(update + 1, updates_per_network)
        return [slot for slot in self.alive(update, updates_per_network) if slot in later]

    def numbers(self, inner: InnerNetwork, context: InnerContext, progress: Progress) -> dict[str, float]:
        """Return plain numbers about a network before an update is matched on it, for the weights of losses to read.

        For instance its accuracy on a batch. Losses find them in ``progress.numbers``; rank 0's count. By default there
        are none, and nothing is computed.
        """
        return {}

    @property
    def gives_numbers(self) -> bool:
        """Whether ``numbers`` says anything."""
        return type(self).numbers is not InnerLoop.numbers

    def state_dict(self) -> dict[str, Any]:
        """Return what the loop itself keeps over several updates, as plain data and tensors, the same on every rank."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take over what ``state_dict`` gave."""

    def batch_sizes(self, images: int, real: int) -> list[int]:
        """Return how many images its batches hold, for a trial before the run; by default none is tried.

        Args:
            images: Decoded synthetic images that there are.
            real: Real ones.
        """
        return []

    @property
    def trains_new(self) -> bool:
        """Whether ``begin`` trains a new network before its first update."""
        return False

    def begin(self, inner: InnerNetwork, context: InnerContext, key: RandomKey) -> None:  # noqa: B027
        """Train a new network before its first update; called only where ``trains_new`` says so."""

    @abstractmethod
    def advance(self, inner: InnerNetwork, context: InnerContext, progress: Progress, key: RandomKey) -> None:
        """Train a network after update ``progress``; not called after its last update."""
