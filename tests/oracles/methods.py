"""The methods after DC written out: one class, one image, one row at a time, float64, nothing shared with the package.

A *term* is a function ``(network, synthetic, real) -> loss`` of one batch of images a class on each side. Sources:
Jiang et al., 2022 (EGM); Lee et al., ICML 2022 (DCC); Zhao and Bilen, WACV 2023 (DM); Kim et al., ICML 2022 (IDC); Shin
et al., AISTATS 2023 (LCMat-C).
"""

from __future__ import annotations

import torch

from tests.oracles.dc import (
    cross_entropy,
    magnitude,
    network_gradient,
    row_cosine,
    row_cosine_norm,
    sum_of,
    train_epochs,
)

# ------------------------------------------------------------------ from stored images to the gradient in them


def image_gradient(network, stored, labels, real, terms, view=lambda c, images: images):
    """Return the value of each term and the gradient of their weighted sum in the stored images.

    ``terms`` are pairs (weight, term); ``view(c, images)`` leads from the stored images of class c to those that the
    network sees; ``real`` holds what it sees on the other side.
    """
    leaf = stored.clone().requires_grad_()
    synthetic = [view(c, leaf[labels == c]) for c in range(len(real))]
    values = [term(network, synthetic, real) for _, term in terms]
    total = sum_of(weight * value for (weight, _), value in zip(terms, values, strict=True))
    return [float(value.detach()) for value in values], torch.autograd.grad(total, leaf)[0]


# ------------------------------------------------------------------ gradients


def class_gradients(network, batches, create_graph=False):
    return [network_gradient(network, images, c, create_graph) for c, images in enumerate(batches)]


def mean_gradient(gradients):
    """The mean over classes of each parameter's gradient."""
    return [sum_of(tensors) / len(gradients) for tensors in zip(*gradients, strict=True)]


def whole_set_gradient(network, batches, create_graph=False):
    """The gradient of the mean cross-entropy of all images of all classes, in one forward pass."""
    labels = torch.cat([torch.full((len(images),), c) for c, images in enumerate(batches)])
    loss = cross_entropy(network(torch.cat(list(batches))), labels)
    return list(torch.autograd.grad(loss, list(network.parameters()), create_graph=create_graph))


def detached(gradient):
    return [tensor.detach() for tensor in gradient]


def intra(distance):
    """Class by class."""

    def term(network, synthetic, real):
        pairs = zip(class_gradients(network, real), class_gradients(network, synthetic, create_graph=True), strict=True)
        return sum_of(distance(detached(target), gradient) for target, gradient in pairs)

    return term


def inter(distance, factor):
    """Between the means over classes, times a factor."""

    def term(network, synthetic, real):
        target = detached(mean_gradient(class_gradients(network, real)))
        return factor * distance(target, mean_gradient(class_gradients(network, synthetic, create_graph=True)))

    return term


def egm(factor):
    """EGM's whole loss: both levels, with its distance."""

    def term(network, synthetic, real):
        parts = (intra(row_cosine_norm), inter(row_cosine_norm, factor))
        return sum_of(part(network, synthetic, real) for part in parts)

    return term


def dcc(network, synthetic, real):
    """DCC after its warm-up: the whole synthetic set in one forward pass, against the mean real class gradient."""
    target = detached(mean_gradient(class_gradients(network, real)))
    return row_cosine(target, whole_set_gradient(network, synthetic, create_graph=True))


def convolutions_only(distance):
    """IDC: biases, norms and the classifier take no part."""

    def of_weights(real, synthetic):
        kept = [(a, b) for a, b in zip(real, synthetic, strict=True) if a.ndim == 4]
        return distance([a for a, _ in kept], [b for _, b in kept])

    return of_weights


# ------------------------------------------------------------------ features


def features_of(network, images):
    """What a ConvNet's linear layer reads."""
    return network.blocks(images).reshape(len(images), -1)


def squared_difference_of_means(a, b):
    difference = sum_of(a) / len(a) - sum_of(b) / len(b)
    return sum_of(entry * entry for entry in difference)


def dm(network, synthetic, real):
    """One class at a time through the network."""
    return sum_of(
        squared_difference_of_means(features_of(network, images).detach(), features_of(network, syn))
        for syn, images in zip(synthetic, real, strict=True)
    )


def dm_l1(network, synthetic, real):
    """DREAM+ under its l1 metric: absolute differences in place of squares."""
    total = 0.0
    for syn, images in zip(synthetic, real, strict=True):
        target = sum_of(features_of(network, images).detach()) / len(images)
        total = total + magnitude(target - sum_of(features_of(network, syn)) / len(syn)).sum()
    return total


def dm_joint(network, synthetic, real):
    """All classes through the network at once, real and synthetic apart; then class by class."""
    sides = [features_of(network, torch.cat(list(side))) for side in (real, synthetic)]
    ends = [torch.tensor([0, *map(len, side)]).cumsum(0).tolist() for side in (real, synthetic)]
    total = 0.0
    for c in range(len(real)):
        a, b = (side[end[c] : end[c + 1]] for side, end in zip(sides, ends, strict=True))
        total = total + squared_difference_of_means(a.detach(), b)
    return total


# ------------------------------------------------------------------ curvature


def sample_gradients(network, images, label, create_graph=False):
    """Each image's cross-entropy gradient in the bias and the weight of the classifier, by autograd: (n, C + C * d)."""
    layer, found = network.classifier, []
    for image in images:
        loss = cross_entropy(network(image[None]), torch.tensor([label]))
        bias, weight = torch.autograd.grad(loss, (layer.bias, layer.weight), create_graph=create_graph)
        found.append(torch.cat([bias, weight.reshape(-1)]))
    return torch.stack(found)


def variances(rows):
    """Unbiased, one value a column."""
    mean = sum_of(rows) / len(rows)
    return sum_of((row - mean) * (row - mean) for row in rows) / (len(rows) - 1)


def curvature(norm):
    def term(network, synthetic, real):
        total = 0.0
        for c, (syn, images) in enumerate(zip(synthetic, real, strict=True)):
            target = variances(sample_gradients(network, images, c).detach())
            difference = target - variances(sample_gradients(network, syn, c, create_graph=True))
            total = total + (magnitude(difference) if norm == "l1" else difference * difference).sum()
        return total

    return term


# ------------------------------------------------------------------ training


def train_until_overfitting(network, sgd, images, labels, orders, batch_size, held_out, held_out_labels):
    """One epoch for each order until the loss on held-out images rises; return the epochs done."""

    def measure():
        return float(cross_entropy(network(held_out), held_out_labels).detach())

    before = measure()
    for done, order in enumerate(orders, start=1):
        train_epochs(network, sgd, images, labels, [order], batch_size)
        after = measure()
        if after > before:
            return done
        before = after
    return len(orders)


def cut_and_paste(images, partners, box):
    """Return the images with a box of their partners', and the share of each image that is its own."""
    top, bottom, left, right = box
    height, width = images.shape[-2:]
    result, covered = images.clone(), 0
    for y in range(top, bottom):
        for x in range(left, right):
            covered += 1
            for i, partner in enumerate(partners):
                result[i, :, y, x] = images[partner, :, y, x]
    return result, 1 - covered / (height * width)


def mixed_train_step(network, sgd, images, labels, partner_labels, ratio):
    """One step on the weighted sum of two cross-entropies."""
    logits = network(images)
    loss = ratio * cross_entropy(logits, labels) + (1 - ratio) * cross_entropy(logits, partner_labels)
    sgd.step(list(network.parameters()), torch.autograd.grad(loss, list(network.parameters())))


# ------------------------------------------------------------------ one tensor of all classes, stepped class by class


def shared_tensor_steps(images, gradient_of, lr, momentum, updates):
    """Step all classes' images once for each class, where only that class's gradient is not 0.

    Args:
        images: One entry a class: (C, ...).
        gradient_of: (update, class, its images) -> gradient.
        lr: Learning rate of the program.
        momentum: Its momentum.
        updates: Passes over the classes.

    Returns:
        For each update, the images of each class as they were where its gradient was taken.
    """
    images = images.clone()
    velocity = torch.zeros_like(images)
    seen = []
    for update in range(updates):
        at_gradient = []
        for c in range(len(images)):
            at_gradient.append(images[c].clone())
            gradient = torch.zeros_like(images)
            gradient[c] = gradient_of(update, c, images[c])
            velocity = momentum * velocity + gradient
            images = images - lr * velocity
        seen.append(torch.stack(at_gradient))
    return seen
