"""What a matching loss is: a Lightning callback for its life cycle, a pure function for its mathematics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from lightning.pytorch import Callback
from torch import Tensor

from lit_condense.errors import SettingsError

Need = Literal["gradients"]
"""Names of the quantities that the engine can compute; the fields of :class:`Quantities`."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands, in whole numbers."""

    update: int
    """Image updates done before this one."""
    network_index: int
    """Which inner network this is, counted from 0."""
    match_index: int
    """How many updates this network has already served."""


@dataclass(frozen=True)
class Quantities:
    """What a network says about k class blocks of images, on one side (real or synthetic)."""

    gradients: dict[str, Tensor]
    """Parameter name -> gradient of each block's mean cross-entropy, ``(k, *parameter.shape)``; empty if not needed."""


class MatchingLoss(Callback, ABC):
    """A loss between what the inner network says about real and about synthetic images.

    Configured as a Lightning callback (``trainer.callbacks``) and *called* by :class:`lit_condense.SyntheticSet` inside
    its training step. A matching loss returns a number; it never calls backward or step, never writes to the trainer or
    the module, never reads another callback and never draws random numbers. Any number of them, in any order, therefore
    gives the same total.

    Args:
        weight: Factor on the loss. 0 skips it.
        name: Tag in the logs (``loss/<name>``); the class name if not given. Two losses of one class need two names.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})
    """The quantities that ``loss`` reads."""

    def __init__(self, weight: float = 1.0, name: str | None = None) -> None:
        if weight < 0:
            raise SettingsError(f"Expected {type(self).__name__}.weight to be 0 or more, got {weight}.")
        self.weight = weight
        self.name = name

    @property
    def tag(self) -> str:
        """The name in logs and checkpoints."""
        return self.name or type(self).__name__

    @property
    def state_key(self) -> str:
        """Key of this loss's state in a checkpoint."""
        return f"matching/{self.tag}"

    def weight_at(self, progress: Progress) -> float:
        """Return the factor on the loss at this point of the run."""
        return self.weight

    @abstractmethod
    def loss(self, real: Quantities, synthetic: Quantities) -> Tensor:
        """Return the 0-dimensional sum over the k class blocks, differentiable in ``synthetic``."""
