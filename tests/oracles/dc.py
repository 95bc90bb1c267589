"""Gradient matching written out: one class at a time, one row at a time, float64, nothing shared with the package.

A *gradient* here is the list of a network's parameter gradients, in the network's order; ``real`` and ``synthetic`` are
two of them, for one class. Sources: Zhao et al., ICLR 2021 (DC), Jiang et al., 2022 (EGM), Kim et al., ICML 2022 (IDC).
"""

from __future__ import annotations

import copy

import torch
from torch import nn


def norm(vector):
    """The Euclidean norm, whose derivative at 0 is taken as 0."""
    squared = (vector * vector).sum()
    return squared.sqrt() if float(squared.detach()) > 0 else squared * 0


def sum_of(terms):
    total = 0.0
    for term in terms:
        total = total + term
    return total


def rows(tensor):
    """What belongs to each output unit, as flat vectors; a bias, norm scale or shift (at most 1-D) has none."""
    return [] if tensor.ndim <= 1 else [row.reshape(-1) for row in tensor]


def row_pairs(real, synthetic):
    for a, b in zip(real, synthetic, strict=True):
        yield from zip(rows(a), rows(b), strict=True)


def entries(gradient):
    return torch.cat([tensor.reshape(-1) for tensor in gradient])


def row_cosine(real, synthetic):
    """DC: the epsilon is added to the product of the norms."""
    return sum_of(1 - (a * b).sum() / (norm(a) * norm(b) + 1e-6) for a, b in row_pairs(real, synthetic))


def row_cosine_clamped(real, synthetic):
    """EGM's plain distance: each norm is at least 1e-8, nothing is added."""
    total = 0.0
    for a, b in row_pairs(real, synthetic):
        total = total + 1 - (a * b).sum() / (at_least(norm(a), 1e-8) * at_least(norm(b), 1e-8))
    return total


def row_cosine_norm(real, synthetic):
    """EGM's improved distance: the norm of the rows' difference is added."""
    return row_cosine_clamped(real, synthetic) + sum_of(norm(a - b) for a, b in row_pairs(real, synthetic))


def squared_l2(real, synthetic):
    return sum_of(((a - b) ** 2).sum() for a, b in zip(real, synthetic, strict=True))


def l1(real, synthetic):
    return sum_of(magnitude(a - b).sum() for a, b in zip(real, synthetic, strict=True))


def l1_mean(real, synthetic):
    """IDC: the mean of each row, summed; rows run along dimension 0, so each entry of a 1-D tensor is one."""
    total = 0.0
    for a, b in zip(real, synthetic, strict=True):
        for row_a, row_b in zip(torch.atleast_1d(a), torch.atleast_1d(b), strict=True):
            total = total + magnitude(row_a - row_b).sum() / row_a.numel()
    return total


def global_cosine(real, synthetic):
    a, b = entries(real), entries(synthetic)
    return 1 - (a * b).sum() / (norm(a) * norm(b) + 1e-6)


def at_least(number, least):
    return number if float(number.detach()) >= least else torch.full_like(number, least)


def magnitude(tensor):
    return tensor * tensor.detach().sign()


DISTANCES = {
    "row_cosine": row_cosine,
    "row_cosine_clamped": row_cosine_clamped,
    "row_cosine_norm": row_cosine_norm,
    "squared_l2": squared_l2,
    "l1": l1,
    "l1_mean": l1_mean,
    "global_cosine": global_cosine,
}


def cross_entropy(logits, labels):
    """The mean over a batch of minus the log-probability of the label."""
    total = 0.0
    for row, label in zip(logits, labels.tolist(), strict=True):
        total = total - (row[label] - row.logsumexp(0))
    return total / len(logits)


def network_gradient(network, images, label, create_graph=False):
    labels = torch.full((len(images),), label)
    loss = cross_entropy(network(images), labels)
    return list(torch.autograd.grad(loss, list(network.parameters()), create_graph=create_graph))


def class_losses(network, synthetic, real, distance):
    """Return D(g_T, g_S) of each class; ``synthetic`` and ``real`` hold one batch of images a class."""
    losses = []
    for label, (syn, images) in enumerate(zip(synthetic, real, strict=True)):
        target = [g.detach() for g in network_gradient(network, images, label)]
        losses.append(distance(target, network_gradient(network, syn, label, create_graph=True)))
    return losses


def image_gradient(network, images, labels, real, terms, view=lambda images: images):
    """Return the summed value of each term and the gradient of their weighted sum in the stored images.

    ``terms`` are pairs (weight, distance); ``view`` leads from the stored images to what the network sees.
    """
    leaf = images.clone().requires_grad_()
    blocks = [view(leaf)[labels == c] for c in range(len(real))]
    values = [sum_of(class_losses(network, blocks, real, distance)) for _, distance in terms]
    total = sum_of(weight * value for (weight, _), value in zip(terms, values, strict=True))
    gradient = torch.autograd.grad(total, leaf)[0]
    return [float(value.detach()) for value in values], gradient


def freeze_batch_norm(network, images, keep):
    """Set running statistics from one forward pass of real images in training mode and switch batch norm to eval.

    ``keep`` is the share of the old statistics that stays: 0 for those of the batch, 0.9 for the moving average.
    """
    seen = {}
    layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.__setitem__(name, inputs[0].detach()))
        for name, layer in layers.items()
    ]
    copy_of_statistics = copy.deepcopy({name: (m.running_mean, m.running_var) for name, m in layers.items()})
    with torch.no_grad():
        network.train()(images)
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        mean, variance = channel_statistics(seen[name])
        old_mean, old_variance = copy_of_statistics[name]
        layer.running_mean.copy_(keep * old_mean + (1 - keep) * mean)
        layer.running_var.copy_(keep * old_variance + (1 - keep) * variance)
        layer.eval()


def channel_statistics(maps):
    """Mean and unbiased variance of each channel of (n, C, H, W)."""
    columns = maps.transpose(0, 1).reshape(maps.shape[1], -1)
    mean = columns.sum(1) / columns.shape[1]
    variance = ((columns - mean[:, None]) ** 2).sum(1) / (columns.shape[1] - 1)
    return mean, variance


class Sgd:
    """Stochastic gradient descent with momentum and weight decay, as every program of the field means it."""

    def __init__(self, lr, momentum=0.0, weight_decay=0.0):
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.velocity = {}

    def step(self, parameters, gradients):
        with torch.no_grad():
            for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
                change = gradient + self.weight_decay * parameter
                if number in self.velocity:
                    change = self.momentum * self.velocity[number] + change
                self.velocity[number] = change
                parameter -= self.lr * change


def train_step(network, sgd, images, labels):
    parameters = list(network.parameters())
    loss = cross_entropy(network(images), labels)
    sgd.step(parameters, torch.autograd.grad(loss, parameters))


def train_epochs(network, sgd, images, labels, orders, batch_size):
    """Train for one epoch over each order, in batches."""
    for order in orders:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            train_step(network, sgd, images[chosen], labels[chosen])


def condense(
    start,
    labels,
    draws,
    terms,
    updates,
    updates_per_network,
    epochs,
    batch_size,
    inner,
    outer,
    view=lambda images: images,
    project=lambda images: images,
    clamp="never",
):
    """Return the images before the first update and after each one: [start, after update 0, ...].

    Args:
        start: First images, float64.
        labels: Their labels.
        draws: Offers ``network(index)``, ``real(update)`` (one batch a class), ``order(network, match, epoch)`` and
            ``statistics(update)`` (a mixed batch, for networks with batch norm).
        terms: Pairs (weight, distance).
        updates: Number of image updates.
        updates_per_network: After so many, the network is replaced by a fresh one.
        epochs: Epochs over the synthetic set after each update but a network's last.
        batch_size: Batch of that training.
        inner: Makes a network's Sgd.
        outer: The images' Sgd.
        view: From the stored images to what networks see.
        project: Brings stored images back to the range of real ones.
        clamp: When that is done: "never", "every_update" or (before each new network) "every_network".
    """
    images = start.clone()
    history = [images.clone()]
    for update in range(updates):
        network_index, match_index = divmod(update, updates_per_network)
        if match_index == 0:
            images = project(images) if clamp == "every_network" else images
            network, sgd = draws.network(network_index), inner()
        if any(isinstance(m, nn.BatchNorm2d) for m in network.modules()):
            freeze_batch_norm(network, draws.statistics(update), keep=0.0)
        _, gradient = image_gradient(network, images, labels, draws.real(update), terms, view)
        outer.step([images], [gradient])
        images = project(images) if clamp == "every_update" else images
        history.append(images.clone())
        if match_index + 1 < updates_per_network:
            orders = [draws.order(network_index, match_index, epoch) for epoch in range(epochs)]
            train_epochs(network.train(), sgd, view(images), labels, orders, batch_size)
    return history
