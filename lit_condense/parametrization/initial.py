"""What the synthetic images are before the first update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor

from lit_condense.data.store import RealImages
from lit_condense.errors import SettingsError, check_choice
from lit_condense.functional.kmeans import Seeding
from lit_condense.networks import CondensableNetwork, NetworkFactory, build_network
from lit_condense.parametrization.pixels import Pixels
from lit_condense.rng import RandomKey
from lit_condense.sampling.representative import PixelRange, network_features, representatives


class Initialization(ABC):
    """A rule for the first value of the synthetic images."""

    keyed: ClassVar[bool] = False
    """Whether data and key alone decide the start, on any device, in no time: it is then made again where a set is
    compared with its start, and otherwise kept in checkpoints."""

    @abstractmethod
    def start(
        self, parametrization: Pixels, real: RealImages, ipc: Sequence[int], network: NetworkFactory, key: RandomKey
    ) -> Tensor:
        """Return the stored images, class-major, ``(sum(ipc), C, H, W)`` on the CPU.

        Args:
            parametrization: How they are stored.
            real: The real images.
            ipc: Stored images of each class.
            network: Architecture that the set is condensed with.
            key: Names the draws.
        """


class Noise(Initialization):
    """Gaussian noise (DC's default)."""

    keyed = True

    def start(
        self, parametrization: Pixels, real: RealImages, ipc: Sequence[int], network: NetworkFactory, key: RandomKey
    ) -> Tensor:
        """Return noise, drawn class by class so that a class does not depend on the others' sizes."""
        return torch.cat(
            [
                parametrization.noise((count, *real.image_shape), key.fold("noise", c).generator())
                for c, count in enumerate(ipc)
            ]
        )


class RandomReal(Initialization):
    """Distinct random real images of each class."""

    keyed = True

    def start(
        self, parametrization: Pixels, real: RealImages, ipc: Sequence[int], network: NetworkFactory, key: RandomKey
    ) -> Tensor:
        """Return encoded real images.

        Raises:
            SettingsError: A class holds fewer images than it has to start.
        """
        wanted = real_images_to_start(parametrization, real, ipc)
        chosen = [real.random_of_class(c, count, key.fold("real", c)) for c, count in enumerate(wanted)]
        return encode_classes(parametrization, real, chosen)


class Clustered(Initialization):
    """Representative real images of each class: those nearest to its k-means centres (DREAM).

    The features are those of one untrained network.

    Args:
        chunk: Images that go through the network at once.
        pixels: What the network is given: ``normalized``, or ``raw`` pixels in [0, 1] as DREAM's program does.
        seeding: Where k-means starts: ``kmeans++``, or ``random`` images as in DREAM's program.
    """

    def __init__(self, chunk: int = 512, pixels: PixelRange = "normalized", seeding: Seeding = "kmeans++") -> None:
        if chunk < 1:
            raise SettingsError(f"Expected Clustered.chunk to be 1 or more, got {chunk}.")
        check_choice("Clustered.pixels", pixels, PixelRange)
        check_choice("Clustered.seeding", seeding, Seeding)
        self.chunk = chunk
        self.pixels: PixelRange = pixels
        self.seeding: Seeding = seeding

    def start(
        self, parametrization: Pixels, real: RealImages, ipc: Sequence[int], network: NetworkFactory, key: RandomKey
    ) -> Tensor:
        """Return encoded real images.

        Raises:
            SettingsError: A class holds fewer images than it has to start.
        """
        wanted = real_images_to_start(parametrization, real, ipc)
        channels, height, width = real.image_shape
        built = build_network(network, channels, (height, width), real.num_classes, key.fold("network"), True)
        features = network_features(cast(CondensableNetwork, built.to(real.device)))
        chosen = []
        for c, count in enumerate(wanted):
            members, keys = real.indices_of(c).unsqueeze(0), [key.fold("kmeans", c)]
            found = representatives(
                *(features, real, members, count, keys), chunk=self.chunk, pixels=self.pixels, seeding=self.seeding
            )
            chosen.append(found[0])
        return encode_classes(parametrization, real, chosen)


def real_images_to_start(parametrization: Pixels, real: RealImages, ipc: Sequence[int]) -> list[int]:
    """Return how many real images each class needs to start from.

    Raises:
        SettingsError: A class holds fewer.
    """
    wanted = [count * parametrization.factor**2 for count in ipc]
    for c, count in enumerate(wanted):
        if count > real.class_sizes[c]:
            raise SettingsError(
                f"Starting from real images (RandomReal or Clustered) takes {count} distinct real images to start "
                f"class {c} ({real.class_names[c]}), which has {real.class_sizes[c]}. Lower its ipc or use init Noise."
            )
    return wanted


def encode_classes(parametrization: Pixels, real: RealImages, chosen: Sequence[Tensor]) -> Tensor:
    """Store the chosen real images of each class, class by class so that no stored image mixes classes."""
    return torch.cat([parametrization.encode(real.pixels_at(c).cpu(), real.normalization) for c in chosen])
