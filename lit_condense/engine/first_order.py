"""The classification loss for first-order use: what its gradient with respect to the weights costs is most of a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias, cast

import torch
from torch import Tensor

from lit_condense.engine.compilation import Clock, CompiledFunction
from lit_condense.engine.cuda_graphs import CudaGraphed, Outputs, copied
from lit_condense.engine.forward import Forward
from lit_condense.engine.quantities import read_one
from lit_condense.functional.gradients import mean_cross_entropy, trainable_parameters
from lit_condense.matching.quantities import Quantities
from lit_condense.matching.quantity import Need, Pass, differentiate
from lit_condense.networks import evaluating

LossAndOutputs: TypeAlias = tuple[Tensor, Tensor | None, Tensor]
"""Mean cross-entropy, features where there are any, logits."""
Region: TypeAlias = CompiledFunction[..., LossAndOutputs]
"""Takes images, labels, and what each image counts where they do not count alike."""


class FirstOrderLoss:
    """Mean cross-entropy of a network that is trained or measured, but not differentiated twice.

    Args:
        forward: The network in the run's precision.
        compiled: Compile with ``torch.compile``; where the platform cannot, fall back to eager, in the network's own
            precision, with one warning.
        clock: Counts what compiling takes.
        recorded: Replay gradients and outputs as recordings of the GPU (:mod:`lit_condense.engine.cuda_graphs`), for a
            network whose layers neither draw nor keep statistics.
        chunk: Images that go through the network at once in a training step, where a batch is several times as many;
            None: the batch. For a network whose outputs are each image's own.
    """

    def __init__(
        self,
        forward: Forward,
        compiled: bool,
        clock: Clock | None = None,
        recorded: bool = False,
        chunk: int | None = None,
    ) -> None:
        self.forward = forward
        self._chunk = chunk
        eager = Forward(forward.network, "exact", forward.outputs)
        self._region: Region = CompiledFunction(
            partial(_loss, forward), compiled, clock or Clock(), otherwise=partial(_loss, eager)
        )
        self._parameters = trainable_parameters(forward.network)
        read = [*forward.network.parameters(), *forward.network.buffers()]
        slopes = partial(_slopes, self._region, list(self._parameters.values()))
        self._slopes = CudaGraphed(slopes, read, recorded)
        self._outputs = CudaGraphed(partial(_outputs, self._region), read, recorded)

    @property
    def compiled(self) -> bool:
        """Whether it is compiled (still: a platform that cannot is found out at the first call)."""
        return self._region.compiled

    @property
    def recorded(self) -> bool:
        """Whether it is replayed (still)."""
        return self._slopes.recorded and self._outputs.recorded

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of ``(n, C, H, W)`` images with ``(n,)`` or soft ``(n, classes)`` labels."""
        return self._region(images, labels)[0]

    def gradients(self, images: Tensor, labels: Tensor) -> Sequence[Tensor | None]:
        """Return its gradient in each trainable parameter, for one optimizer step: the next call may overwrite it.

        None where it does not depend on the parameter (a layer skipped at random).
        """
        return self._slopes(images, labels)[2:]

    def for_a_step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Return logits and gradients of a training batch, in chunks where that pays; the next call may overwrite both.

        A gradient is None as in :meth:`gradients`.
        """
        size = self._chunk or len(images)
        if len(images) <= size or len(images) % size:
            _, logits, *slopes = self._slopes(images, labels)
            return cast(Tensor, logits), slopes
        chunks = zip(torch.split(images, size), torch.split(labels, size), strict=True)
        found = [self._lasting(self._slopes, *chunk)[1:] for chunk in chunks]
        of_logits, *of_slopes = zip(*found, strict=True)
        return torch.cat(of_logits), [_mean(of_one) for of_one in of_slopes]

    def logits_and_gradients(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the logits too, and 0 where the loss does not depend on a parameter; both last."""
        _, logits, *slopes = self._lasting(self._slopes, images, labels)
        parameters = self._parameters.values()
        found = [torch.zeros_like(p) if slope is None else slope for p, slope in zip(parameters, slopes, strict=True)]
        return cast(Tensor, logits), found

    def observe(
        self, images: Tensor, labels: Tensor, needs: frozenset[Need], weights: Tensor | None = None
    ) -> Quantities:
        """Return what is needed of one block ``(n, C, H, W)``, as quantities with k = 1, off the graph.

        Gradients are of the mean in which each image counts by its weight ``(n,)``, where there are weights.
        """
        slopes: Sequence[Tensor | None] = ()
        if differentiate(needs):
            weighted = () if weights is None else (weights,)
            features, logits, *slopes = self._lasting(self._slopes, images, labels, *weighted)
        else:
            features, logits = self._lasting(self._outputs, images, labels)
        gradients = {
            name: torch.zeros_like(parameter) if slope is None else slope
            for (name, parameter), slope in zip(self._parameters.items(), slopes, strict=False)
        }
        return read_one(Pass(features, cast(Tensor, logits), gradients), needs, labels, weights)

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features ``(n, d)`` and logits of ``(n, C, H, W)`` images: evaluation mode, no graph."""
        network = self.forward.network
        images = images.to(next(network.parameters()).dtype)
        with evaluating(network):
            # labels only complete the call: the compiled region is one for everything first order
            labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
            features, logits = self._lasting(self._outputs, images, labels)
            return cast(Tensor, features), cast(Tensor, logits)

    def _lasting(self, of: CudaGraphed, *arguments: Tensor) -> Sequence[Tensor | None]:
        found = of(*arguments)
        return copied(found) if of.recorded else found  # the next call overwrites what was replayed


def _loss(forward: Forward, images: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossAndOutputs:
    features, logits = forward(images)
    return mean_cross_entropy(logits, labels, weights), features, logits


def _slopes(loss_of: Region, parameters: Sequence[Tensor], images: Tensor, labels: Tensor, *weights: Tensor) -> Outputs:
    loss, features, logits = loss_of(images, labels, *weights)
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
    return (_off(features), logits.detach(), *slopes)


def _outputs(loss_of: Region, images: Tensor, labels: Tensor) -> Outputs:
    with torch.no_grad():
        return loss_of(images, labels)[1:]


def _mean(chunks: Sequence[Tensor | None]) -> Tensor | None:
    """Return the mean of the gradients of equal chunks."""
    found = [chunk for chunk in chunks if chunk is not None]
    return torch.stack(found).sum(0) / len(chunks) if found else None


def _off(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
