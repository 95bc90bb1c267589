"""The inner network: the one that real and synthetic images are matched against.

It is deliberately *not* a submodule of the synthetic set: registered, DDP would hook and reduce it, it would enter the
optimizer, and it could not be replaced. One module object lives for the whole run; a new network means new weights in
it, so that whatever was compiled for it stays valid.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_condense.data.real_images import RealImages
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.networks import NetworkFactory, build_network, network_name
from lit_condense.optim import steps_alone
from lit_condense.rng import RandomKey

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
BatchNormStatistics = Literal["real_batch", "running_average", "own_batch"]

STATISTICS_IMAGES_PER_CLASS = 16
"""Real images a class behind the frozen batch-norm statistics (the DC authors' program)."""


class InnerNetwork:
    """A network, its optimizer, and which of the run's networks it is.

    Args:
        factory: Builds the network.
        real: The real images, which fix the input shape and the classes.
        key: The run's key; network ``i`` starts from ``key.fold("network", i)`` on every rank.
        optimizer: Makes the optimizer of a new network from its parameters.
        like: The network gets this tensor's device and precision.
        needs_features: Whether features or logits are read, so that a foreign network must be adapted.
    """

    def __init__(
        self,
        factory: NetworkFactory,
        real: RealImages,
        key: RandomKey,
        optimizer: OptimizerFactory,
        like: Tensor,
        needs_features: bool = False,
    ) -> None:
        self.index = -1
        self._needs_features = needs_features
        self._factory, self._real, self._key, self._make_optimizer = factory, real, key, optimizer
        self.network = self._build(0).to(like.device, like.dtype)
        self.optimizer = steps_alone(optimizer(self.network.parameters()), "the inner network")

    def _build(self, index: int) -> nn.Module:
        channels, height, width = self._real.image_shape
        return build_network(
            self._factory,
            channels,
            (height, width),
            self._real.num_classes,
            self._key.fold("network", index),
            self._needs_features,
        )

    def renew(self, index: int) -> None:
        """Become the run's network ``index``: fresh weights and a fresh optimizer."""
        self.network.load_state_dict(self._build(index).state_dict())
        self.optimizer = self.new_optimizer()
        self.index = index

    def new_optimizer(self) -> torch.optim.Optimizer:
        """Return a fresh optimizer of the network's weights."""
        return self._make_optimizer(self.network.parameters())

    def train_step(self, loss: FirstOrderLoss, images: Tensor, labels: Tensor) -> None:
        """Take one optimizer step on the mean cross-entropy of a batch."""
        self.logits_of_step(loss, images, labels)

    def logits_of_step(self, loss: FirstOrderLoss, images: Tensor, labels: Tensor) -> Tensor:
        """Take one optimizer step, and return what the network said before it.

        Returns:
            The logits, ``(n, classes)``, off the graph; the next step may overwrite them.
        """
        logits, gradients = loss.for_a_step(images, labels)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return logits

    @contextlib.contextmanager
    def frozen_batch_norm(self, statistics: BatchNormStatistics, key: RandomKey) -> Iterator[None]:
        """Freeze batch norm on statistics of real images for a matching step; networks without it pass through.

        ``real_batch`` takes the statistics of one mixed batch of 16 images a class, as the DC paper describes;
        ``running_average`` moves the running averages once towards that batch (momentum 0.1), as its program does.
        ``own_batch`` freezes nothing: each batch has its own statistics, as in IDC and DM.
        """
        if statistics == "own_batch":
            yield
            return
        layers = [m for m in self.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if layers:
            self._observe_real_images(layers, statistics, key)
        for layer in layers:
            layer.eval()
        try:
            yield
        finally:
            for layer in layers:
                layer.train()

    def _observe_real_images(
        self, layers: list[nn.modules.batchnorm._BatchNorm], statistics: BatchNormStatistics, key: RandomKey
    ) -> None:
        real = self._real
        chosen = torch.cat(
            [real.random_of_class(c, STATISTICS_IMAGES_PER_CLASS, key.fold(c)) for c in range(real.num_classes)]
        )
        momenta = [layer.momentum for layer in layers]
        if statistics == "real_batch":
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # cumulative average: after one batch exactly that batch's statistics
        with torch.no_grad():
            self.network(real.at(chosen).to(next(self.network.parameters()).dtype))
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

    @property
    def name(self) -> str:
        """Name of the architecture."""
        return network_name(self._factory)

    @contextlib.contextmanager
    def put_back_afterwards(self) -> Iterator[None]:
        """Put back weights and running averages after the block."""
        state = {name: value.clone() for name, value in self.network.state_dict().items()}
        try:
            yield
        finally:
            self.network.load_state_dict(state)

    def tensors(self) -> list[Tensor]:
        """Return every tensor that training changes: weights, buffers and optimizer state."""
        state = [t for values in self.optimizer.state.values() for t in values.values() if isinstance(t, Tensor)]
        return [*self.network.state_dict().values(), *state]

    def state_dict(self) -> dict[str, Any]:
        """Return all that a run needs to go on in the middle of this network's life."""
        return {
            "index": self.index,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.index = state["index"]
        self.network.load_state_dict(state["network"])
        self.optimizer = self.new_optimizer()
        self.optimizer.load_state_dict(state["optimizer"])
