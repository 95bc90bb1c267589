"""Images that start from noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.init.base import Initialization
from lit_condense.networks import NetworkFactory
from lit_condense.parametrization.base import Parametrization
from lit_condense.rng import RandomKey


class Noise(Initialization):
    """Gaussian noise (DC's default)."""

    keyed = True

    def start(
        self,
        parametrization: Parametrization,
        real: RealImages,
        ipc: Sequence[int],
        network: NetworkFactory,
        key: RandomKey,
    ) -> Tensor:
        """Return noise, drawn class by class so that a class does not depend on the others' sizes."""
        return torch.cat(
            [
                parametrization.noise((count, *real.image_shape), key.fold("noise", c).generator())
                for c, count in enumerate(ipc)
            ]
        )
