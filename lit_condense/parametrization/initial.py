"""What the synthetic images are before the first update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_condense.data.store import RealImages
from lit_condense.errors import SettingsError
from lit_condense.parametrization.pixels import Pixels
from lit_condense.rng import RandomKey


class Initialization(ABC):
    """A rule for the first value of the synthetic images."""

    @abstractmethod
    def start(self, parametrization: Pixels, real: RealImages, ipc: Sequence[int], key: RandomKey) -> Tensor:
        """Return the stored images, class-major, ``(sum(ipc), C, H, W)``."""


class Noise(Initialization):
    """Gaussian noise (DC's default)."""

    def start(self, parametrization: Pixels, real: RealImages, ipc: Sequence[int], key: RandomKey) -> Tensor:
        """Return noise, drawn class by class so that a class does not depend on the others' sizes."""
        return torch.cat(
            [
                parametrization.noise((count, *real.image_shape), key.fold("noise", c).generator())
                for c, count in enumerate(ipc)
            ]
        )


class RandomReal(Initialization):
    """Distinct random real images of each class."""

    def start(self, parametrization: Pixels, real: RealImages, ipc: Sequence[int], key: RandomKey) -> Tensor:
        """Return encoded real images.

        Raises:
            SettingsError: A class holds fewer images than it has to start.
        """
        chosen = []
        for c, count in enumerate(ipc):
            wanted = count * parametrization.factor**2
            if wanted > real.class_sizes[c]:
                raise SettingsError(
                    f"init RandomReal needs {wanted} distinct real images to start class {c} "
                    f"({real.class_names[c]}), which has {real.class_sizes[c]}. Lower ipc for it or use init Noise."
                )
            chosen.append(real.random_of_class(c, wanted, key.fold("real", c)))
        return parametrization.encode(real.pixels_at(torch.cat(chosen)).cpu(), real.normalization)
