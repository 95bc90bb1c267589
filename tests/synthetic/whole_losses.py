"""Losses on the whole set, as small as they can be: one file each, no other place knows of them."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from lit_condense.matching import WholeSetLoss, WithGradient

IMAGES = 6


class Trained(WholeSetLoss):
    """Cross-entropy on real images of a network that was trained on the set: through all of its steps.

    Args:
        steps: Of training.
        lr: Step size, where the set has none.
        shared: Whether the steps' real images are shared out.
    """

    def __init__(self, steps=2, lr=0.05, weight=1.0, name=None):
        super().__init__(weight, name)
        self.steps, self.lr = steps, lr

    def loss(self, whole):
        images, targets = whole.decode(whole.leaves)
        step_size, weights = self.lr if whole.step_size is None else whole.step_size, dict(whole.parameters)
        for _ in range(self.steps):
            loss = F.cross_entropy(whole.forward(weights, images), targets)
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {name: w - step_size * slope for (name, w), slope in zip(weights.items(), slopes, strict=True)}
        return self.judged(whole, weights)

    def judged(self, whole, weights):
        chosen = whole.real.mixed(IMAGES, whole.key.fold("real"))
        real = whole.real.at(chosen).to(whole.leaves["images"].dtype)
        return F.cross_entropy(whole.forward(weights, real), whole.real.labels_at(chosen), reduction="sum")


class SharedTrained(Trained):
    """The same, judged on images that the processes share out."""

    shared = True

    def judged(self, whole, weights):
        chosen = whole.real.mixed(IMAGES, whole.key.fold("real"))
        mine = chosen[torch.tensor(whole.share.take(range(len(chosen))))]
        real = whole.real.at(mine).to(whole.leaves["images"].dtype)
        return F.cross_entropy(whole.forward(weights, real), whole.real.labels_at(mine), reduction="sum")


class OwnGradient(Trained):
    """The same, with the gradient that it has, given by itself."""

    def loss(self, whole):
        value = super().loss(whole)
        names = list(whole.leaves)
        found = torch.autograd.grad(value, list(whole.leaves.values()), allow_unused=True)
        gradients = {name: slope for name, slope in zip(names, found, strict=True) if slope is not None}
        return WithGradient(value.detach(), gradients)
