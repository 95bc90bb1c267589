"""The axis "which real images": what a sampler must offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from lit_condense.data.store import RealImages
from lit_condense.matching.base import Need
from lit_condense.rng import RandomKey


class Sampling(ABC):
    """A rule that picks the real images that stand for a class in an update."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    """What it reads of the inner network."""

    @abstractmethod
    def size(self, real: RealImages, class_index: int) -> int:
        """Return how many images of the class a batch holds."""

    @abstractmethod
    def select(self, real: RealImages, class_index: int, key: RandomKey) -> Tensor:
        """Return indices into ``real``, ``(size,)`` on the CPU; the key names the update and the class."""
