"""Images that start from real ones: random ones, or the first, with which the programs of IDC and DREAM start."""

from __future__ import annotations

from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.init.base import RealStart
from lit_condense.networks import NetworkFactory
from lit_condense.rng import RandomKey


class RandomReal(RealStart):
    """Distinct random real images of each class."""

    keyed = True

    def chosen(self, real: RealImages, counts: list[int], network: NetworkFactory, key: RandomKey) -> list[Tensor]:
        """Return images that the key draws."""
        return [real.random_of_class(c, count, key.fold("real", c)) for c, count in enumerate(counts)]


class FirstReal(RealStart):
    """The first real images of each class, in the order of the data: what IDC's program calls ``random``.

    Its paper says random ones, which are :class:`RandomReal`.
    """

    keyed = True

    def chosen(self, real: RealImages, counts: list[int], network: NetworkFactory, key: RandomKey) -> list[Tensor]:
        """Return the first ones; nothing is drawn."""
        return [real.indices_of(c)[:count] for c, count in enumerate(counts)]
