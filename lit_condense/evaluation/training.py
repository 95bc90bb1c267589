"""Train one fresh network on a set by a recipe, and test it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from lit_condense.augmentation.cutmix import mixed
from lit_condense.data.batching import batch_at, batch_count, batches
from lit_condense.data.real_images import RealImages
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.engine.forward import Forward
from lit_condense.evaluation.protocols import Recipe
from lit_condense.networks import evaluating
from lit_condense.rng import RandomKey
from lit_condense.transfer import sent

TEST_BATCH = 250


class LabelledImages(Protocol):
    """Images with labels that can be indexed: a condensed set or the real images."""

    @property
    def labels(self) -> Tensor:
        """Class indices ``(n,)``."""

    def at(self, indices: Tensor) -> Tensor:
        """Return normalised images ``(n, C, H, W)``."""


@dataclass(frozen=True)
class SmallSet:
    """A small set of normalised images held as one tensor."""

    images: Tensor

    labels: Tensor

    weights: Tensor | None = None
    """``(n,)``, 0 or more: how much each image counts in the loss of its batch; None: all the same."""

    soft_labels: Tensor | None = None
    """``(n, classes)``: what networks are trained on in place of the labels, where the set has learned them."""

    step_size: float | None = None
    """Learning rate that the set is made for, where it has one; protocol ``mtt`` uses it."""

    def at(self, indices: Tensor) -> Tensor:
        """Return normalised images ``(n, C, H, W)``."""
        return self.images[sent(indices, self.images.device)]


def train_network(
    network: nn.Module,
    data: LabelledImages,
    recipe: Recipe,
    key: RandomKey,
    max_steps: int | None = None,
    loss: FirstOrderLoss | None = None,
) -> int:
    """Train ``network`` in place on ``data`` and return the number of steps taken.

    The loss of a batch is the mean cross-entropy, or ``sum(w * l) / sum(w)`` where the data have weights. Layers that
    draw (dropout) do so from the global generators.

    Args:
        network: A fresh network on the data's device.
        data: What it is trained on.
        recipe: Passes, schedule, augmentation.
        key: Names the network; every shuffle and augmentation is drawn from it.
        max_steps: Fewer steps than the recipe's, its schedule shrunk in proportion.
        loss: The network's loss; by default eager.
    """
    num_classes = classes_of(network, data)
    loss = loss or FirstOrderLoss(Forward(network, "exact"), compiled=False)
    network.train()
    descent = Descent([p for p in network.parameters() if p.requires_grad], recipe)
    rates = list(recipe.rates(batches_of(data, recipe), max_steps))
    for step, (lr, restart) in enumerate(rates):
        descent.step(loss.gradients(*training_batch(data, recipe, step, num_classes, key)), lr, restart)
    return len(rates)


class Descent:
    """SGD by a recipe.

    Args:
        parameters: What is trained.
        recipe: Momentum and weight decay.
    """

    def __init__(self, parameters: Sequence[Tensor], recipe: Recipe) -> None:
        self._parameters = parameters
        self._new = partial(
            torch.optim.SGD,
            parameters,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self._optimizer = self._new(lr=recipe.lr)

    def step(self, gradients: Sequence[Tensor | None], lr: float, restart: bool) -> None:
        """Take one step along the loss's gradients, with a new optimizer if so wanted."""
        if restart:
            self._optimizer = self._new(lr=lr)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def classes_of(network: nn.Module, data: LabelledImages) -> int:
    """Return how many logits a network gives; in evaluation mode, so that no statistics move."""
    with torch.no_grad(), evaluating(network):
        return int(network(data.at(torch.arange(min(2, len(data.labels))))).shape[-1])


def batches_of(data: LabelledImages, recipe: Recipe) -> int:
    """Return the batches of a pass over the data."""
    return batch_count(len(data.labels), recipe.batch_size)


def training_batch(
    data: LabelledImages, recipe: Recipe, step: int, num_classes: int, key: RandomKey
) -> tuple[Tensor, Tensor]:
    """Return the augmented images of a step, with labels ``(n,)`` or soft ones ``(n, num_classes)``."""
    images, labels, weights = _batch(data, recipe.batch_size, step, key)
    images, labels = _augmented(images, labels, recipe, num_classes, key.fold("step", step))
    return images, labels if weights is None else weighted(labels, weights, num_classes)


def test_accuracy(network: nn.Module, test: RealImages) -> float:
    """Return the share of test images that the network classifies correctly, in [0, 1]."""
    device = next(network.parameters()).device
    # each rank tests networks of its own: nothing to gather here
    accuracy = MulticlassAccuracy(test.num_classes, average="micro", sync_on_compute=False).to(device)
    network.eval()
    with torch.no_grad():
        for chosen in batches(torch.arange(len(test.labels)), TEST_BATCH):
            accuracy.update(network(test.at(chosen)), test.labels_at(chosen).to(device))
    return float(accuracy.compute())


def _batch(data: LabelledImages, size: int, step: int, key: RandomKey) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return images, labels and weights of batch ``step``: each pass over the set is one keyed shuffle, cut up."""
    passed, position = divmod(step, batch_count(len(data.labels), size))
    order = torch.randperm(len(data.labels), generator=key.fold("order", passed).generator())
    chosen = batch_at(order, size, position)
    images = data.at(chosen)
    weights = data.weights if isinstance(data, SmallSet) else None
    soft_labels = data.soft_labels if isinstance(data, SmallSet) else None
    targets = data.labels if soft_labels is None else soft_labels
    return (
        images,
        sent(targets[sent(chosen, targets.device)], images.device),
        None if weights is None else weights[sent(chosen, weights.device)].to(images),
    )


def _augmented(
    images: Tensor, labels: Tensor, recipe: Recipe, num_classes: int, key: RandomKey
) -> tuple[Tensor, Tensor]:
    height, width = images.shape[-2:]
    draw = recipe.augmentation.draw(key.fold("augment"), (height, width), samples=len(images))
    images = recipe.augmentation.apply(images, draw)
    return mixed(images, labels, recipe.cutmix, num_classes, key.fold("cutmix"))


def weighted(labels: Tensor, weights: Tensor, num_classes: int) -> Tensor:
    """Return soft labels ``(n, num_classes)`` whose mean cross-entropy is ``sum(w * l) / sum(w)``.

    Cross-entropy is linear in the target, so that a weight can be carried by the label. An image that CutMix mixed
    counts with its own weight. A batch whose weights are all 0 has loss 0.

    Args:
        labels: ``(n,)``, or soft ones ``(n, num_classes)``.
        weights: ``(n,)``, 0 or more.
        num_classes: Length of a soft label.
    """
    soft = labels if labels.ndim > 1 else F.one_hot(labels, num_classes)
    share = weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    return soft.to(weights.dtype) * (len(weights) * share).unsqueeze(1)
