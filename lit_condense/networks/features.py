"""What a network makes of real images, and which images stand for a class in that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_condense.data.real_images import RealImages
from lit_condense.functional.kmeans import Seeding, kmeans_of_classes, nearest_distinct
from lit_condense.functional.last_layer_geometry import gradient_norms
from lit_condense.networks.adapter import FeaturesAndLogits
from lit_condense.networks.base import CondensableNetwork
from lit_condense.networks.factory import evaluating
from lit_condense.rng import RandomKey


@dataclass(frozen=True)
class Features:
    """From normalised images ``(n, C, H, W)`` to the inner network's features ``(n, d)``: evaluation mode, no graph."""

    with_logits: Callable[[Tensor], tuple[Tensor, Tensor]]
    """From the same images to features and logits ``(n, classes)``."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features."""
        return self.with_logits(images)[0]


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
    return torch.cat([features(at(part)) for part in _even_chunks(indices, chunk)])[: len(indices)]


def chunked_gradient_norms(features: Features, real: RealImages, indices: Tensor, chunk: int) -> Tensor:
    """Return the norms of the last-layer gradients of real images ``(n,)``: ``(n,)`` float64 on their device."""
    found = [
        gradient_norms(*features.with_logits(real.at(part)), real.labels_at(part))
        for part in _even_chunks(indices, chunk)
    ]
    return torch.cat(found)[: len(indices)]


def _even_chunks(indices: Tensor, chunk: int) -> Sequence[Tensor]:
    """Cut indices into chunks of one shape; the last one is filled up."""
    size = min(chunk, len(indices))
    missing = -len(indices) % size
    return torch.split(torch.cat([indices, indices[:1].expand(missing)]), size)


def network_features(network: CondensableNetwork) -> Features:
    """Return a network's features as a function: evaluation mode, no graph, in the network's own precision."""
    outputs = FeaturesAndLogits(network)
    dtype = next(network.parameters()).dtype

    def with_logits(images: Tensor) -> tuple[Tensor, Tensor]:
        with evaluating(outputs), torch.no_grad():
            both: tuple[Tensor, Tensor] = outputs(images.to(dtype))
        return both

    return Features(with_logits)
