"""A loss on gradients, and a loss on the whole set that trains on it."""

import torch
from torch.nn import functional as F

from lit_condense.matching import MatchingLoss, WholeSetLoss


class SquaredGradients(MatchingLoss):
    """Squared distance of class gradients, counted by what the inner loop says."""

    def weight_at(self, progress):
        return self.weight + progress.numbers.get("loss", 0.0)

    def loss(self, real, synthetic):
        pairs = zip(real.gradients.values(), synthetic.gradients.values(), strict=True)
        return torch.stack([(a - b).square().sum() for a, b in pairs]).sum()


class Lookahead(WholeSetLoss):
    """Loss on real images after one step of training on the set."""

    def loss(self, whole):
        images, targets = whole.decode(whole.leaves)
        step_size = 0.05 if whole.step_size is None else whole.step_size
        names, weights = list(whole.parameters), list(whole.parameters.values())
        loss = F.cross_entropy(whole.forward(whole.parameters, images), targets)
        slopes = torch.autograd.grad(loss, weights, create_graph=True)
        moved = {n: w - step_size * g for n, w, g in zip(names, weights, slopes, strict=True)}
        chosen = whole.real.mixed(20, whole.key)
        return F.cross_entropy(whole.forward(moved, whole.real.at(chosen)), whole.real.labels_at(chosen))
