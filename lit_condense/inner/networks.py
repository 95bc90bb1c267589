"""The networks of a run by slot: weights, optimizer and age of each, of which one at a time is in the one module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_condense.inner.network import InnerNetwork


@dataclass(frozen=True)
class Resting:
    """A network that is alive while another one is in the module."""

    weights: dict[str, Tensor]
    """Its ``state_dict``, buffers among it."""
    optimizer: torch.optim.Optimizer
    """Over the module's parameters, with the state of this network alone."""


class InnerNetworks:
    """Holds the networks that a loop keeps alive; weights are swapped in, because compiled code knows one module only.

    A slot is the number of a network, counted from 0 over the run: network i starts from the same weights wherever and
    whenever it is made. Most loops keep one alive at a time, and nothing is ever copied.

    Args:
        inner: The module, with its optimizer.
        home: Where networks are while they are not in the module; by default on its device.
    """

    def __init__(self, inner: InnerNetwork, home: torch.device | None = None) -> None:
        self.inner = inner
        self._away = next(inner.network.parameters()).device
        self._home = home or self._away
        self._born: dict[int, int] = {}
        self._resting: dict[int, Resting] = {}

    def __contains__(self, slot: int) -> bool:
        return slot in self._born

    def keep(self, slots: Sequence[int]) -> None:
        """Forget all networks but those of ``slots``."""
        for slot in self._born.keys() - set(slots):
            del self._born[slot]
            self._resting.pop(slot, None)

    def bring_in(self, slot: int, update: int) -> None:
        """Put the run's network ``slot``, fresh, into the module before an update."""
        self._rest()
        self.inner.renew(slot)
        self._born[slot] = update

    def use(self, slot: int) -> None:
        """Put a network that is alive into the module."""
        if slot == self.inner.index:
            return
        self._rest()
        chosen = self._resting.pop(slot)
        self.inner.network.load_state_dict(chosen.weights)
        move_(chosen.optimizer, self._away)
        self.inner.optimizer, self.inner.index = chosen.optimizer, slot

    def age(self, slot: int, update: int) -> int:
        """Return how many updates before this one a network has been alive for."""
        return update - self._born[slot]

    def _rest(self) -> None:
        """Keep what is in the module, if it is still alive."""
        if self.inner.index in self._born:
            weights = {n: value.to(self._home, copy=True) for n, value in self.inner.network.state_dict().items()}
            move_(self.inner.optimizer, self._home)
            self._resting[self.inner.index] = Resting(weights, self.inner.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a run needs to go on in the middle of its networks' lives."""
        resting = {
            slot: {"network": one.weights, "optimizer": one.optimizer.state_dict()}
            for slot, one in self._resting.items()
        }
        return {**self.inner.state_dict(), "born": dict(self._born), "resting": resting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._resting = {}
        for slot, one in state["resting"].items():
            optimizer = self.inner.new_optimizer()
            optimizer.load_state_dict(one["optimizer"])
            move_(optimizer, self._home)
            weights = {name: value.to(self._home) for name, value in one["network"].items()}
            self._resting[slot] = Resting(weights, optimizer)
        self._born = dict(state["born"])
        self.inner.load_state_dict(state)


def move_(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Bring what an optimizer holds to a device, in place; its parameters stay where they are."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim:  # a count of steps is on the CPU wherever the weights are
                state[name] = value.to(device)


@dataclass(frozen=True)
class Keeping:
    """What the networks of a run take, and where they are while another one is in the module."""

    most: int
    """Networks that are alive at a time, when there are most."""
    bytes_each: int
    """Weights and optimizer of one."""
    device: torch.device
    """Of the run."""

    @property
    def home(self) -> torch.device:
        """The device of the run, or main memory where they would fill half of what is free."""
        if self.device.type != "cuda":
            return self.device
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.device if (self.most - 1) * self.bytes_each <= free // 2 else torch.device("cpu")

    @property
    def described(self) -> str:
        """It in words."""
        place = "main memory" if self.home.type == "cpu" else f"memory of {self.device}"
        return (
            f"up to {self.most} networks at a time, which with their optimizers take "
            f"{self.most * self.bytes_each / 1e6:,.2f} MB of {place} and of each checkpoint"
        )
