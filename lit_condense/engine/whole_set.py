"""Losses on the whole synthetic set: the network as a function, and the gradient in all that is learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lit_condense.functional.attention import plain_attention
from lit_condense.functional.gradients import trainable_parameters
from lit_condense.matching.contract import own_gradient, whole_value
from lit_condense.matching.whole import Parameters, Whole, WholeSetLoss, WithGradient


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
    loss: WholeSetLoss, whole: Whole, weight: float, differentiated: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the unweighted value of a loss, and the gradient of the weighted one in each leaf that it has one in.

    Args:
        loss: The loss.
        whole: What it sees.
        weight: Its factor.
        differentiated: False forms the value alone.
    """
    with plain_attention():
        found = loss.loss(whole)
        if isinstance(found, WithGradient):
            value, gradients = own_gradient(loss, found, whole.leaves)
        else:
            value = whole_value(loss, found, whole.leaves)
            gradients = _differentiated(value, whole.leaves) if differentiated else {}
    return value.detach(), {name: weight * gradient for name, gradient in gradients.items()} if differentiated else {}


def _differentiated(value: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(leaves, found, strict=True) if gradient is not None}
