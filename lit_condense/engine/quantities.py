"""Form what the matching losses read of a block of images, with or without a graph back to the images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_condense.functional.gradients import class_gradients, trainable_parameters
from lit_condense.matching.base import Need, Quantities
from lit_condense.networks import FeaturesAndLogits
from lit_condense.rng import RandomKey


def observe(
    network: nn.Module,
    outputs: FeaturesAndLogits | None,
    images: Tensor,
    labels: Tensor,
    needs: frozenset[Need],
    create_graph: bool,
    keys: Sequence[RandomKey | None],
) -> Quantities:
    """Return the quantities of k blocks, each through the network on its own.

    Args:
        network: In the mode it is to be observed in.
        outputs: Its features and logits; needed if either is.
        images: ``(k, n, C, H, W)``, normalised.
        labels: ``(k, n)``.
        needs: What to form.
        create_graph: Keep the graph to the images.
        keys: k, for layers that draw.
    """
    parts = []
    for x, y, key in zip(images.unbind(), labels.unbind(), keys, strict=True):
        with isolation(key):
            if needs <= {"gradients"}:
                gradients = class_gradients(network, x[None], y[None], create_graph) if needs else {}
                parts.append(Quantities(gradients, labels=y[None]))
            else:
                assert outputs is not None  # the engine binds them whenever a loss needs features or logits
                parts.append(_one(network, outputs, x, y, needs, create_graph))
    return stacked(parts)


def isolation(key: RandomKey | None) -> AbstractContextManager[None]:
    """Give layers that draw from the global generators a key's draws, or leave the generators alone."""
    return nullcontext() if key is None else key.isolated()


def stacked(parts: Sequence[Quantities]) -> Quantities:
    """Join quantities of several blocks to one."""

    def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
        present = [t for t in tensors if t is not None]
        return torch.cat(present) if present else None

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


def _one(
    network: nn.Module,
    outputs: FeaturesAndLogits,
    images: Tensor,
    labels: Tensor,
    needs: frozenset[Need],
    create_graph: bool,
) -> Quantities:
    features, logits = outputs(images)
    gradients: dict[str, Tensor] = {}
    if "gradients" in needs:
        parameters = trainable_parameters(network)
        found = torch.autograd.grad(
            F.cross_entropy(logits, labels),
            list(parameters.values()),
            create_graph=create_graph,
            retain_graph=True,
            materialize_grads=True,
        )
        gradients = {name: g.unsqueeze(0) for name, g in zip(parameters, found, strict=True)}
    return Quantities(
        gradients,
        features.unsqueeze(0) if "features" in needs else None,
        logits.unsqueeze(0) if "logits" in needs else None,
        labels.unsqueeze(0),
    )
