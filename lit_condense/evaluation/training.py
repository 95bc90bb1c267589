"""Train one fresh network on a set by a recipe, and test it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from lit_condense.augmentation.cutmix import mixed
from lit_condense.data.store import RealImages
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.engine.forward import Forward, per_image
from lit_condense.evaluation.protocols import Recipe
from lit_condense.rng import RandomKey
from lit_condense.transfer import sent

COMPILE_FROM_RUN_GFLOP = 10_000.0
"""Forward cost of a whole training from which compiling the step pays; below it, eager."""

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

    def at(self, indices: Tensor) -> Tensor:
        """Return normalised images ``(n, C, H, W)``."""
        return self.images[sent(indices, self.images.device)]


def train_network(
    network: nn.Module, data: LabelledImages, recipe: Recipe, key: RandomKey, max_steps: int | None = None
) -> int:
    """Train ``network`` in place on ``data`` and return the number of steps taken.

    The loss of a batch is the mean cross-entropy, or ``sum(w * l) / sum(w)`` where the data have weights.

    Args:
        network: A fresh network on the data's device.
        data: What it is trained on.
        recipe: Passes, schedule, augmentation.
        key: Names the network; every shuffle and augmentation is drawn from it.
        max_steps: Fewer steps than the recipe's, its schedule shrunk in proportion.
    """
    batches = -(-len(data.labels) // recipe.batch_size)
    steps, drops = recipe.capped(batches, max_steps)
    first = data.at(torch.arange(min(len(data.labels), recipe.batch_size)))
    heavy = per_image(network, first)[0] * len(first) * steps >= COMPILE_FROM_RUN_GFLOP
    with torch.no_grad():
        num_classes = network.eval()(first[:1]).shape[-1]
    loss = FirstOrderLoss(Forward(network, "exact"), compiled=heavy)
    network.train()
    optimizer = _optimizer(network, recipe, recipe.lr)
    with key.fold("layers").isolated():  # dropout and the like draw from the global generators
        for step in range(steps):
            lr = recipe.lr_at(step, steps, drops)
            if recipe.restart and step in drops:
                optimizer = _optimizer(network, recipe, lr)
            for group in optimizer.param_groups:
                group["lr"] = lr
            images, labels, weights = _batch(data, recipe.batch_size, step, batches, key)
            images, labels = _augmented(images, labels, recipe, num_classes, key.fold("step", step))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss(images, labels if weights is None else weighted(labels, weights, num_classes)))
            optimizer.step()
    return steps


def test_accuracy(network: nn.Module, test: RealImages) -> float:
    """Return the share of test images that the network classifies correctly, in [0, 1]."""
    device = next(network.parameters()).device
    # each rank tests networks of its own: nothing to gather here
    accuracy = MulticlassAccuracy(test.num_classes, average="micro", sync_on_compute=False).to(device)
    network.eval()
    with torch.no_grad():
        for chosen in torch.split(torch.arange(len(test.labels)), TEST_BATCH):
            accuracy.update(network(test.at(chosen)), test.labels_at(chosen).to(device))
    return float(accuracy.compute())


def _optimizer(network: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        network.parameters(),
        lr=lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


def _batch(
    data: LabelledImages, size: int, step: int, batches: int, key: RandomKey
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return images, labels and weights of batch ``step``: each pass over the set is one keyed shuffle, cut up."""
    passed, position = divmod(step, batches)
    order = torch.randperm(len(data.labels), generator=key.fold("order", passed).generator())
    chosen = order[position * size : (position + 1) * size]
    images = data.at(chosen)
    weights = data.weights if isinstance(data, SmallSet) else None
    return (
        images,
        sent(data.labels[sent(chosen, data.labels.device)], images.device),
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
