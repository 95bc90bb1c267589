"""Losses on the whole synthetic set: the network as a function, and the gradient in all that is learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lit_condense.engine.unrolling import Unroller
from lit_condense.functional.attention import plain_attention
from lit_condense.functional.gradients import trainable_parameters
from lit_condense.matching.contract import checked_students, own_gradient, whole_value
from lit_condense.matching.whole import INNER_LR, Parameters, Student, Whole, WholeSetLoss, WithGradient


def as_function(network: nn.Module) -> tuple[Callable[[Parameters, Tensor], Tensor], dict[str, Tensor]]:
    """Return a network as a function of weights and images, and its weights as leaves.

    Args:
        network: The module itself, not one that is wrapped for several processes. Neither its weights nor the
            statistics that its layers keep are touched by the function.
    """
    kept = {name: value.detach().clone() for name, value in network.named_buffers()}
    frozen = {name: value.detach() for name, value in network.named_parameters() if not value.requires_grad}

    def forward(parameters: Parameters, images: Tensor) -> Tensor:
        logits: Tensor = functional_call(network, {**kept, **frozen, **parameters}, (images,))
        return logits

    own = trainable_parameters(network)
    return forward, {name: value.detach().clone().requires_grad_() for name, value in own.items()}


def whole_set_gradient(
    loss: WholeSetLoss, whole: Whole, weight: float, differentiated: bool, unroller: Unroller
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the unweighted value of a loss, and the gradient of the weighted one in each leaf that it has one in.

    Args:
        loss: The loss.
        whole: What it sees.
        weight: Its factor.
        differentiated: False forms the value alone.
        unroller: Trains students.
    """
    with plain_attention():
        found = loss.loss(whole)
        if isinstance(found, Sequence):
            value, gradients = _of_students(checked_students(loss, found, whole), whole, differentiated, unroller)
        elif isinstance(found, WithGradient):
            value, gradients = own_gradient(loss, found, whole.leaves)
        else:
            value = whole_value(loss, found, whole.leaves)
            gradients = _differentiated(value, whole.leaves) if differentiated else {}
    return value.detach(), {name: weight * gradient for name, gradient in gradients.items()} if differentiated else {}


def _differentiated(value: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(leaves, found, strict=True) if gradient is not None}


def _of_students(
    students: Sequence[Student], whole: Whole, differentiated: bool, unroller: Unroller
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of the students' values, and its gradient in each leaf."""
    decoded, targets = whole.decode(whole.leaves)
    assert whole.step_size is not None  # checked with the students
    step_size = whole.step_size.detach()
    soft = targets.is_floating_point()
    value, in_images, in_targets, in_step_size = (
        step_size.new_zeros(()),
        torch.zeros_like(decoded),
        torch.zeros_like(targets),
        step_size.new_zeros(()),
    )
    for student in students:
        found = unroller(student, decoded.detach(), targets.detach(), step_size, differentiated)
        value = value + found.value
        if differentiated:
            in_images, in_step_size = in_images + found.images, in_step_size + found.step_size
            in_targets = in_targets + found.targets if found.targets is not None else in_targets
    if not differentiated or not students:
        return value, {}
    ends = [(decoded, in_images), *([(targets, in_targets)] if soft and targets.requires_grad else [])]
    leaves = {name: leaf for name, leaf in whole.leaves.items() if name != INNER_LR}
    slopes = torch.autograd.grad(
        [end for end, _ in ends], list(leaves.values()), [slope for _, slope in ends], allow_unused=True
    )
    gradients = {name: slope for name, slope in zip(leaves, slopes, strict=True) if slope is not None}
    return value, gradients | ({INNER_LR: in_step_size} if INNER_LR in whole.leaves else {})
