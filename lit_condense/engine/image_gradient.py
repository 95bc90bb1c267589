"""From the synthetic images that the network sees to the gradient of the matching losses there: both derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias, cast

import torch
from torch import Tensor

from lit_condense.engine.compilation import Clock, CompiledFunction
from lit_condense.engine.cuda_graphs import CudaGraphed, Outputs, copied
from lit_condense.engine.forward import Forward
from lit_condense.engine.quantities import isolation, observe
from lit_condense.functional.attention import plain_attention
from lit_condense.matching.base import MatchingLoss, synthetic_needs
from lit_condense.matching.quantities import Quantities
from lit_condense.matching.quantity import Need
from lit_condense.rng import RandomKey

Found: TypeAlias = tuple[Tensor, Tensor]
"""Gradient in the images, and the losses' values."""
OneClass: TypeAlias = tuple[Tensor, Tensor, Tensor, Quantities, dict[str, Tensor]]
"""What a region takes: weights of the losses, images and labels of a class, its real side, constant vectors."""


class ImageGradient:
    """The gradient of the weighted sum of matching losses in the images that the network sees.

    Args:
        forward: The network in the run's precision, for what is compiled.
        eager: The network in its own precision, for what is not.
        compiled: Whether blocks of ``shape`` go through one compiled region, class by class. It holds the network, its
            gradient, the losses, and the derivative of these in the images.
        shape: Of a class's images, ``(n, C, H, W)``; others run eager, so that no few small classes compile their own.
        clock: Counts what compiling takes.
        recorded: Whether blocks of ``shape`` are replayed, class by class, as recordings of the GPU
            (:mod:`lit_condense.engine.cuda_graphs`); for a network whose layers neither draw nor keep statistics.
    """

    def __init__(
        self,
        forward: Forward,
        eager: Forward,
        compiled: bool,
        shape: tuple[int, ...],
        clock: Clock,
        recorded: bool = False,
    ) -> None:
        self.forward = forward
        self.eager = eager
        self.shape = shape
        self._compile = compiled
        self._record = recorded
        self._clock = clock
        self._read = [*forward.network.parameters(), *forward.network.buffers()]
        self._regions: dict[tuple[str, ...], CompiledFunction[..., Found]] = {}
        self._recordings: dict[tuple[object, ...], CudaGraphed] = {}

    @property
    def compiled(self) -> bool:
        """Whether it is compiled (still: a platform that cannot is found out at the first call)."""
        return self._compile and all(region.compiled for region in self._regions.values())

    @property
    def recorded(self) -> bool:
        """Whether it is replayed (still)."""
        return self._record and all(recording.recorded for recording in self._recordings.values())

    def __call__(
        self,
        losses: Sequence[MatchingLoss],
        weights: Tensor,
        images: Tensor,
        labels: Tensor,
        real: Quantities,
        vectors: Mapping[str, Tensor],
        keys: Sequence[RandomKey | None],
    ) -> Found:
        """Return the gradient ``(k, n, C, H, W)`` and the unweighted losses ``(losses,)``, summed over the k blocks.

        Args:
            losses: What is matched.
            weights: ``(losses,)``.
            images: ``(k, n, C, H, W)``, as the network sees them.
            labels: ``(k, n)``.
            real: The real side of the same blocks.
            vectors: Constant vectors by parameter name, whose products with each block's gradients are added.
            keys: k, for layers that draw.
        """
        images = images.detach()
        with plain_attention():
            if (self._compile or self._record) and images.shape[1:] == self.shape:
                return self._class_by_class(losses, weights, images, labels, real, vectors, keys)
            observed = partial(observe, self.eager, create_graph=True, keys=keys)
            return matched(observed, losses, weights, images.requires_grad_(), labels, real, vectors)

    def _class_by_class(
        self,
        losses: Sequence[MatchingLoss],
        weights: Tensor,
        images: Tensor,
        labels: Tensor,
        real: Quantities,
        vectors: Mapping[str, Tensor],
        keys: Sequence[RandomKey | None],
    ) -> Found:
        region = self._region(losses)
        found = []
        for i, key in enumerate(keys):
            one = (weights, images[i : i + 1], labels[i : i + 1], real.block(i), dict(vectors))
            if self._record:
                found.append(self._replayed(losses, region, one))
                continue
            with isolation(key):
                found.append(_on_leaf(region, one))
        gradients, values = zip(*found, strict=True)
        return torch.cat(gradients), torch.stack(values).sum(0)

    def _region(self, losses: Sequence[MatchingLoss]) -> CompiledFunction[..., Found]:
        """Return the compiled region of these losses: which are on may change in a run, and then changes back."""
        tags = tuple(loss.tag for loss in losses)
        if tags not in self._regions:

            def through(
                forward: Forward,
                weights: Tensor,
                images: Tensor,
                labels: Tensor,
                real: Quantities,
                vectors: dict[str, Tensor],
            ) -> Found:
                observed = partial(observe, forward, create_graph=True, keys=[None])
                return matched(observed, losses, weights, images, labels, real, vectors)

            self._regions[tags] = CompiledFunction(
                partial(through, self.forward),
                self._compile,
                self._clock,
                fullgraph=True,
                otherwise=partial(through, self.eager),
            )
        return self._regions[tags]

    def _replayed(self, losses: Sequence[MatchingLoss], region: CompiledFunction[..., Found], one: OneClass) -> Found:
        """Call the region through a recording, which takes and returns nothing but tensors."""
        weights, images, labels, real, vectors = one
        per_image = {"labels": real.labels, "weights": real.weights}
        beside = {name: tensor for name, tensor in per_image.items() if tensor is not None}
        kind = (*(loss.tag for loss in losses), "|", *real.names(), "|", *beside, "|", *vectors)
        if kind not in self._recordings:
            named, pulled = list(beside), list(vectors)
            frame = real.each(lambda tensor: tensor.new_empty(0))  # what it holds is not copied

            def call(weights: Tensor, images: Tensor, labels: Tensor, *tensors: Tensor) -> Outputs:
                left = iter(tensors)
                side = frame.with_tensors(left)
                own = {name: next(left) for name in named}
                side = replace(side, labels=own.get("labels"), weights=own.get("weights"))
                return _on_leaf(region, (weights, images, labels, side, {name: next(left) for name in pulled}))

            self._recordings[kind] = CudaGraphed(call, self._read, True)
        recording = self._recordings[kind]
        found = recording(weights, images, labels, *real.tensors(), *beside.values(), *vectors.values())
        return cast(Found, tuple(copied(found) if recording.recorded else found))


def _on_leaf(region: CompiledFunction[..., Found], one: OneClass) -> Found:
    """Call a region with its images as a leaf, made outside of it: torch 2.11 cannot trace that."""
    weights, images, *others = one
    return region(weights, images.detach().requires_grad_(), *others)


def matched(
    observed: Callable[[Tensor, Tensor, frozenset[Need]], Quantities],
    losses: Sequence[MatchingLoss],
    weights: Tensor,
    images: Tensor,
    labels: Tensor,
    real: Quantities,
    vectors: Mapping[str, Tensor],
) -> Found:
    """Return the derivative of ``sum(weight * loss) + sum(<vector, gradient>)`` in the images, and the losses.

    Args:
        observed: From images, labels and what is needed to the synthetic quantities, with their graph.
        losses: As for :class:`ImageGradient`, and so the other arguments.
        weights: ``(losses,)``.
        images: ``(k, n, C, H, W)``, a leaf.
        labels: ``(k, n)``.
        real: The real side.
        vectors: Constant vectors by parameter name.
    """
    needs = synthetic_needs(losses)
    seen = observed(images, labels, needs | ({"gradients"} if vectors else set()))
    synthetic = Quantities(seen.values, seen.labels, real.classes)
    values = [loss.loss(real, synthetic) for loss in losses]
    total = images.new_zeros(())
    for weight, value in zip(weights.unbind(), values, strict=True):
        total = total + weight * value
    for name, vector in vectors.items():
        total = total + (vector * synthetic.gradients[name]).sum()
    gradient = torch.autograd.grad(total, images, materialize_grads=True)[0]
    return gradient.detach(), torch.stack([value.detach() for value in values]) if values else images.new_zeros(0)
