"""Quantities of several classes from one pass through the network, where each class alone would leave it idle."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from lit_condense.engine.forward import Forward
from lit_condense.engine.quantities import observe, read
from lit_condense.functional.attention import plain_attention
from lit_condense.functional.gradients import trainable_parameters
from lit_condense.matching.quantities import Quantities
from lit_condense.matching.quantity import Need, Pass, differentiate
from lit_condense.rng import RandomKey


def observe_together(forward: Forward, images: Tensor, labels: Tensor, needs: frozenset[Need]) -> Quantities:
    """Return what :func:`observe` returns, with the graph to the images, from one pass for all k blocks.

    Equal to rounding. Not for layers that draw or that normalise by the statistics of their batch, see
    :func:`goes_together`, and not under a lower precision.

    Args:
        forward: The network in the mode it is to be observed in.
        images: ``(k, n, C, H, W)``, normalised.
        labels: ``(k, n)``.
        needs: What to form, built-in quantities only.
    """
    own: Mapping[str, Tensor] = trainable_parameters(forward.network)

    def loss(parameters: Mapping[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        if forward.outputs is None:
            seen = [functional_call(forward.network, dict(parameters), (x,))]
        else:
            seen = list(forward.outputs.with_tensors(dict(parameters), x))
        return F.cross_entropy(seen[-1], y), seen

    if differentiate(needs):
        gradients, seen = vmap(grad(loss, has_aux=True), (None, 0, 0))(own, images, labels)
    else:
        gradients, (_, seen) = {}, vmap(loss, (None, 0, 0))(own, images, labels)
    features = seen[0] if len(seen) == 2 else None
    return read(Pass(features, seen[-1], gradients), needs, labels)


def goes_together(forward: Forward, like: Tensor) -> bool:
    """Return whether a network can be observed so: whether both ways give the same second derivative.

    The derivatives are compared because a layer may be batched wrongly without complaint: the double backward of
    ``nn.LayerNorm`` is (torch 2.14).

    Args:
        forward: The network, in training mode.
        like: An image ``(C, H, W)``, for its shape, type and device; the trial is made on noise.
    """
    noise = torch.randn(2, 2, *like.shape, generator=RandomKey(0, ("together",)).generator())
    images, labels = noise.to(like).requires_grad_(), torch.zeros(2, 2, dtype=torch.int64, device=like.device)
    needs: frozenset[Need] = frozenset({"gradients"} if forward.outputs is None else {"gradients", "features"})
    with plain_attention():
        try:
            together = _derivative(observe_together(forward, images, labels, needs), images)
        except RuntimeError:  # what vmap raises for random layers, running statistics and what it does not know
            return False
        apart = _derivative(observe(forward, images, labels, needs, True, [None, None]), images)
    return bool(torch.linalg.vector_norm(together - apart) <= 1e-3 * torch.linalg.vector_norm(apart))


def _derivative(seen: Quantities, images: Tensor) -> Tensor:
    total = torch.stack([quantity.square().sum() for quantity in seen.tensors()]).sum()
    return torch.autograd.grad(total, images, materialize_grads=True)[0]
