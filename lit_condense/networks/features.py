"""What a network makes of real images, and which images stand for a class in that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.functional.kmeans import Seeding, kmeans_of_classes, nearest_distinct
from lit_condense.networks.adapter import FeaturesAndLogits
from lit_condense.networks.base import CondensableNetwork
from lit_condense.networks.factory import evaluating
from lit_condense.rng import RandomKey

Features = Callable[[Tensor], Tensor]
"""From normalised images ``(n, C, H, W)`` to the inner network's features ``(n, d)``: evaluation mode, no graph."""

PixelRange = Literal["normalized", "raw"]
"""What a network is given."""


def representatives(
    features: Features,
    real: RealImages,
    candidates: Tensor,
    count: int,
    keys: Sequence[RandomKey],
    per_cluster: int = 1,
    chunk: int = 512,
    pixels: PixelRange = "normalized",
    seeding: Seeding = "kmeans++",
) -> Tensor:
    """Return ``count`` different images among the candidates of each class: those nearest to their clusters' centres.

    Args:
        features: Of the network to look through.
        real: The real images; not augmented.
        candidates: Indices into ``real``, ``(b, n)`` for b classes.
        count: How many of each class, a multiple of ``per_cluster``.
        keys: One a class: names the start of k-means.
        per_cluster: Images taken from each cluster.
        chunk: Images that are gathered and given to the network at once; the engine may cut them further.
        pixels: What the network is given.
        seeding: Where k-means starts.

    Returns:
        Indices into ``real``, ``(b, count)`` on the CPU.
    """
    embedded = chunked_features(features, real, candidates.flatten(), chunk, pixels).view(*candidates.shape, -1)
    generators = [key.generator() for key in keys]
    centres = kmeans_of_classes(embedded, count // per_cluster, generators, seeding=seeding)
    places = [nearest_distinct(x, c, per_cluster) for x, c in zip(embedded, centres, strict=True)]
    return torch.gather(candidates, 1, torch.stack(places))


def chunked_features(
    features: Features, real: RealImages, indices: Tensor, chunk: int, pixels: PixelRange = "normalized"
) -> Tensor:
    """Return the features of real images ``(n,)``, ``(n, d)``; every chunk has one shape, for a compiled network."""
    at = real.at if pixels == "normalized" else real.pixels_at
    size = min(chunk, len(indices))
    missing = -len(indices) % size
    padded = torch.cat([indices, indices[:1].expand(missing)])
    return torch.cat([features(at(part)) for part in torch.split(padded, size)])[: len(indices)]


def network_features(network: CondensableNetwork) -> Features:
    """Return a network's features as a function: evaluation mode, no graph, in the network's own precision."""
    outputs = FeaturesAndLogits(network)
    dtype = next(network.parameters()).dtype

    def features(images: Tensor) -> Tensor:
        with evaluating(outputs), torch.no_grad():
            embedded: Tensor = outputs(images.to(dtype))[0]
        return embedded

    return features
