"""Importance sampling written out: one image, one draw at a time, float64, nothing shared with the package.

Of a class of N images, image i is drawn with probability p_i and counts 1 / (N p_i). Sources: Zhao and Zhang, ICML
2015; Katharopoulos and Fleuret, ICML 2018.
"""

from __future__ import annotations

import itertools
import math

import torch

from tests.oracles.dc import sum_of
from tests.oracles.methods import sample_gradients


def last_layer_norms(network, images, label):
    """The norm of each image's gradient in the classifier, by autograd."""
    return [
        math.sqrt(float(sum_of(entry * entry for entry in row))) for row in sample_gradients(network, images, label)
    ]


def probabilities(norms, uniform):
    total = sum(norms)
    return [(1 - uniform) * norm / total + uniform / len(norms) for norm in norms]


def counts(chances, drawn):
    """What each drawn image counts."""
    return [1 / (len(chances) * chances[i]) for i in drawn]


def every_draw(chances, size):
    """Every sequence of ``size`` images that can be drawn, with its probability."""
    for drawn in itertools.product(range(len(chances)), repeat=size):
        yield drawn, math.prod(chances[i] for i in drawn)


def image_gradients(network, images, label):
    """The gradient of each image's cross-entropy in all parameters, in a row: (N, parameters)."""
    rows = []
    for image in images:
        loss = -network(image[None]).log_softmax(1)[0, label]
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]))
    return torch.stack(rows)


def weighted_mean(rows, chances, drawn):
    """The mean over a draw of what each image has, each by what it counts."""
    return sum_of(count * rows[i] for count, i in zip(counts(chances, drawn), drawn, strict=True)) / len(drawn)


def weighted_variance(rows, chances, drawn):
    """Of a draw: the weighted mean square less the mean product of all pairs of different draws."""
    weighted = [count * rows[i] for count, i in zip(counts(chances, drawn), drawn, strict=True)]
    pairs = [weighted[a] * weighted[b] for a in range(len(drawn)) for b in range(len(drawn)) if a != b]
    return weighted_mean([row * row for row in rows], chances, drawn) - sum_of(pairs) / len(pairs)


def variance(rows):
    """Over all images, divisor N."""
    mean = sum_of(rows) / len(rows)
    return sum_of((row - mean) * (row - mean) for row in rows) / len(rows)
