"""Which real images stand for a class in an update: a fresh random batch."""

from __future__ import annotations

from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.data.walk import Batches, walked
from lit_condense.errors import check_choice, check_least
from lit_condense.matching.base import Progress
from lit_condense.networks.features import Features
from lit_condense.rng import RandomKey
from lit_condense.sampling.base import Sampling
from lit_condense.sharding import Share


class RandomSampling(Sampling):
    """A random batch of each class for every update, without replacement inside the batch (DC).

    Args:
        batch_size: Real images of a class in an update (published: 256). A smaller class is used whole.
        batches: Whether each batch is drawn ``anew`` from the whole class (DC), or batches go through it in ``epochs``,
            without what is left at the end of one, as in IDC's program.
    """

    def __init__(self, batch_size: int = 256, batches: Batches = "anew") -> None:
        check_least("RandomSampling", 1, batch_size=batch_size)
        check_choice("RandomSampling.batches", batches, Batches)
        self.batch_size = batch_size
        self.batches: Batches = batches
        self._update = 0

    def size(self, real: RealImages, class_index: int) -> int:
        """Return how many images of the class a batch holds."""
        return min(self.batch_size, real.class_sizes[class_index])

    def select(self, real: RealImages, class_index: int, key: RandomKey) -> Tensor:
        """Return indices into ``real``, ``(size,)``; the key names the update and the class."""
        if self.batches == "anew":
            return real.random_of_class(class_index, self.batch_size, key)
        members, walk = real.indices_of(class_index), RandomKey(key.seed).fold("walk", "class", class_index)
        return members[walked(len(members), self.batch_size, self._update, walk, keep_short=False)]

    def refresh(
        self, real: RealImages, features: Features | None, progress: Progress, key: RandomKey, share: Share
    ) -> None:
        """Remember which update it is: a walk goes one batch further in each."""
        self._update = progress.update
