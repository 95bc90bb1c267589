"""Images that start from real ones: random ones, or the first, with which the programs of IDC and DREAM start."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lit_condense.data.store import RealImages
from lit_condense.init.base import Initialization, encode_classes, real_images_to_start
from lit_condense.networks import NetworkFactory
from lit_condense.parametrization.base import Parametrization
from lit_condense.rng import RandomKey


class RandomReal(Initialization):
    """Distinct random real images of each class."""

    keyed = True

    def start(
        self,
        parametrization: Parametrization,
        real: RealImages,
        ipc: Sequence[int],
        network: NetworkFactory,
        key: RandomKey,
    ) -> Tensor:
        """Return encoded real images.

        Raises:
            SettingsError: A class holds fewer images than it has to start.
        """
        wanted = real_images_to_start(parametrization, real, ipc)
        chosen = [real.random_of_class(c, count, key.fold("real", c)) for c, count in enumerate(wanted)]
        return encode_classes(parametrization, real, chosen)


class FirstReal(Initialization):
    """The first real images of each class, in the order of the data: what IDC's program calls ``random``.

    Its paper says random ones, which are :class:`RandomReal`.
    """

    keyed = True

    def start(
        self,
        parametrization: Parametrization,
        real: RealImages,
        ipc: Sequence[int],
        network: NetworkFactory,
        key: RandomKey,
    ) -> Tensor:
        """Return encoded real images; nothing is drawn.

        Raises:
            SettingsError: A class holds fewer images than it has to start.
        """
        wanted = real_images_to_start(parametrization, real, ipc)
        return encode_classes(parametrization, real, [real.indices_of(c)[:count] for c, count in enumerate(wanted)])
