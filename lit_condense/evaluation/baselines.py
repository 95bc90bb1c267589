"""What a condensed or selected set is compared with: real images, stored as the set is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_condense.evaluation.training import SmallSet
from lit_condense.init.base import encode_classes
from lit_condense.parametrization import Parametrization, Pixels
from lit_condense.rng import RandomKey
from lit_condense.selection import ProxyTraining, Selection
from lit_condense.selection.select import candidates_of, checked, validation_of
from lit_condense.selection.task import ProxyTask, plain_arithmetic

SIZES = {2: "half-size", 3: "third-size", 4: "quarter-size"}
"""Cells per side of a stored image -> what the real images in it are."""


@dataclass(frozen=True)
class Budget:
    """How many real images of each class a baseline is made of: as many as the storage of the set holds."""

    factor: int
    """Cells per side of a stored image."""
    images: list[int]
    """Different real images of each class; a class with fewer than fit is taken whole."""
    stored: list[int]
    """Stored images of each class: ``factor**2`` real ones make one. Where a class does not fill its last one, some of
    its images are in it once more."""

    @classmethod
    def of(cls, factor: int, counts: Sequence[int], class_sizes: Sequence[int]) -> Budget:
        """Return the budget that equals the storage of a set.

        Args:
            factor: Cells per side of its stored images.
            counts: Its stored images of each class.
            class_sizes: Real images of each class.
        """
        images = [min(count * factor**2, size) for count, size in zip(counts, class_sizes, strict=True)]
        return cls(factor, images, [-(-count // factor**2) for count in images])

    @property
    def packed(self) -> bool:
        """Whether a stored image holds several real ones."""
        return self.factor > 1

    def as_plain(self) -> dict[str, Any]:
        """Return it as plain data for a card."""
        return {"stored_images": sum(self.stored), "real_images": sum(self.images), "factor": self.factor}

    def __str__(self) -> str:
        if not self.packed:
            return f"{sum(self.images)} images"
        size = SIZES.get(self.factor, f"1/{self.factor}-size")
        again = ", some of them twice" if sum(self.stored) * self.factor**2 > sum(self.images) else ""
        return f"{sum(self.stored)} stored images ({sum(self.images)} {size}{again})"


@dataclass(frozen=True)
class Baselines:
    """The real images that one set is compared with."""

    task: ProxyTask
    """The real images, and what proxy models are made of."""
    storage: Parametrization
    """How the set is stored."""
    counts: Sequence[int]
    """Stored images of each class of the set."""
    proxy: ProxyTraining
    """How proxy models are trained."""
    key: RandomKey
    """The run's."""

    @property
    def budget(self) -> Budget:
        """How many images they are."""
        return Budget.of(self.storage.factor, self.counts, self.task.real.class_sizes)

    def drawn(self, selection: Selection) -> Callable[[int], SmallSet]:
        """Return a function that gives network ``i`` as many selected real images as the set has room for.

        Where a stored image of the set holds several small ones, the real images are shrunk, packed and decoded as
        those of the set are: equal storage is compared with equal storage.

        A method without proxy models selects anew for each network, so the spread over networks includes the luck
        of the draw. One with proxy models trains them once, here, and selects once. A class with fewer images is
        taken whole. Networks are trained with the weights of a method that gives any, unless images are packed: what
        is decoded then is not one real image each.
        """
        key = self.key.fold("baseline", selection.tag)
        if selection.networks == 0:
            return lambda network: self._selected(selection, key.fold(network))
        once = self._selected(selection, key.fold(0))
        return lambda _: once

    def _selected(self, selection: Selection, key: RandomKey) -> SmallSet:
        real, budget = self.task.real, self.budget
        trained = self.proxy.train_all(self.task, selection.networks)
        chosen, weights = [], []
        with plain_arithmetic(real.device):
            networks = [self.proxy.restore(self.task, one) for one in trained]
            forgetting = trained[0].forgetting if trained else None
            validation = validation_of(selection, networks, self.proxy, real)
            for c, count in enumerate(budget.images):
                members = real.indices_of(c)
                if count == 0:  # a selection without a budget for each class may leave one out
                    chosen.append(members[:0])
                    continue
                candidates = candidates_of(networks, forgetting, self.proxy, real, members, validation)
                choice = checked(selection, selection.choose(candidates, count, key.fold(c)), count, members)
                chosen.append(members[choice.positions])
                weights += [] if choice.weights is None else [choice.weights.to(real.device)]
        if type(self.storage) is not Pixels:
            return self._stored(chosen, budget)
        indices = torch.cat(chosen)
        return SmallSet(real.at(indices), real.labels_at(indices), torch.cat(weights) if weights else None)

    def _stored(self, chosen: Sequence[Tensor], budget: Budget) -> SmallSet:
        """Store the chosen images of each class as the set is, and return what the stored ones decode to."""
        real = self.task.real
        cells = [count * budget.factor**2 for count in budget.stored]
        filled = [indices[torch.arange(n) % max(1, len(indices))] for indices, n in zip(chosen, cells, strict=True)]
        encoded = encode_classes(self.storage, real, filled).to(real.device)
        labels = torch.repeat_interleave(torch.arange(len(budget.stored)), torch.tensor(budget.stored)).to(real.device)
        shown = self.storage.for_training
        return SmallSet(shown.decode(encoded, real.normalization).float(), shown.decode_labels(labels))
