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

    @property
    def weighted(self) -> bool:
        """Whether it says what its images count."""
        return type(self).weights is not Sampling.weights

    @abstractmethod
    def size(self, real: RealImages, class_index: int) -> int:
        """Return how many images of the class a batch holds."""

    @abstractmethod
    def select(self, real: RealImages, class_index: int, key: RandomKey) -> Tensor:
        """Return indices into ``real``, ``(size,)`` on the CPU; the key names the update and the class."""

    def weights(self, real: RealImages, class_index: int, chosen: Tensor) -> Tensor | None:
        """Return what each chosen image of a class counts in a mean over them; None, the default: all alike.

        Means are of ``weight * value``, divided by the number of images. They are unbiased where ``select`` draws each
        image independently with some probability, and its weight is ``1 / (images of the class * probability)``.

        Args:
            real: The real images.
            class_index: The class.
            chosen: What ``select`` gave, ``(size,)``.

        Returns:
            Floating-point numbers above 0, ``(size,)`` on the CPU.
        """
        return None

    def refresh(  # noqa: B027 - doing nothing is what most samplers want
        self, real: RealImages, features: Features | None, progress: Progress, key: RandomKey, share: Share
    ) -> None:
        """Look at the inner network before update ``progress``; called on every rank, does nothing by default.

        ``features`` gives the logits too (``features.with_logits``); it is None where nothing in the run reads either,
        which ``needs`` prevents.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what is held over several updates, the same on every rank."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take over what ``state_dict`` gave."""
