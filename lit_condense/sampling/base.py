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

    def begin_run(self) -> None:  # noqa: B027 - most keep nothing
        """Forget what was held in another run: the same object may serve several."""

    @abstractmethod
    def size(self, real: RealImages, class_index: int) -> int:
        """Return how many images of the class a batch holds."""

    @abstractmethod
    def select(self, real: RealImages, class_index: int, key: RandomKey) -> Tensor:
        """Return indices into ``real``, ``(size,)`` on the CPU; the key names the update and the class."""

    def weights_of(self, real: RealImages, class_index: int, chosen: Tensor) -> Tensor | None:
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


class Looks:
    """When a sampling looks at the inner network again.

    Args:
        interval: Updates between two looks at a network.
        every_network: Whether another network than the last one is always looked at; if not, updates of the run count.
    """

    def __init__(self, interval: int, every_network: bool) -> None:
        self._interval = interval
        self._every_network = every_network
        self.last: tuple[int, int] | None = None
        """Network and update of the last look."""

    def begin_run(self) -> None:
        """Forget the last look."""
        self.last = None

    def due(self, progress: Progress) -> bool:
        """Return whether it is time before an update, and take it that the look is then taken."""
        if not self._every_network:
            return progress.update % self._interval == 0
        if self.last is None:  # a first update, or a checkpoint of before looks were written down
            due = progress.match_index % self._interval == 0
        else:
            network, update = self.last
            due = network != progress.network_index or progress.update - update >= self._interval
        if due:
            self.last = (progress.network_index, progress.update)
        return due
