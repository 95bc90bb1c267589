"""The engine: from class blocks of real and synthetic images to the gradient of the matching losses in the images.

It alone differentiates. For each block it forms the quantities the losses need on both sides, asks the losses for their
values, turns those into constant vectors (the derivative of the losses in the synthetic quantities) and carries the
vectors back to the stored images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lit_condense.engine.first_order import COMPILE_FROM_GFLOP, FirstOrderLoss, Mode, forward_gflop
from lit_condense.errors import SettingsError
from lit_condense.functional.gradients import class_gradients
from lit_condense.matching.base import MatchingLoss, Progress, Quantities

Views = Callable[[Tensor], Tensor]
"""From stored images of a block to what the network sees, ``(k, m, C, H, W)``: decode, normalise, augment."""


@dataclass(frozen=True)
class Block:
    """Class blocks that go through the network together."""

    real_images: Tensor
    """``(k, n, C, H, W)``, normalised and augmented."""
    real_labels: Tensor
    """``(k, n)``."""
    stored: Tensor
    """The block's stored synthetic images, a differentiable leaf."""
    views: Views
    synthetic_labels: Tensor
    """``(k, m)``."""


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
    """

    def __init__(
        self,
        mode: Literal["exact", "fast"] = "fast",
        compile: Literal["auto", "always", "never"] = "auto",
        classes_per_block: int = 1,
    ) -> None:
        if mode not in ("exact", "fast"):
            raise SettingsError(f"Expected Engine.mode to be 'exact' or 'fast', got {mode!r}.")
        if compile not in ("auto", "always", "never"):
            raise SettingsError(f"Expected Engine.compile to be 'auto', 'always' or 'never', got {compile!r}.")
        if classes_per_block < 1:
            raise SettingsError(f"Expected Engine.classes_per_block to be 1 or more, got {classes_per_block}.")
        self.mode = mode
        self.compile = compile
        self.classes_per_block = classes_per_block

    def start(self, network: nn.Module, real_batch: Tensor) -> RunningEngine:
        """Bind the engine to the run's network; ``real_batch`` ``(n, C, H, W)`` has the shape of a class's batch."""
        heavy = forward_gflop(network, real_batch) >= COMPILE_FROM_GFLOP.get(real_batch.device.type, float("inf"))
        compiled = self.compile == "always" or (self.compile == "auto" and heavy)
        # bfloat16 pays where arithmetic dominates; small eager batches only lose digits and time to casts.
        mode: Mode = self.mode if compiled else "exact"
        return RunningEngine(network, FirstOrderLoss(network, mode, compiled), tuple(real_batch.shape))


class RunningEngine:
    """An engine bound to a network for one run.

    Args:
        network: The inner network, the same object for the whole run.
        first_order: The loss whose gradients stand on the real side.
        full_batch: Shape of a full real class batch; only this shape takes the compiled route, so that the few smaller
            classes do not each compile their own.
    """

    def __init__(self, network: nn.Module, first_order: FirstOrderLoss, full_batch: tuple[int, ...]) -> None:
        self.network = network
        self.first_order = first_order
        self.full_batch = full_batch

    @property
    def route(self) -> str:
        """What is computed how, for the log and the checkpoint."""
        forward = "bfloat16" if self.first_order.mode == "fast" else "float32"
        return f"real gradients: {forward} forward, {'compiled' if self.first_order.compiled else 'eager'}"

    def run(self, block: Block, losses: Sequence[MatchingLoss], progress: Progress) -> BlockResult:
        """Return the losses of a block and their gradient in its stored images."""
        real = Quantities(gradients=self._real_gradients(block.real_images, block.real_labels))
        images = block.views(block.stored)
        synthetic = class_gradients(self.network, images, block.synthetic_labels, create_graph=True)

        # The losses see detached copies: their derivative there is the constant vector of the chain rule.
        copies = {name: gradient.detach().requires_grad_() for name, gradient in synthetic.items()}
        values = {loss.tag: loss.loss(real, Quantities(gradients=copies)) for loss in losses}
        weights = {loss.tag: loss.weight_at(progress) for loss in losses}
        total = torch.stack([weights[tag] * value for tag, value in values.items()]).sum()
        vectors = torch.autograd.grad(total, list(copies.values()), allow_unused=True)

        read = [(synthetic[name], vector) for name, vector in zip(copies, vectors, strict=True) if vector is not None]
        gradient = torch.autograd.grad([g for g, _ in read], block.stored, grad_outputs=[v for _, v in read])[0]
        return BlockResult(gradient, {tag: value.detach() for tag, value in values.items()})

    def _real_gradients(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if tuple(images.shape[1:]) != self.full_batch:
            return {name: g.detach() for name, g in class_gradients(self.network, images, labels).items()}
        per_class = [self.first_order.gradients(x, y) for x, y in zip(images, labels, strict=True)]
        return {name: torch.stack([gradients[name] for gradients in per_class]) for name in per_class[0]}
