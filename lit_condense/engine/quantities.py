"""Form what the matching losses read of a block of images, with or without a graph back to the images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_condense.engine.forward import Forward
from lit_condense.functional.gradients import gradients_of
from lit_condense.matching.base import Need, Quantities
from lit_condense.rng import RandomKey


def observe(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    needs: frozenset[Need],
    create_graph: bool,
    keys: Sequence[RandomKey | None],
) -> Quantities:
    """Return the quantities of k blocks, each through the network on its own.

    Args:
        forward: The network in the mode it is to be observed in.
        images: ``(k, n, C, H, W)``, normalised.
        labels: ``(k, n)``.
        needs: What to form.
        create_graph: Keep the graph to the images.
        keys: k, for layers that draw.
    """
    parts = []
    for x, y, key in zip(images.unbind(), labels.unbind(), keys, strict=True):
        with isolation(key):
            parts.append(_observe_one(forward, x, y, needs, create_graph))
    return stacked(parts)


def isolation(key: RandomKey | None) -> AbstractContextManager[None]:
    """Give layers that draw from the global generators a key's draws, or leave the generators alone."""
    return nullcontext() if key is None else key.isolated()


def stacked(parts: Sequence[Quantities]) -> Quantities:
    """Join quantities of several blocks to one."""

    def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
        present = [t for t in tensors if t is not None]
        return torch.cat(present) if present else None

    if len(parts) == 1:
        return parts[0]
    return Quantities(
        {name: torch.cat([part.gradients[name] for part in parts]) for name in parts[0].gradients},
        joined([part.features for part in parts]),
        joined([part.logits for part in parts]),
        joined([part.labels for part in parts]),
    )


def rejoined(chunks: Sequence[Quantities]) -> Quantities:
    """Join quantities of chunks of the same k blocks: gradients of means are averaged by the chunks' sizes."""
    labels = torch.cat([chunk.labels for chunk in chunks if chunk.labels is not None], dim=1)
    shares = [chunk.labels.shape[1] / labels.shape[1] for chunk in chunks if chunk.labels is not None]

    def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
        present = [t for t in tensors if t is not None]
        return torch.cat(present, dim=1) if present else None

    def mean(name: str) -> Tensor:
        return torch.stack([share * c.gradients[name] for share, c in zip(shares, chunks, strict=True)]).sum(0)

    return Quantities(
        {name: mean(name) for name in chunks[0].gradients},
        joined([chunk.features for chunk in chunks]),
        joined([chunk.logits for chunk in chunks]),
        labels,
    )


def one_block(
    gradients: dict[str, Tensor], features: Tensor | None, logits: Tensor, labels: Tensor, needs: frozenset[Need]
) -> Quantities:
    """Return what is needed of one block as quantities with k = 1."""
    return Quantities(
        {name: g.unsqueeze(0) for name, g in gradients.items()},
        features.unsqueeze(0) if features is not None and "features" in needs else None,
        logits.unsqueeze(0) if "logits" in needs else None,
        labels.unsqueeze(0),
    )


def _observe_one(
    forward: Forward, images: Tensor, labels: Tensor, needs: frozenset[Need], create_graph: bool
) -> Quantities:
    if not needs:
        return Quantities(labels=labels.unsqueeze(0))
    features, logits = forward(images)
    gradients: dict[str, Tensor] = {}
    if "gradients" in needs:
        gradients = gradients_of(F.cross_entropy(logits, labels), forward.network, create_graph)
    return one_block(gradients, features, logits, labels, needs)
