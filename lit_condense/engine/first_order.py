"""The classification loss for first-order use: what its gradient with respect to the weights costs is most of a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

Mode = Literal["exact", "fast"]
Precision = Literal["float32", "bfloat16"]
LossFunction = Callable[[Tensor, Tensor], Tensor]

COMPILE_FROM_GFLOP = {"cpu": 5.0, "cuda": 5.0}
"""Forward cost of a batch from which compiling pays (seconds of compiling against milliseconds saved a call).

Keyed by device and read once: the route never depends on a timing, so two runs always take the same one.
"""


def forward_gflop(network: nn.Module, images: Tensor) -> float:
    """Return the cost of a forward pass in GFLOP (a multiply-add counts 2), for ``(n, C, H, W)`` images."""
    modes = {module: module.training for module in network.modules()}
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(images[:1])
    for module, training in modes.items():  # part by part: batch norm may be frozen in a network that trains
        module.training = training
    return counter.get_total_flops() * len(images) / 1e9


class FirstOrderLoss:
    """Mean cross-entropy of a network that is trained or measured, but not differentiated twice.

    Args:
        network: One module object for the whole run (its weights are overwritten for each new inner network), so that
            a compiled region is compiled once.
        mode: ``exact`` computes in the network's own precision; ``fast`` runs the forward pass in bfloat16 and keeps
            weights, loss and gradients in float32.
        compiled: Compile with ``torch.compile``; where the platform cannot, fall back to eager with one warning.
    """

    def __init__(self, network: nn.Module, mode: Mode, compiled: bool) -> None:
        self.network = network
        self.mode = mode
        self.compiled = compiled
        self._function: LossFunction = torch.compile(self._eager, dynamic=False) if compiled else self._eager

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of ``(n, C, H, W)`` images with ``(n,)`` labels."""
        if not self.compiled:
            return self._function(images, labels)
        try:
            return self._function(images, labels)
        except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
            if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise
            warnings.warn(
                f"torch.compile does not work here ({type(error).__name__}); going on without it, slower.", stacklevel=2
            )
            self.compiled, self._function = False, self._eager
            return self._function(images, labels)

    def gradients(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the gradient of the loss for every trainable parameter, detached."""
        named = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(self(images, labels), list(named.values()))
        return dict(zip(named, gradients, strict=True))

    def _eager(self, images: Tensor, labels: Tensor) -> Tensor:
        low_precision = self.mode == "fast" and images.dtype == torch.float32
        with torch.autocast(images.device.type, torch.bfloat16, enabled=low_precision):
            logits = self.network(images)
        return F.cross_entropy(logits.to(images.dtype), labels)
