"""Which real images stand for a class in an update: a fresh random batch."""

from __future__ import annotations

from torch import Tensor

from lit_condense.data.store import RealImages
from lit_condense.errors import SettingsError
from lit_condense.rng import RandomKey
from lit_condense.sampling.base import Sampling


class RandomSampling(Sampling):
    """A fresh random batch of each class for every update, without replacement inside the batch (DC).

    Args:
        batch_size: Real images of a class in an update (published: 256). A smaller class is used whole.
    """

    def __init__(self, batch_size: int = 256) -> None:
        if batch_size < 1:
            raise SettingsError(f"Expected RandomSampling.batch_size to be 1 or more, got {batch_size}.")
        self.batch_size = batch_size

    def size(self, real: RealImages, class_index: int) -> int:
        """Return how many images of the class a batch holds."""
        return min(self.batch_size, real.class_sizes[class_index])

    def select(self, real: RealImages, class_index: int, key: RandomKey) -> Tensor:
        """Return indices into ``real``, ``(size,)``; the key names the update and the class."""
        return real.random_of_class(class_index, self.batch_size, key)
