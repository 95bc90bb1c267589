"""The classification loss for first-order use: what its gradient with respect to the weights costs is most of a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lit_condense.matching.base import Need, Quantities
from lit_condense.networks import FeaturesAndLogits, evaluating

Mode = Literal["exact", "fast"]
LossFunction = Callable[[Tensor, Tensor], Tensor]
"""From images and labels to their mean cross-entropy."""

COMPILE_FROM_GFLOP = {"cpu": 5.0, "cuda": 5.0}
"""Forward cost of a batch from which compiling pays (seconds of compiling against milliseconds saved a call).

Keyed by device and read once: the route never depends on a timing, so two runs always take the same one.
"""


def forward_gflop(network: nn.Module, images: Tensor) -> float:
    """Return the cost of a forward pass in GFLOP (a multiply-add counts 2), for ``(n, C, H, W)`` images."""
    counter = FlopCounterMode(display=False)
    with evaluating(network), torch.no_grad(), counter:
        network(images[:1])
    return counter.get_total_flops() * len(images) / 1e9


class FirstOrderLoss:
    """Mean cross-entropy of a network that is trained or measured, but not differentiated twice.

    Args:
        network: One module object for the whole run (its weights are overwritten for each new inner network), so that
            a compiled region is compiled once.
        mode: ``exact`` computes in the network's own precision; ``fast`` runs the forward pass in bfloat16 and keeps
            weights, loss and gradients in float32.
        compiled: Compile with ``torch.compile``; where the platform cannot, fall back to eager with one warning.
        outputs: Gives features and logits too, where they are asked for.
    """

    def __init__(
        self, network: nn.Module, mode: Mode, compiled: bool, outputs: FeaturesAndLogits | None = None
    ) -> None:
        self.network = network
        self.mode = mode
        self.compiled = compiled
        self.outputs = outputs
        self._function = torch.compile(self._eager, dynamic=False) if compiled else self._eager

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of ``(n, C, H, W)`` images with ``(n,)`` or soft ``(n, classes)`` labels."""
        return self._run(images, labels)[0]

    def observe(self, images: Tensor, labels: Tensor, needs: frozenset[Need]) -> Quantities:
        """Return what is needed of one block ``(n, C, H, W)``, as quantities with k = 1, off the graph."""
        named = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        if "gradients" not in needs:
            with torch.no_grad():
                _, features, logits = self._run(images, labels)
            return _one_block({}, features, logits, labels, needs)
        loss, features, logits = self._run(images, labels)
        gradients = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
        return _one_block(dict(zip(named, gradients, strict=True)), features, logits, labels, needs).detached()

    def features(self, images: Tensor) -> Tensor:
        """Return the features ``(n, d)`` of ``(n, C, H, W)`` images: evaluation mode, no graph, same precision."""
        outputs = cast(FeaturesAndLogits, self.outputs)
        images = images.to(next(self.network.parameters()).dtype)
        with evaluating(outputs), torch.no_grad():
            # labels only complete the call: the compiled region is one for everything first order
            _, features, _ = self._run(images, torch.zeros(len(images), dtype=torch.int64, device=images.device))
        return cast(Tensor, features)

    def _run(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        if not self.compiled:
            return self._function(images, labels)
        try:
            return self._function(images, labels)
        except torch._dynamo.exc.TorchDynamoException as error:
            warnings.warn(
                f"torch.compile does not work here ({type(error).__name__}); going on without it, slower.", stacklevel=2
            )
            self.compiled, self._function = False, self._eager
            return self._function(images, labels)

    def _eager(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        features = None
        low_precision = self.mode == "fast" and images.dtype == torch.float32
        with torch.autocast(images.device.type, torch.bfloat16, enabled=low_precision):
            if self.outputs is None:
                logits = self.network(images)
            else:
                features, logits = self.outputs(images)
                features = features.to(images.dtype)
        logits = logits.to(images.dtype)
        return F.cross_entropy(logits, labels), features, logits


def _one_block(
    gradients: dict[str, Tensor], features: Tensor | None, logits: Tensor, labels: Tensor, needs: frozenset[Need]
) -> Quantities:
    return Quantities(
        {name: g.unsqueeze(0) for name, g in gradients.items()},
        features.unsqueeze(0) if features is not None and "features" in needs else None,
        logits.unsqueeze(0) if "logits" in needs else None,
        labels.unsqueeze(0),
    )
