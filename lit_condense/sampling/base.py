"""The axis "which real images": what a sampler must offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.matching.base import Progress
from lit_condense.matching.quantity import Need
from lit_condense.networks.features import Features
from lit_condense.rng import RandomKey
from lit_condense.sharding import Share


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

    def refresh(  # noqa: B027 - doing nothing is what most samplers want
        self, real: RealImages, features: Features | None, progress: Progress, key: RandomKey, share: Share
    ) -> None:
        """Look at the inner network before update ``progress``; called on every rank, does nothing by default."""

    def state_dict(self) -> dict[str, Any]:
        """Return what is held over several updates, the same on every rank."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take over what ``state_dict`` gave."""
