"""The engine: from class blocks of real and synthetic images to the gradient of the matching losses in the images.

It alone differentiates. For each block it forms the quantities the losses need on both sides, asks the losses for their
values, turns those into constant vectors (the derivative of the losses in the synthetic quantities) and carries the
vectors back to the stored images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from lit_condense.engine.first_order import COMPILE_FROM_GFLOP, FirstOrderLoss, Mode, forward_gflop
from lit_condense.engine.quantities import isolation, observe, rejoined, stacked
from lit_condense.errors import SettingsError
from lit_condense.matching.base import MatchingLoss, Need, Progress, Quantities
from lit_condense.networks import CondensableNetwork, FeaturesAndLogits
from lit_condense.rng import RandomKey

GRADIENTS: frozenset[Need] = frozenset({"gradients"})

Views = Callable[[Tensor], Tensor]
"""From stored images of a block to what the network sees, ``(k, m, C, H, W)``: decode, normalise, augment."""


@dataclass(frozen=True)
class Block:
    """Class blocks that go through the network together."""

    real_images: Tensor | None
    """``(k, n, C, H, W)``, normalised and augmented; None where the real side is known already."""
    real_labels: Tensor | None
    """``(k, n)``."""
    stored: Tensor
    """The block's stored synthetic images, a differentiable leaf."""
    views: Views
    synthetic_labels: Tensor
    """``(k, m)``."""
    keys: tuple[RandomKey, ...] | None = None
    """One a class, for layers that draw (dropout): then the result does not depend on how classes are cut."""


@dataclass(frozen=True)
class BlockResult:
    """What a block contributes to an update."""

    gradient: Tensor
    """Derivative of the weighted sum of the losses in the block's stored images."""
    losses: dict[str, Tensor]
    """Unweighted value of each loss by tag, summed over the block's classes."""


class Engine:
    """How an image update is computed: precision, compilation and how many classes go together.

    Args:
        mode: ``fast`` computes the real gradients (first order, nearly all of an update's arithmetic) with a bfloat16
            forward pass; weights, gradients, the synthetic side and the distances stay float32. ``exact`` computes
            everything in float32.
        compile: ``auto`` compiles the real gradients once a batch is heavy enough for compiling to pay (a fixed table,
            never a timing), ``always`` and ``never`` do what they say.
        classes_per_block: Classes whose quantities are formed and compared together. More costs memory; the result of
            an update does not depend on it.
        real_chunk: Real images of a class that go through the network at once, for images so large that a class batch
            does not fit; by default all. The result is the same to rounding, unless layers draw (dropout) or normalise
            by the statistics of their batch (batch norm under ``own_batch``).
    """

    def __init__(
        self,
        mode: Literal["exact", "fast"] = "fast",
        compile: Literal["auto", "always", "never"] = "auto",
        classes_per_block: int = 1,
        real_chunk: int | None = None,
    ) -> None:
        if mode not in ("exact", "fast"):
            raise SettingsError(f"Expected Engine.mode to be 'exact' or 'fast', got {mode!r}.")
        if compile not in ("auto", "always", "never"):
            raise SettingsError(f"Expected Engine.compile to be 'auto', 'always' or 'never', got {compile!r}.")
        if classes_per_block < 1:
            raise SettingsError(f"Expected Engine.classes_per_block to be 1 or more, got {classes_per_block}.")
        if real_chunk is not None and real_chunk < 1:
            raise SettingsError(f"Expected Engine.real_chunk to be 1 or more, got {real_chunk}.")
        self.mode = mode
        self.compile = compile
        self.classes_per_block = classes_per_block
        self.real_chunk = real_chunk

    def start(self, network: nn.Module, real_batch: Tensor, needs: frozenset[Need] = GRADIENTS) -> RunningEngine:
        """Bind the engine to the run's network.

        Args:
            network: The inner network.
            real_batch: ``(n, C, H, W)``, of the shape of a class's batch.
            needs: All quantities that the run's losses read.
        """
        real_batch = real_batch[: self.real_chunk]
        heavy = forward_gflop(network, real_batch) >= COMPILE_FROM_GFLOP.get(real_batch.device.type, float("inf"))
        compiled = self.compile == "always" or (self.compile == "auto" and heavy)
        # bfloat16 pays where arithmetic dominates; small eager batches only lose digits and time to casts.
        mode: Mode = self.mode if compiled else "exact"
        outputs = None
        if not needs <= GRADIENTS:
            outputs = FeaturesAndLogits(cast(CondensableNetwork, network))
        first_order = FirstOrderLoss(network, mode, compiled, outputs)
        return RunningEngine(network, first_order, tuple(real_batch.shape), self.real_chunk)


class RunningEngine:
    """An engine bound to a network for one run.

    Args:
        network: The inner network, the same object for the whole run.
        first_order: The loss whose gradients stand on the real side.
        full_batch: Shape of a full real class batch, or of a full chunk of one; only this shape takes the compiled
            route, so that the few smaller classes do not each compile their own.
        real_chunk: Real images of a class that go through the network at once.
    """

    def __init__(
        self,
        network: nn.Module,
        first_order: FirstOrderLoss,
        full_batch: tuple[int, ...],
        real_chunk: int | None = None,
    ) -> None:
        self.network = network
        self.first_order = first_order
        self.full_batch = full_batch
        self.real_chunk = real_chunk

    @property
    def route(self) -> str:
        """What is computed how, for the log and the checkpoint."""
        forward = "bfloat16" if self.first_order.mode == "fast" else "float32"
        return f"real gradients: {forward} forward, {'compiled' if self.first_order.compiled else 'eager'}"

    @property
    def features(self) -> Callable[[Tensor], Tensor] | None:
        """The inner network's features as a function of images, where the run reads features."""
        return None if self.first_order.outputs is None else self.first_order.features

    def run(
        self,
        block: Block,
        losses: Sequence[MatchingLoss],
        progress: Progress,
        real: Quantities | None = None,
        vectors: dict[str, Tensor] | None = None,
    ) -> BlockResult:
        """Return the losses of a block and their gradient in its stored images.

        Args:
            block: The images.
            losses: To be called on this block.
            progress: Where the run stands.
            real: The real side, where it is known already.
            vectors: Constant vectors that losses of scope ``mean`` add to every class's gradients, by parameter name.
        """
        needs = needs_of(losses)
        if losses and real is None:
            real = self.real_side(block, needs)
        wanted = needs | (GRADIENTS if vectors else frozenset())
        synthetic = self.synthetic_side(block, wanted, create_graph=True)
        copies = synthetic.detached(requires_grad=True)
        values = {loss.tag: loss.loss(cast(Quantities, real), copies) for loss in losses}
        constants = _constant_vectors(values, losses, progress, copies, vectors)
        pairs = zip(synthetic.tensors(), constants, strict=True)
        read = [(t, v) for t, v in pairs if v is not None and t.requires_grad]  # unused parameters have no graph
        gradient = torch.autograd.grad([t for t, _ in read], block.stored, grad_outputs=[v for _, v in read])[0]
        return BlockResult(gradient, {tag: value.detach() for tag, value in values.items()})

    def real_side(self, block: Block, needs: frozenset[Need]) -> Quantities:
        """Return what the losses need of the real images, off the graph."""
        images, labels = cast(Tensor, block.real_images), cast(Tensor, block.real_labels)
        keys = keys_of(block, "real")
        size = self.real_chunk or labels.shape[1]
        if size >= labels.shape[1]:
            return self._observe_real(images, labels, needs, keys)
        pieces = zip(torch.split(images, size, dim=1), torch.split(labels, size, dim=1), strict=True)
        return rejoined(
            [
                self._observe_real(x, y, needs, [key and key.fold("chunk", i) for key in keys])
                for i, (x, y) in enumerate(pieces)
            ]
        )

    def _observe_real(
        self, images: Tensor, labels: Tensor, needs: frozenset[Need], keys: Sequence[RandomKey | None]
    ) -> Quantities:
        if tuple(images.shape[1:]) != self.full_batch:
            return observe(self.network, self.first_order.outputs, images, labels, needs, False, keys).detached()
        parts = []
        for x, y, key in zip(images, labels, keys, strict=True):
            with isolation(key):
                parts.append(self.first_order.observe(x, y, needs))
        return stacked(parts)

    def synthetic_side(self, block: Block, needs: frozenset[Need], create_graph: bool) -> Quantities:
        """Return what the losses need of the synthetic images."""
        images = block.views(block.stored if create_graph else block.stored.detach())
        labels, keys = block.synthetic_labels, keys_of(block, "synthetic")
        return observe(self.network, self.first_order.outputs, images, labels, needs, create_graph, keys)


def keys_of(block: Block, side: str) -> list[RandomKey | None]:
    """Return the key of each class's layers on one side."""
    return [None] * len(block.synthetic_labels) if block.keys is None else [key.fold(side) for key in block.keys]


def needs_of(losses: Sequence[MatchingLoss]) -> frozenset[Need]:
    """Return every quantity that some loss reads."""
    return frozenset().union(*(loss.needs for loss in losses))


def _constant_vectors(
    values: dict[str, Tensor],
    losses: Sequence[MatchingLoss],
    progress: Progress,
    copies: Quantities,
    vectors: dict[str, Tensor] | None,
) -> list[Tensor | None]:
    """Return the derivative of the weighted total in each synthetic quantity; None where nothing reads it."""
    constants: list[Tensor | None] = [None] * len(copies.tensors())
    if losses:
        # The losses saw detached copies: their derivative there is the constant vector of the chain rule.
        total = torch.stack([loss.weight_at(progress) * values[loss.tag] for loss in losses]).sum()
        constants = list(torch.autograd.grad(total, copies.tensors(), allow_unused=True))
    for i, (name, gradient) in enumerate(copies.gradients.items()):
        if vectors is not None and name in vectors:
            added = vectors[name].expand_as(gradient)
            known = constants[i]
            constants[i] = added if known is None else known + added
    return constants
