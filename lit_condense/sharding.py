"""The only file that knows ranks: which work is this rank's, and how results come together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from lightning.pytorch import Trainer
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """This process's place among all processes of the run."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def of(cls, trainer: Trainer) -> Share:
        """Return the place of this process in the trainer's run."""
        return cls(trainer.global_rank, trainer.world_size)

    def take(self, work: Sequence[T]) -> list[T]:
        """Return this rank's part of the work: items rank, rank + W, rank + 2W, ..."""
        return list(work[self.rank :: self.world_size])

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over all ranks, the same on each; no gradient flows through it."""
        if self.world_size == 1:
            return values
        total = values.detach().clone()
        torch.distributed.all_reduce(total)
        return total

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite ``tensors`` with rank 0's, so that float drift between devices cannot fork the run."""
        if self.world_size > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, src=0)
