"""A pool of partly trained networks (Zhao et al.: *Improved Distribution Matching*, CVPR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_condense.augmentation import Augmentation, NoAugmentation
from lit_condense.augmentation.contract import applied
from lit_condense.errors import SettingsError, check_least
from lit_condense.inner.base import InnerContext, InnerLoop
from lit_condense.inner.network import BatchNormStatistics, InnerNetwork
from lit_condense.matching.base import Progress
from lit_condense.rng import RandomKey

FIRST_NETWORKS = 3
"""Networks that are there before the first one comes in, which it does before the first update (IDM's program)."""


@dataclass
class Meter:
    """How many of the real images that a network was trained on it had right."""

    period: int
    seen: int
    right: Tensor
    """On the network's device, so that training does not wait for it."""


class Pool(InnerLoop):
    """A queue of networks, first in, first out: one or more are matched on, some are trained after every update (IDM).

    Every ``every`` updates a new network comes in; once ``size`` are alive the oldest one goes. Which are matched on
    and which are trained is drawn for every update, each from all that are alive. So an update meets networks of every
    age, untrained ones among them. A network lives for ``size * every`` updates, in which it is trained ``trained *
    every * steps`` steps on average (more before the pool is full).

    A loss finds ``accuracy`` among the numbers about a network: the share of the real images that it had right while it
    was trained on them, since its meter was last reset; 0 where it saw none.

    Args:
        size: Most networks that are alive (published: 100).
        every: Updates between two new ones (published: 30; for 1 image a class of CIFAR 5).
        matched: Networks that an update is matched on (published: 1); their gradients are added up.
        trained: Networks that are trained after an update (published: 2).
        steps: Training steps of each (published: 10).
        batch_size: Real images of all classes in a training step (published: 256).
        augmentation: Drawn for each image of a training batch; by default there is none, as published.
        lr: Learning rate of their SGD (published: 0.01).
        momentum: Its momentum (published: 0.9).
        weight_decay: Its weight decay (published: 5e-4).
        reset_meters_every: Updates after which the accuracy of all networks is counted anew; null: never. In IDM's
            program that is the interval of its evaluations, 100 for most of its rows. The weight of its cross-entropy
            is 0 on networks that were not trained since.
        batch_norm: See :class:`InnerLoop`.
    """

    def __init__(
        self,
        size: int = 100,
        every: int = 30,
        *,
        matched: int = 1,
        trained: int = 2,
        steps: int = 10,
        batch_size: int = 256,
        augmentation: Augmentation | None = None,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        reset_meters_every: int | None = 100,
        batch_norm: BatchNormStatistics = "own_batch",
    ) -> None:
        super().__init__(lr, momentum, weight_decay=weight_decay, batch_norm=batch_norm)
        check_least("Pool", 1, size=size, every=every, matched=matched, batch_size=batch_size)
        check_least("Pool", 1, reset_meters_every=reset_meters_every)
        check_least("Pool", 0, trained=trained, steps=steps)
        if matched > size:
            raise SettingsError(
                f"Expected Pool.matched to be at most the size of the pool ({size}), got {matched}. Raise size."
            )
        self.size = size
        self.every = every
        self.matched = matched
        self.trained = trained
        self.steps = steps
        self.batch_size = batch_size
        self.augmentation = augmentation or NoAugmentation()
        self.reset_meters_every = reset_meters_every
        self.begin_run(RandomKey(0))

    # ------------------------------------------------------------ which networks

    def begin_run(self, key: RandomKey) -> None:
        """Take the run's key, and forget what was counted in another run."""
        self._key = key
        self._meters: dict[int, Meter] = {}

    @property
    def gives(self) -> frozenset[str]:  # type: ignore[override]
        """``accuracy``, unless no network is ever trained."""
        return frozenset({"accuracy"}) if self.trained and self.steps else frozenset()

    def updates_per_network(self, ipc: Sequence[int]) -> int:
        """Return the updates between two new networks."""
        return self.every

    def alive(self, update: int, updates_per_network: int) -> list[int]:
        """Return the networks that came in last, as many as the pool holds."""
        made = self._first + update // self.every + 1
        return list(range(max(0, made - self.size), made))

    def networks(self, update: int, updates_per_network: int) -> list[int]:
        """Return the networks drawn for an update."""
        return self._drawn("matched", update, self.matched)

    def trained_after(self, update: int, updates_per_network: int) -> list[int]:
        """Return the networks drawn to be trained after it, but for one whose life is over."""
        later = self.alive(update + 1, updates_per_network)
        return [slot for slot in self._drawn("trained", update, self.trained) if slot in later and self.steps]

    @property
    def _first(self) -> int:
        return max(FIRST_NETWORKS, self.matched - 1)

    def _drawn(self, purpose: str, update: int, count: int) -> list[int]:
        alive = self.alive(update, self.every)
        order = torch.randperm(len(alive), generator=self._key.fold("pool", purpose, update).generator())
        return [alive[place] for place in order[:count].tolist()]

    # ------------------------------------------------------------ their training

    def batch_sizes(self, images: int, real: int) -> list[int]:
        """Return how many real images its batches hold."""
        return [min(self.batch_size, real)] if self.trained and self.steps else []

    def advance(self, inner: InnerNetwork, context: InnerContext, progress: Progress, key: RandomKey) -> None:
        """Train on random real batches, and count what the network had right before each step."""
        meter = self._meter(inner.index, progress.update, context.images)
        for step in range(self.steps):
            here = key.fold("pool", step)
            chosen = context.real.mixed(self.batch_size, here)
            images, labels = context.real.at(chosen).to(context.images.dtype), context.real.labels_at(chosen)
            size = (int(images.shape[-2]), int(images.shape[-1]))
            draw = self.augmentation.draw(here.fold("augment"), size, samples=len(images))
            logits = inner.logits_of_step(context.loss, applied(self.augmentation, images, draw), labels)
            meter.right = meter.right + (logits.argmax(1) == labels).sum()
            meter.seen += len(labels)
        self._forget(progress.update)

    # ------------------------------------------------------------ their accuracy

    def numbers(self, inner: InnerNetwork, context: InnerContext, progress: Progress) -> dict[str, float]:
        """Return the network's accuracy, between 0 and 1, on what it was trained on since its meter was reset."""
        meter = self._meters.get(inner.index)
        if meter is None or meter.period != self._period(progress.update):
            return {"accuracy": 0.0}
        return {"accuracy": float(meter.right) / meter.seen}

    def _period(self, update: int) -> int:
        return 0 if self.reset_meters_every is None else update // self.reset_meters_every

    def _meter(self, slot: int, update: int, like: Tensor) -> Meter:
        period = self._period(update)
        meter = self._meters.get(slot)
        if meter is None or meter.period != period:
            meter = Meter(period, 0, torch.zeros((), dtype=torch.int64, device=like.device))
            self._meters[slot] = meter
        meter.right = meter.right.to(like.device)  # one that a checkpoint brought is on the CPU
        return meter

    def _forget(self, update: int) -> None:
        """Drop the meters of networks whose life is over."""
        alive = set(self.alive(update, self.every))
        self._meters = {slot: meter for slot, meter in self._meters.items() if slot in alive}

    def state_dict(self) -> dict[str, Any]:
        """Return the meters."""
        return {"meters": {slot: (one.period, one.seen, int(one.right)) for slot, one in self._meters.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the meters."""
        kept = state["meters"].items()
        self._meters = {slot: Meter(period, seen, torch.tensor(right)) for slot, (period, seen, right) in kept}
