"""Train students on the set, and carry the derivative of what they reach back through their training.

With weights ``w_0 .. w_N``, gradients ``g_i`` of the loss of step i at ``w_i`` and the step size ``a``, a student does
``w_{i+1} = w_i - a g_i``. Let ``c_i`` be the derivative of its value in ``w_i``, so that ``c_N`` is that of the value
itself. Step i then adds ``-a d<c_{i+1}, g_i>/dx`` to the gradient in its images x (in its targets likewise) and
``-<c_{i+1}, g_i>`` to that in the step size, and

* ``full``: ``c_i = c_{i+1} - a d<c_{i+1}, g_i>/dw``, exactly what a graph of all steps would give;
* ``constant_memory``: ``c_i = c_N`` for all steps. What step i changes for the later ones is left out.

So no more than one step has a graph at a time. Steps are computed a second time for it: the weights of ``full`` are
kept meanwhile, those of ``constant_memory`` come about again on the way.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_condense.engine.compilation import DOUBLE_BACKWARD_COMPILES, Clock, CompiledFunction
from lit_condense.engine.execution_plan import StudentPlan
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.engine.forward import Forward
from lit_condense.engine.quantities import isolation
from lit_condense.functional.gradients import trainable_parameters
from lit_condense.matching.whole import Student

Weights = list[Tensor]


@dataclass(frozen=True)
class Unrolled:
    """What a student reached, and its gradient in what it was trained with."""

    value: Tensor
    """``()``."""
    images: Tensor
    """Of the shape of all decoded images."""
    targets: Tensor | None
    """Of the shape of soft labels; None where labels are hard."""
    step_size: Tensor
    """``()``."""


@dataclass(frozen=True)
class _Training:
    """A student with what it is trained on."""

    student: Student
    images: Tensor
    targets: Tensor
    step_size: Tensor

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the images of a step as a leaf, what the network sees of them, and their targets."""
        chosen = self.student.batches[step].to(self.images.device, non_blocking=True)
        leaf = self.images[chosen].requires_grad_()
        return leaf, self.student.augmented(leaf, step), self.targets[chosen]


class Unroller:
    """Trains students in a network of its own, whose weights are overwritten: what is compiled for it stays valid.

    Args:
        network: In training mode; it is copied.
        plan: Which batches are compiled, and in which precision; by default none.
        clock: Counts what compiling takes.
        draws: Whether layers draw from the global generators.
    """

    def __init__(
        self, network: nn.Module, plan: StudentPlan | None = None, clock: Clock | None = None, draws: bool = True
    ) -> None:
        self._network = _copy(network)
        self._parameters = trainable_parameters(self._network)
        self._plan = plan or StudentPlan()
        self._draws = draws
        self._eager = Forward(self._network, "exact")
        self._forward = Forward(self._network, self._plan.mode)
        clock = clock or Clock()
        self._losses = {
            compiled: FirstOrderLoss(self._forward if compiled else self._eager, compiled, clock)
            for compiled in ({False} | ({True} if self._plan.batches else set()))
        }
        self._products: dict[tuple[bool, bool], CompiledFunction[..., Sequence[Tensor]]] = {}
        self._clock = clock

    def __call__(
        self, student: Student, images: Tensor, targets: Tensor, step_size: Tensor, differentiated: bool = True
    ) -> Unrolled:
        """Train a student.

        Args:
            student: As the loss describes it.
            images: All decoded images ``(N, C, H, W)``, off the graph.
            targets: ``(N,)``, or soft ones ``(N, classes)``.
            step_size: ``()``.
            differentiated: False gives the value alone; the gradients are then 0.
        """
        training = _Training(student, images, targets, step_size)
        start = [student.start[name].detach() for name in self._parameters]
        if student.unroll == "full" and not self._recomputes(student) and differentiated:
            return self._through_a_graph(training, start)
        kept: list[Weights] | None = [] if student.unroll == "full" and differentiated else None
        reached, total = self._trained(training, start, kept)
        value, slopes = self._worth(student, reached)
        if not differentiated:
            return Unrolled(value, torch.zeros_like(images), None, torch.zeros_like(step_size))
        if kept is None:
            return self._step_by_step(training, start, value, slopes, total)
        return self._backwards(training, kept, value, slopes)

    def _recomputes(self, student: Student) -> bool:
        if student.checkpointing is not None:
            return student.checkpointing
        return any(self._compiled(len(batch)) for batch in student.batches)

    def _compiled(self, images: int) -> bool:
        return images in self._plan.batches

    # ---------------------------------------------------------------- the way there

    def _trained(self, training: _Training, start: Weights, kept: list[Weights] | None) -> tuple[Weights, Weights]:
        """Return the weights that are reached, and the sum of the gradients on the way; keep those of each step."""
        weights, total = start, [torch.zeros_like(w) for w in start]
        for step in range(len(training.student.batches)):
            if kept is not None:
                kept.append(weights)
            with torch.no_grad():
                _, seen, targets = training.batch(step)
            gradients = self._gradients(training.student, step, weights, seen, targets)
            total = [t + g for t, g in zip(total, gradients, strict=True)]
            weights = _stepped(weights, training.step_size, gradients)
        return weights, total

    def _gradients(self, student: Student, step: int, weights: Weights, seen: Tensor, targets: Tensor) -> Weights:
        self._load(weights)
        with self._layers(student, step):
            found = self._losses[self._compiled(len(seen))].logits_and_gradients(seen, targets)[1]
        return list(found)

    def _worth(self, student: Student, reached: Weights) -> tuple[Tensor, Weights]:
        """Return the value of the weights that are reached, and its derivative in them."""
        leaves = [w.detach().requires_grad_() for w in reached]
        value = student.value(dict(zip(self._parameters, leaves, strict=True)))
        slopes = torch.autograd.grad(value, leaves, materialize_grads=True)
        return value.detach(), list(slopes)

    # ---------------------------------------------------------------- and back

    def _backwards(self, training: _Training, kept: list[Weights], value: Tensor, slopes: Weights) -> Unrolled:
        found = _Sums(training)
        for step in reversed(range(len(kept))):
            self._load(kept.pop())
            curvature, product = self._add(training, step, slopes, found, with_weights=True)
            found.step_size = found.step_size - product
            slopes = [c - training.step_size * h for c, h in zip(slopes, curvature, strict=True)]
        return found.result(value)

    def _step_by_step(
        self, training: _Training, weights: Weights, value: Tensor, slopes: Weights, total: Weights
    ) -> Unrolled:
        found = _Sums(training)
        for step in range(len(training.student.batches)):
            self._load(weights)
            gradients, _ = self._add(training, step, slopes, found, with_weights=False)
            weights = _stepped(weights, training.step_size, gradients)
        found.step_size = -_inner_product(slopes, total)
        return found.result(value)

    def _add(
        self, training: _Training, step: int, slopes: Weights, found: _Sums, with_weights: bool
    ) -> tuple[Weights, Tensor]:
        """Add a step's part of the gradients in images and targets, at the weights that are loaded.

        Returns:
            With weights ``d<slopes, g>/dw``, else ``g``; and ``<slopes, g>``.
        """
        leaf, seen, targets = training.batch(step)
        soft = targets.is_floating_point()
        shown = seen.detach().requires_grad_()
        targets = targets.detach().requires_grad_(soft)
        with self._layers(training.student, step):
            region = self._product(self._compiled(len(seen)), with_weights)
            product, in_images, *others = region(shown, targets, *slopes)
        if soft:
            in_targets, *others = others
            found.add_targets(step, in_targets)
        found.add_images(step, torch.autograd.grad(seen, leaf, in_images)[0])
        return others, product

    def _product(self, compiled: bool, with_weights: bool) -> CompiledFunction[..., Sequence[Tensor]]:
        kind = (compiled, with_weights)
        if kind not in self._products:
            parameters = list(self._parameters.values())
            forward = self._forward if compiled else self._eager
            self._products[kind] = CompiledFunction(
                partial(_products, forward, parameters, with_weights),
                compiled and DOUBLE_BACKWARD_COMPILES,
                self._clock,
                fullgraph=True,
                otherwise=partial(_products, self._eager, parameters, with_weights),
            )
        return self._products[kind]

    def _through_a_graph(self, training: _Training, start: Weights) -> Unrolled:
        """Differentiate through a graph of all steps."""
        student, soft = training.student, training.targets.is_floating_point()
        images, step_size = training.images.clone().requires_grad_(), training.step_size.clone().requires_grad_()
        targets = training.targets.clone().requires_grad_(soft)
        connected = _Training(student, images, targets, step_size)
        weights = [w.clone().requires_grad_() for w in start]
        for step in range(len(student.batches)):
            chosen = student.batches[step].to(images.device, non_blocking=True)
            seen = student.augmented(connected.images[chosen], step)
            with self._layers(student, step):
                named = dict(zip(self._parameters, weights, strict=True))
                logits = torch.func.functional_call(self._network, named, (seen,))
            loss = F.cross_entropy(logits, targets[chosen])
            gradients = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
            weights = [w - step_size * g for w, g in zip(weights, gradients, strict=True)]
        value = student.value(dict(zip(self._parameters, weights, strict=True)))
        wanted = [images, step_size, *([targets] if soft else [])]
        found = torch.autograd.grad(value, wanted, materialize_grads=True)
        return Unrolled(value.detach(), found[0], found[2] if soft else None, found[1])

    def _load(self, weights: Weights) -> None:
        with torch.no_grad():
            for parameter, weight in zip(self._parameters.values(), weights, strict=True):
                parameter.copy_(weight)

    def _layers(self, student: Student, step: int) -> AbstractContextManager[None]:
        """Let layers that draw do so by the step, the same at every pass."""
        return isolation(student.key.fold("layers", step) if self._draws else None)


class _Sums:
    """Gradients in all images and targets, and in the step size, to which the steps of a student add theirs.

    Args:
        training: The student's.
    """

    def __init__(self, training: _Training) -> None:
        self._training = training
        self._images = torch.zeros_like(training.images)
        self._targets = torch.zeros_like(training.targets) if training.targets.is_floating_point() else None
        self.step_size = torch.zeros_like(training.step_size)

    def add_images(self, step: int, gradient: Tensor) -> None:
        """Add the derivative of ``<c, g>`` in the images of a step."""
        self._add(self._images, step, gradient)

    def add_targets(self, step: int, gradient: Tensor) -> None:
        """Add the derivative of ``<c, g>`` in the targets of a step."""
        self._add(cast(Tensor, self._targets), step, gradient)

    def result(self, value: Tensor) -> Unrolled:
        """Return the sums, with the student's value."""
        return Unrolled(value, self._images, self._targets, self.step_size)

    def _add(self, to: Tensor, step: int, gradient: Tensor) -> None:
        chosen = self._training.student.batches[step].to(to.device, non_blocking=True)
        to.index_add_(0, chosen, -self._training.step_size * gradient)


def _products(
    forward: Forward, parameters: Sequence[Tensor], with_weights: bool, images: Tensor, targets: Tensor, *slopes: Tensor
) -> Sequence[Tensor]:
    """Return ``<slopes, g>`` for the gradient g of the batch's mean cross-entropy, and its derivatives.

    In the images, in soft targets, and in the weights; without weights g takes the place of the last.
    """
    loss = F.cross_entropy(forward(images)[1], targets)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    product = _inner_product(slopes, gradients)
    wanted = [images, *([targets] if targets.requires_grad else []), *(parameters if with_weights else [])]
    found = torch.autograd.grad(product, wanted, materialize_grads=True)
    return product.detach(), *found, *([] if with_weights else [g.detach() for g in gradients])


def _inner_product(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum()


def _stepped(weights: Weights, step_size: Tensor, gradients: Weights) -> Weights:
    return [w - step_size * g for w, g in zip(weights, gradients, strict=True)]


def _copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).train()
