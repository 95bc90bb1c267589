"""Proxy models: trained on the whole real training split, then looked through by selections.

Letters: N training images, n of them looked at, d features, K classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F

from lit_condense.data.batching import batch_count, batches
from lit_condense.data.real_images import RealImages
from lit_condense.errors import CheckpointError, NonFiniteError, SettingsError, check_least
from lit_condense.networks import (
    CondensableNetwork,
    FeaturesAndLogits,
    build_network,
    evaluating,
    factory_target,
)
from lit_condense.selection.base import ProxyOutputs
from lit_condense.selection.cache import NetworkCache
from lit_condense.selection.task import History, ProxyTask, TrainedNetwork, plain_arithmetic
from lit_condense.settings import Plain, settings_of


class ProxyTraining:
    """How proxy models are trained: plainly, on normalised images without augmentation, at a constant rate.

    The defaults are DeepCore's (Guo et al., DEXA 2022) with the 10 epochs of its paper.

    Args:
        epochs: Passes over the training split; 0 leaves the networks as they start.
        lr: Learning rate of SGD.
        momentum: Its momentum.
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: Its weight decay.
        batch_size: Images in a step; the last batch of an epoch may be smaller, or larger by one.
        chunk: Images that go through a trained network at once.
        cache: Folder where trained networks are kept, and taken from when all that they depend on is the same.
    """

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 0.1,
        *,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 5e-4,
        batch_size: int = 128,
        chunk: int = 500,
        cache: str | None = None,
    ) -> None:
        check_least("ProxyTraining", 0, epochs=epochs)
        check_least("ProxyTraining", 1, batch_size=batch_size, chunk=chunk)
        if not lr > 0 or not 0 <= momentum < 1 or not weight_decay >= 0:
            raise SettingsError(
                "Expected ProxyTraining.lr above 0, momentum in [0, 1) and weight_decay of 0 or more, got "
                f"{lr}, {momentum} and {weight_decay}."
            )
        if nesterov and momentum == 0:
            raise SettingsError("Expected ProxyTraining.momentum above 0 with nesterov, got 0. Set nesterov: false.")
        self.epochs = epochs
        self.lr = lr
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.chunk = chunk
        self.cache = cache

    # ---------------------------------------------------------------- training

    def steps(self, real: RealImages) -> int:
        """Return the training steps of one network."""
        return self.epochs * self._batches(real)

    def start(self, task: ProxyTask, index: int) -> CondensableNetwork:
        """Return network ``index`` before its training, on the CPU."""
        real = task.real
        channels, height, width = real.image_shape
        key = task.key(index).fold("network")
        built = build_network(task.network, channels, (height, width), real.num_classes, key, needs_features=True)
        return cast(CondensableNetwork, built)

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a network."""
        return torch.optim.SGD(
            network.parameters(),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )

    def step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        history: History,
        task: ProxyTask,
        index: int,
        step: int,
        backward: Callable[[Tensor], None] = torch.autograd.backward,
    ) -> tuple[float, float]:
        """Do training step ``step`` of network ``index``, the same wherever it is called from.

        Args:
            network: The network, in training mode, on the device of the images.
            optimizer: Its optimizer.
            history: What it was right about; written into.
            task: The data and the seed.
            index: Which network it is.
            step: From 0, over all epochs.
            backward: Computes the gradients of a loss.

        Returns:
            The batch's mean cross-entropy and accuracy in [0, 1], before the step.

        Raises:
            NonFiniteError: The loss is NaN or infinite; the network was not stepped.
        """
        key = task.key(index)
        epoch, position = divmod(step, self._batches(task.real))
        batches = task.real.batches(self.batch_size, key.fold("order", epoch))
        chosen = next(itertools.islice(batches, position, None))
        labels = task.real.labels_at(chosen)
        optimizer.zero_grad()
        with key.fold("step", step).isolated():  # dropout and the like draw from the global generators
            logits = network(task.real.at(chosen))
            loss = F.cross_entropy(logits, labels)
            if not math.isfinite(value := float(loss.detach())):
                raise NonFiniteError(f"The loss of proxy model {index} became {value} in step {step}. Lower proxy.lr.")
            backward(loss)
        optimizer.step()
        right = logits.detach().argmax(1) == labels
        history.record(chosen, right)
        return value, float(right.float().mean())

    def train(self, task: ProxyTask, index: int) -> TrainedNetwork:
        """Train network ``index`` here and now, on the device of the images."""
        network = self.start(task, index).to(task.real.device)
        optimizer, history = self.optimizer(network), History.new(len(task.real), task.real.device)
        for step in range(self.steps(task.real)):
            self.step(network, optimizer, history, task, index, step)
        return self.trained(network, history, index)

    def train_all(self, task: ProxyTask, networks: int) -> list[TrainedNetwork]:
        """Return ``networks`` trained networks: from the cache, or trained now in a plain loop and put there."""
        found: list[TrainedNetwork] = []
        with plain_arithmetic(task.real.device):
            for index in range(networks):
                there = self.ready(task, index)
                found.append(there or self.train(task, index))
                if there is None:
                    self.keep(task, found[-1])
        return found

    def trained(self, network: nn.Module, history: History, index: int) -> TrainedNetwork:
        """Return what is left of the training of a network."""
        weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        return TrainedNetwork(index, weights, history.forgotten.cpu().clone())

    # ---------------------------------------------------------------- the cache

    def ready(self, task: ProxyTask, index: int) -> TrainedNetwork | None:
        """Return network ``index`` where it needs no training: from the cache, or because there are no epochs."""
        if self.epochs == 0:
            return self.trained(self.start(task, index), History.new(len(task.real), torch.device("cpu")), index)
        if self.cache is None:
            return None
        return NetworkCache(self.cache).read(self.description(task, index))

    def keep(self, task: ProxyTask, trained: TrainedNetwork) -> None:
        """Put a trained network into the cache, if there is one."""
        if self.cache is not None and self.epochs > 0:
            NetworkCache(self.cache).write(self.description(task, trained.index), trained)

    def description(self, task: ProxyTask, index: int) -> Plain:
        """Return all that the weights of a trained network depend on, as plain data.

        Raises:
            SettingsError: The architecture has no name of its own, so that another one could pass for it.
        """
        target, _ = factory_target(task.network)
        if "<" in (name := getattr(target, "__qualname__", "<object>")):
            raise SettingsError(
                f"Expected a network that can be found by its name, to keep it in ProxyTraining.cache, got {name}. "
                "Define it at the top of a module, or leave the cache out."
            )
        own = settings_of(self)["init_args"]
        del own["cache"], own["chunk"]
        real = task.real
        return {
            "data": {"sha256": real.fingerprint(), "per_class": real.class_sizes},
            "normalization": settings_of(real.normalization),
            "network": settings_of(task.network),
            "proxy": own,
            "seed": task.seed,
            "index": index,
            # arithmetic: another device or version gives other bytes
            "device": real.device.type,
            "torch": torch.__version__,
        }

    # ---------------------------------------------------------------- looking through

    def restore(self, task: ProxyTask, trained: TrainedNetwork) -> CondensableNetwork:
        """Return a trained network in evaluation mode on the device of the images.

        Raises:
            CheckpointError: Its weights do not fit the architecture.
        """
        network = self.start(task, trained.index)
        try:
            network.load_state_dict(trained.weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"Expected weights of proxy model {trained.index} that fit the architecture, got others ({error}). "
                "Delete its file in ProxyTraining.cache to train it again."
            ) from error
        return network.to(task.real.device).eval()

    def view(self, network: CondensableNetwork, real: RealImages, indices: Tensor) -> ProxyOutputs:
        """Return what a network says of the real images at ``indices`` ``(n,)``, in evaluation mode."""
        outputs = FeaturesAndLogits(network)
        with evaluating(outputs), torch.no_grad():
            parts = [outputs(real.at(part)) for part in batches(indices, self.chunk)]
        features, logits = (torch.cat(column) for column in zip(*parts, strict=True))
        return ProxyOutputs(network, features, logits, self.lr, self.batch_size)

    def _batches(self, real: RealImages) -> int:
        return batch_count(len(real), self.batch_size)
