"""Images that start from representative real ones."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.errors import check_choice, check_least
from lit_condense.functional.kmeans import Seeding
from lit_condense.init.base import RealStart
from lit_condense.networks import CondensableNetwork, NetworkFactory, build_network
from lit_condense.networks.features import PixelRange, network_features, representatives
from lit_condense.rng import RandomKey


class Clustered(RealStart):
    """Representative real images of each class: those nearest to its k-means centres (DREAM).

    The features are those of one untrained network.

    Args:
        chunk: Images that go through the network at once.
        pixels: What the network is given: ``normalized``, or ``raw`` pixels in [0, 1] as DREAM's program does.
        seeding: Where k-means starts: ``kmeans++``, or ``random`` images as in DREAM's program.
    """

    def __init__(self, chunk: int = 512, pixels: PixelRange = "normalized", *, seeding: Seeding = "kmeans++") -> None:
        check_least("Clustered", 1, chunk=chunk)
        check_choice("Clustered.pixels", pixels, PixelRange)
        check_choice("Clustered.seeding", seeding, Seeding)
        self.chunk = chunk
        self.pixels: PixelRange = pixels
        self.seeding: Seeding = seeding

    def chosen(self, real: RealImages, counts: list[int], network: NetworkFactory, key: RandomKey) -> list[Tensor]:
        """Return the images nearest to the centres of as many clusters of each class."""
        channels, height, width = real.image_shape
        built = build_network(network, channels, (height, width), real.num_classes, key.fold("network"), True)
        features = network_features(cast(CondensableNetwork, built.to(real.device)))
        chosen = []
        for c, count in enumerate(counts):
            members, keys = real.indices_of(c).unsqueeze(0), [key.fold("kmeans", c)]
            found = representatives(
                *(features, real, members, count, keys), chunk=self.chunk, pixels=self.pixels, seeding=self.seeding
            )
            chosen.append(found[0])
        return chosen
