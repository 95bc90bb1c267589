"""Which networks an image update is matched on, and how these are trained between updates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from lit_condense.inner import InnerContext, InnerLoop, InnerNetwork
from lit_condense.inner.contract import Slots, checked_numbers, slots_of, trained_in_place
from lit_condense.inner.networks import InnerNetworks
from lit_condense.matching import Progress
from lit_condense.rng import RandomKey
from lit_condense.sharding import Share


class InnerTraining:
    """Carries out what an inner loop says; the same on all ranks, where rank 0's weights count.

    Args:
        loop: The loop.
        inner: The module that all networks are put into.
        key: The run's.
        share: The rank.
        updates_per_network: What the loop said.
        context: Gives what networks may be trained on, as it is now.
        home: Where networks are while others are in the module; by default on its device.
    """

    def __init__(
        self,
        loop: InnerLoop,
        inner: InnerNetwork,
        *,
        key: RandomKey,
        share: Share,
        updates_per_network: int,
        context: Callable[[], InnerContext],
        home: torch.device | None = None,
    ) -> None:
        self._loop = loop
        self.inner = inner
        self._networks = InnerNetworks(inner, home)
        self.key = key
        self.share = share
        self._updates_per_network = updates_per_network
        self._context = context

    def comes_in(self, update: int) -> bool:
        """Return whether a new network comes in before an update."""
        return any(slot not in self._networks for slot in self._slots(update).alive)

    def bring_in(self, update: int) -> None:
        """Forget the networks whose life is over, and make and train those that begin theirs with an update."""
        alive = self._slots(update).alive
        self._networks.keep(alive)
        for slot in alive:
            if slot not in self._networks:
                self._networks.bring_in(slot, update)
                if self._loop.trains_new:
                    key = self.key.fold("inner", slot, "begin")
                    self._train("begin", self._context(), key)

    def progress(self, update: int) -> list[Progress]:
        """Return where each network stands that an update is matched on."""
        found = [Progress(update, slot, self._networks.age(slot, update)) for slot in self._slots(update).matched]
        if not self._loop.gives_numbers:
            return found
        context = self._context()  # decodes the set, for all of them
        return [self._with_numbers(one, context) for one in found]

    def use(self, progress: Progress) -> None:
        """Put a network into the module."""
        self._networks.use(progress.network_index)

    def goes_on(self, update: int) -> bool:
        """Return whether a network is trained after an update."""
        return bool(self._slots(update).trained)

    def advance(self, update: int) -> None:
        """Train the networks that go on living after an update."""
        context = self._context()
        for slot in self._slots(update).trained:
            self._networks.use(slot)
            progress = Progress(update, slot, self._networks.age(slot, update))
            key = self.key.fold("inner", slot, progress.match_index)
            self._train("advance", context, progress, key)

    def _train(self, method: str, context: InnerContext, *arguments: object) -> None:
        network = self.inner.network
        done: object = getattr(self._loop, method)(self.inner, context, *arguments)
        trained_in_place(self._loop, method, done, network, self.inner.network)
        self.share.broadcast(self.inner.tensors())

    def _with_numbers(self, progress: Progress, context: InnerContext) -> Progress:
        self.use(progress)
        numbers = checked_numbers(self._loop, self._loop.numbers(self.inner, context, progress))
        if self.share.world_size == 1:
            return replace(progress, numbers=numbers)
        device = next(self.inner.network.parameters()).device
        values = torch.tensor([numbers[name] for name in sorted(numbers)], dtype=torch.float64, device=device)
        self.share.broadcast([values])
        return replace(progress, numbers=dict(zip(sorted(numbers), values.tolist(), strict=True)))

    def _slots(self, update: int) -> Slots:
        return slots_of(self._loop, update, self._updates_per_network)

    def state_dict(self) -> dict[str, Any]:
        """Return all networks, and what the loop itself keeps."""
        return {**self._networks.state_dict(), "loop": self._loop.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._networks.load_state_dict(state)
        self._loop.load_state_dict(state["loop"])


def with_births(state: dict[str, Any], updates_per_network: int) -> dict[str, Any]:
    """Return the networks of a checkpoint; those of older versions kept one network and did not say when it began."""
    return {"born": {state["index"]: state["index"] * updates_per_network}, "resting": {}, "loop": {}, **state}
