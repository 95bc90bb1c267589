"""The training of a proxy model: what it is of, what it remembers, what is left of it.

Letters: N training images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.networks import NetworkFactory
from lit_condense.networks.factory import single_precision
from lit_condense.rng import RandomKey


@dataclass
class History:
    """What a network in training was right about."""

    forgotten: Tensor
    """``(N,)`` int64: changes from right to wrong between two epochs; -1 before the network first was right."""
    right: Tensor
    """``(N,)`` bool: whether it was right when it last saw the image."""

    @classmethod
    def new(cls, images: int, device: torch.device) -> History:
        """Return the history of a network that has seen nothing."""
        forgotten = torch.full((images,), -1, dtype=torch.int64, device=device)
        return cls(forgotten, torch.zeros(images, dtype=torch.bool, device=device))

    def record(self, chosen: Tensor, right: Tensor) -> None:
        """Note of the images ``chosen`` whether the network is ``right`` about them now."""
        chosen = chosen.to(self.right.device)
        forgotten = self.forgotten[chosen] + (self.right[chosen] & ~right)
        self.forgotten[chosen] = torch.where(right, forgotten.clamp(min=0), forgotten)
        self.right[chosen] = right


@dataclass(frozen=True)
class ProxyTask:
    """What proxy models are trained on, their architecture, and the seed that they come from.

    A network is named by the seed and its index alone: all selections of one seed look through the same networks.
    """

    real: RealImages
    network: NetworkFactory
    seed: int

    def key(self, index: int) -> RandomKey:
        """Return the key of network ``index``."""
        return RandomKey(self.seed).fold("scoring", index)


@dataclass(frozen=True)
class TrainedNetwork:
    """What is left of the training of a proxy model."""

    index: int
    weights: dict[str, Tensor]
    """Its ``state_dict``, on the CPU."""
    forgetting: Tensor
    """``(N,)`` int64 on the CPU: how often it went from right to wrong on a training image between two epochs; -1 where
    it never was right."""


@contextlib.contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """Compute with gradients and in float32 inside the block, wherever in a run it is called."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        single_precision(),
    ):
        yield
