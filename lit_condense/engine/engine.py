"""The engine: from class blocks of real and synthetic images to the gradient of the matching losses in the images.

It alone differentiates. For each block it forms the quantities the losses need on both sides, asks the losses for their
values, and carries their derivative back through the network and its input to the stored images. Real gradients, which
are differentiated no further, are in :mod:`lit_condense.engine.first_order`, the synthetic side in
:mod:`lit_condense.engine.image_gradient`; which of them run how says :mod:`lit_condense.engine.execution_plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from lit_condense.engine.compilation import Clock
from lit_condense.engine.execution_plan import (
    Compile,
    ExecutionPlan,
    StudentPlan,
    Workload,
    for_own_quantities,
    plan_for,
    student_plan,
)
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.engine.forward import Forward, Mode, full_float32, images_are_independent, per_image
from lit_condense.engine.hardware import multiplies_bfloat16
from lit_condense.engine.image_gradient import ImageGradient
from lit_condense.engine.quantities import each_of, isolation, observe, rejoined, stacked
from lit_condense.engine.unrolling import Unroller
from lit_condense.errors import check_choice, check_least
from lit_condense.matching.base import MatchingLoss, Progress, real_needs, weights_at
from lit_condense.matching.quantities import Quantities
from lit_condense.matching.quantity import GRADIENTS, Need, built_in, differentiate, read_features
from lit_condense.networks import CondensableNetwork, FeaturesAndLogits
from lit_condense.networks.features import Features
from lit_condense.rng import RandomKey
from lit_condense.transfer import sent

ToNetworkInput = Callable[[Tensor], Tensor]
"""From stored images of a block to what the network sees, ``(k, m, C, H, W)``: decode, normalise, augment."""


@dataclass(frozen=True)
class Block:
    """Class blocks that go through the network together."""

    real_images: Tensor | None
    """``(k, n, C, H, W)``, normalised and augmented; None where the real side is known already or not read."""
    real_labels: Tensor | None
    """``(k, n)``."""
    stored: Tensor
    """The block's stored synthetic images, a differentiable leaf."""
    to_network_input: ToNetworkInput
    synthetic_labels: Tensor
    """``(k, m)``."""
    keys: tuple[RandomKey, ...] | None = None
    """One a class, for layers that draw (dropout): then the result does not depend on how classes are cut."""
    classes: int = 1
    """How many classes each of the k blocks holds: 1, or all."""
    real_weights: Tensor | None = None
    """What each real image counts in a mean over its block, ``(k, n)``; None: all alike."""


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
        mode: ``fast`` runs the layers in bfloat16 wherever a run is heavy enough to be compiled and the device has
            instructions for it; weights, gradients and distances stay float32. ``exact`` computes everything in
            float32.
        compile: ``auto`` compiles a run once it is heavy enough for that to pay (a fixed table, never a timing),
            ``always`` and ``never`` do what they say. With ``always``, ``fast`` is bfloat16 on every device, however
            slow.
        classes_per_block: Classes whose images are gathered and compared together. More costs memory; the result of
            an update does not depend on it. By default 1; on a GPU up to 16, as many as fit 256 MiB.
        real_chunk: Real images of a class that go through the network at once, and of a training batch that is several
            times as large, for images so large that a batch does not fit. By default all; where a run is compiled on a
            CPU, as many as fit the cache, unless layers draw (dropout) or use the statistics of their batch, which
            chunks would change. Else the result is the same to rounding.
        record: Whether a GPU replays its work (:mod:`lit_condense.engine.cuda_graphs`) where layers neither draw nor
            use the statistics of their batch. The result is the same.
    """

    def __init__(
        self,
        mode: Mode = "fast",
        compile: Compile = "auto",
        *,
        classes_per_block: int | None = None,
        real_chunk: int | None = None,
        record: bool = True,
    ) -> None:
        check_choice("Engine.mode", mode, Mode)
        check_choice("Engine.compile", compile, Compile)
        check_least("Engine", 1, classes_per_block=classes_per_block, real_chunk=real_chunk)
        self.mode = mode
        self.compile = compile
        self.classes_per_block = classes_per_block
        self.real_chunk = real_chunk
        self.record = record

    def mode_on(self, device: torch.device) -> Mode:
        """Return the mode on a device: ``exact`` where it would only emulate bfloat16, unless all is to be compiled."""
        return self.mode if self.compile == "always" or multiplies_bfloat16(device) else "exact"

    def start(
        self,
        network: nn.Module,
        real_batch: Tensor,
        needs: frozenset[Need] = GRADIENTS,
        synthetic_images: int = 1,
        student_images: Sequence[int] = (),
    ) -> RunningEngine:
        """Bind the engine to the run's network.

        Args:
            network: The inner network.
            real_batch: ``(n, C, H, W)``, of the shape that most classes' batches have.
            needs: All quantities that the run's losses read.
            synthetic_images: Images that most classes show the network.
            student_images: Images of the usual step of students, for each loss that has any.
        """
        work = Workload(
            real_batch.device.type,
            len(real_batch),
            synthetic_images,
            *per_image(network, real_batch),
            pixels=real_batch[0].numel(),
            independent=images_are_independent(network, real_batch[0]),
        )
        mode = self.mode_on(real_batch.device)
        plan = plan_for(work, mode, self.compile, self.classes_per_block, self.real_chunk, self.record)
        plan = plan if built_in(needs) else for_own_quantities(plan)
        outputs = FeaturesAndLogits(cast(CondensableNetwork, network)) if read_features(needs) else None
        students = student_plan(work.device, work.gflop, student_images, mode, self.compile)
        return RunningEngine(network, outputs, plan, real_batch, synthetic_images, students, student_images)


class RunningEngine:
    """An engine bound to a network for one run.

    Args:
        network: The inner network, the same object for the whole run.
        outputs: Its features and logits, where the run reads them.
        plan: What the table gives.
        real_batch: ``(n, C, H, W)``, a real class batch; only chunks of its full size are compiled, so that
            classes of other sizes do not each compile their own. What is left of them runs eager in float32.
        synthetic_images: Images that most classes show the network; the same holds for them.
        students: How students are trained.
        student_images: Images of their usual steps; none where there are no students.
    """

    def __init__(
        self,
        network: nn.Module,
        outputs: FeaturesAndLogits | None,
        plan: ExecutionPlan,
        real_batch: Tensor,
        synthetic_images: int,
        students: StudentPlan | None = None,
        student_images: Sequence[int] = (),
    ) -> None:
        self.network = network
        self.clock = Clock()
        self.plan = plan
        self._like = real_batch[0]
        self.full_chunk = tuple(real_batch[: plan.real_chunk].shape)
        self.synthetic_batch = (synthetic_images, *real_batch.shape[1:])
        self.forward = Forward(network, plan.mode, outputs)
        self.first_order = FirstOrderLoss(self.forward, plan.compiled, self.clock, plan.recorded, plan.training_chunk)
        self.eager = Forward(network, "exact", outputs)
        self.image_gradient = ImageGradient(
            self.forward,
            self.eager,
            plan.compiled_twice,
            self.synthetic_batch,
            self.clock,
            plan.recorded and not plan.own_quantities,
        )
        self._students = students or StudentPlan()
        self._student_images = student_images

    @property
    def description(self) -> str:
        """What is computed how, for the log and the checkpoint."""
        forward = "bfloat16" if self.forward.mode == "fast" else "float32"
        synthetic = "float32, eager, class by class"
        if self.image_gradient.compiled:
            synthetic = f"{forward}, compiled"
        real = f"{forward}, compiled" if self.first_order.compiled else "float32, eager"
        real, synthetic = (
            f"{side}, replayed" if part.recorded else side
            for side, part in ((real, self.first_order), (synthetic, self.image_gradient))
        )
        if self._student_images:
            synthetic = f"{synthetic}; {self._described_students()}"
        if self.plan.own_quantities:
            return f"training: {real}; real and synthetic side: float32, eager, class by class (own quantities)"
        return f"real side and training: {real}; synthetic side: {synthetic}"

    def _described_students(self) -> str:
        forward = "bfloat16" if self._students.mode == "fast" else "float32"
        compiled = [size in self._students.batches for size in self._student_images]
        sizes = " and ".join(str(size) for size in self._student_images)
        return f"students in batches of {sizes}: {f'{forward}, compiled' if all(compiled) else 'float32, eager'}"

    @cached_property
    def unroller(self) -> Unroller:
        """Trains students, in a network of their own."""
        return Unroller(self.network, self._students, self.clock, not self._independent)

    @cached_property
    def _independent(self) -> bool:
        """Whether no layer draws."""
        return images_are_independent(self.network, self._like)

    def precision(self) -> AbstractContextManager[None]:
        """Return the surroundings in which everything of an update is to be computed."""
        return full_float32() if self.plan.mode == "exact" else nullcontext()

    @property
    def features(self) -> Features | None:
        """The inner network's features as a function of images, where the run reads features."""
        return None if self.forward.outputs is None else Features(self._features_and_logits)

    def run(
        self,
        block: Block,
        losses: Sequence[MatchingLoss],
        progress: Progress,
        real: Quantities | None = None,
        vectors: dict[str, Tensor] | None = None,
        only: str | None = None,
    ) -> BlockResult:
        """Return the losses of a block and their gradient in its stored images.

        Args:
            block: The images.
            losses: To be called on this block.
            progress: Where the run stands.
            real: The real side, where it is known already.
            vectors: Constant vectors that losses of scope ``mean`` add to every class's gradients, by parameter name.
            only: Tag of the one loss whose gradient is wanted; by default of all, weighted.
        """
        if real is None:
            needs = real_needs(losses)
            real = self.real_side(block, needs) if needs else Quantities(classes=block.classes)
        seen = block.to_network_input(block.stored)
        gradient, values = self.image_gradient(
            losses,
            sent(torch.tensor(weights_at(losses, progress, only), dtype=seen.dtype), seen.device),
            seen,
            block.synthetic_labels,
            real,
            vectors or {},
            keys_of(block, "synthetic"),
        )
        # decoding, normalisation and augmentation stay eager: their draws change with every update
        of_stored = torch.autograd.grad(seen, block.stored, grad_outputs=gradient)[0]
        return BlockResult(of_stored, {loss.tag: value for loss, value in zip(losses, values, strict=True)})

    def real_side(self, block: Block, needs: frozenset[Need]) -> Quantities:
        """Return what the losses need of the real images, off the graph."""
        images, labels, weights = cast(Tensor, block.real_images), cast(Tensor, block.real_labels), block.real_weights
        keys = keys_of(block, "real")
        size = self.plan.real_chunk or labels.shape[1]
        if size >= labels.shape[1]:
            whole = self._first_order(images, labels, needs, keys, self.full_chunk, weights)
            return replace(whole, classes=block.classes)
        pieces = [torch.split(images, size, dim=1), torch.split(labels, size, dim=1)]
        cut = [None] * len(pieces[0]) if weights is None else torch.split(weights, size, dim=1)
        chunks = [
            self._first_order(x, y, needs, [key and key.fold("chunk", i) for key in keys], self.full_chunk, w)
            for i, (x, y, w) in enumerate(zip(*pieces, cut, strict=True))
        ]
        return replace(rejoined(chunks), classes=block.classes)

    def synthetic_side(self, block: Block, needs: frozenset[Need]) -> Quantities:
        """Return what the losses need of the synthetic images, off the graph."""
        images, labels = block.to_network_input(block.stored.detach()), block.synthetic_labels
        return self._first_order(images, labels, needs, keys_of(block, "synthetic"), self.synthetic_batch)

    def _features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Look through the network in chunks that fit the cache, all of one shape: the last one is filled up."""
        size = min(self.plan.real_chunk or len(images), len(images))
        filled = torch.cat([images, images[: -len(images) % size]])
        found = [self.first_order.features_and_logits(chunk) for chunk in torch.split(filled, size)]
        features, logits = (torch.cat(parts)[: len(images)] for parts in zip(*found, strict=True))
        return features, logits

    def _first_order(
        self,
        images: Tensor,
        labels: Tensor,
        needs: frozenset[Need],
        keys: Sequence[RandomKey | None],
        full: tuple[int, ...],
        weights: Tensor | None = None,
    ) -> Quantities:
        if tuple(images.shape[1:]) != full or self.plan.own_quantities:
            with torch.set_grad_enabled(differentiate(needs)):
                return observe(self.eager, images, labels, needs, False, keys, weights).detached()
        parts = []
        for x, y, w, key in zip(images, labels, each_of(weights, len(labels)), keys, strict=True):
            with isolation(None if self.plan.recorded else key):  # what is recorded does not draw
                parts.append(self.first_order.observe(x, y, needs, w))
        return stacked(parts)


def keys_of(block: Block, side: str) -> list[RandomKey | None]:
    """Return the key of each class's layers on one side."""
    return [None] * len(block.synthetic_labels) if block.keys is None else [key.fold(side) for key in block.keys]
