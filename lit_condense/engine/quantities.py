"""Form what the matching losses read of a block of images, with or without a graph back to the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from lit_condense.engine.forward import Forward
from lit_condense.functional.gradients import gradients_of, mean_cross_entropy
from lit_condense.matching.contract import formed
from lit_condense.matching.quantities import Quantities
from lit_condense.matching.quantity import Need, Pass, PassQuantity, Quantity, Value, differentiate, quantities_of
from lit_condense.rng import RandomKey


def observe(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    needs: frozenset[Need],
    create_graph: bool,
    keys: Sequence[RandomKey | None],
    weights: Tensor | None = None,
) -> Quantities:
    """Return the quantities of k blocks, each through the network on its own.

    Args:
        forward: The network in the mode it is to be observed in.
        images: ``(k, n, C, H, W)``, normalised.
        labels: ``(k, n)``.
        needs: What to form.
        create_graph: Keep the graph to the images.
        keys: k, for layers that draw.
        weights: What each image counts, ``(k, n)``; None: all alike.
    """
    parts = []
    for x, y, w, key in zip(images.unbind(), labels.unbind(), each_of(weights, len(labels)), keys, strict=True):
        with isolation(key):
            parts.append(_observe_one(forward, x, y, needs, create_graph, w))
    return stacked(parts)


def each_of(weights: Tensor | None, blocks: int) -> Sequence[Tensor | None]:
    """Return the weights of each of k blocks, or for each that there are none."""
    return [None] * blocks if weights is None else weights.unbind()


def isolation(key: RandomKey | None) -> AbstractContextManager[None]:
    """Give layers that draw from the global generators a key's draws, or leave the generators alone."""
    return nullcontext() if key is None else key.isolated()


def stacked(parts: Sequence[Quantities]) -> Quantities:
    """Join quantities of several blocks to one."""
    if len(parts) == 1:
        return parts[0]
    return _joined(parts, lambda quantity, tensors: quantity.stacked(tensors), dim=0)


def rejoined(chunks: Sequence[Quantities]) -> Quantities:
    """Join quantities of chunks of the same k blocks, each in its own way: gradients of means are averaged by sizes."""
    sizes = [chunk.labels.shape[1] for chunk in chunks if chunk.labels is not None]
    shares = [size / sum(sizes) for size in sizes]
    return _joined(chunks, lambda quantity, tensors: quantity.rejoined(tensors, shares), dim=1)


def read(seen: Pass, needs: frozenset[Need], labels: Tensor, weights: Tensor | None = None) -> Quantities:
    """Return the built-in ones of what is needed, of blocks whose pass has their dimension k in front already."""
    found = {q.name: q.read(seen) for q in quantities_of(needs) if isinstance(q, PassQuantity)}
    return Quantities(found, labels, weights=weights)


def read_one(seen: Pass, needs: frozenset[Need], labels: Tensor, weights: Tensor | None = None) -> Quantities:
    """Return the built-in ones of what is needed, of one block, as quantities with k = 1."""
    weights = None if weights is None else weights.unsqueeze(0)
    return read(seen, needs, labels.unsqueeze(0), weights).each(lambda tensor: tensor.unsqueeze(0))


def _joined(parts: Sequence[Quantities], join: Callable[[Quantity, Sequence[Tensor]], Tensor], dim: int) -> Quantities:
    """Join quantities, each in its own way, and along a dimension what belongs to single images."""
    found: dict[str, Value] = {}
    for quantity in quantities_of(parts[0].values):
        values = [part[quantity.name] for part in parts]
        if isinstance(values[0], Tensor):
            found[quantity.name] = join(quantity, [value for value in values if isinstance(value, Tensor)])
        else:
            each = [value for value in values if not isinstance(value, Tensor)]
            found[quantity.name] = {name: join(quantity, [value[name] for value in each]) for name in each[0]}
    labels, weights = (
        _concatenated(of_parts, dim) for of_parts in ([p.labels for p in parts], [p.weights for p in parts])
    )
    return Quantities(found, labels, weights=weights)


def _concatenated(tensors: Sequence[Tensor | None], dim: int) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present, dim=dim) if present else None


def _observe_one(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    needs: frozenset[Need],
    create_graph: bool,
    weights: Tensor | None,
) -> Quantities:
    own = [quantity for quantity in quantities_of(needs) if not isinstance(quantity, PassQuantity)]
    passed = needs - {quantity.name for quantity in own}
    one = Quantities(labels=labels.unsqueeze(0), weights=None if weights is None else weights.unsqueeze(0))
    if passed:
        features, logits = forward(images)
        gradients: dict[str, Tensor] = {}
        if differentiate(passed):
            loss = mean_cross_entropy(logits, labels, weights)
            gradients = gradients_of(loss, forward.network, create_graph)
        one = read_one(Pass(features, logits, gradients), passed, labels, weights)
    if not own:
        return one
    values = {q.name: formed(q, q.form(forward.network, images, labels, create_graph)) for q in own}
    return replace(one, values={**one.values, **Quantities(values).each(lambda tensor: tensor.unsqueeze(0)).values})
