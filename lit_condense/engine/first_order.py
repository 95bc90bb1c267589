"""The classification loss for first-order use: what its gradient with respect to the weights costs is most of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_condense.engine.compilation import Clock, Region
from lit_condense.engine.forward import Forward
from lit_condense.engine.quantities import one_block
from lit_condense.functional.gradients import gradients_of
from lit_condense.matching.base import Need, Quantities
from lit_condense.networks import evaluating

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""From images and labels to their mean cross-entropy."""


class FirstOrderLoss:
    """Mean cross-entropy of a network that is trained or measured, but not differentiated twice.

    Args:
        forward: The network in the run's precision.
        compiled: Compile with ``torch.compile``; where the platform cannot, fall back to eager, in the network's own
            precision, with one warning.
        clock: Counts what compiling takes.
    """

    def __init__(self, forward: Forward, compiled: bool, clock: Clock | None = None) -> None:
        self.forward = forward
        eager = Forward(forward.network, "exact", forward.outputs)
        self._region = Region(partial(_loss, forward), compiled, clock or Clock(), otherwise=partial(_loss, eager))

    @property
    def compiled(self) -> bool:
        """Whether it is compiled (still: a platform that cannot is found out at the first call)."""
        return self._region.compiled

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of ``(n, C, H, W)`` images with ``(n,)`` or soft ``(n, classes)`` labels."""
        return self._region(images, labels)[0]

    def observe(self, images: Tensor, labels: Tensor, needs: frozenset[Need]) -> Quantities:
        """Return what is needed of one block ``(n, C, H, W)``, as quantities with k = 1, off the graph."""
        if "gradients" not in needs:
            with torch.no_grad():
                _, features, logits = self._region(images, labels)
            return one_block({}, features, logits, labels, needs)
        loss, features, logits = self._region(images, labels)
        return one_block(gradients_of(loss, self.forward.network), features, logits, labels, needs).detached()

    def features(self, images: Tensor) -> Tensor:
        """Return the features ``(n, d)`` of ``(n, C, H, W)`` images: evaluation mode, no graph, same precision."""
        network = self.forward.network
        images = images.to(next(network.parameters()).dtype)
        with evaluating(network), torch.no_grad():
            # labels only complete the call: the compiled region is one for everything first order
            labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
            return cast(Tensor, self._region(images, labels)[1])


def _loss(forward: Forward, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    features, logits = forward(images)
    return F.cross_entropy(logits, labels), features, logits
