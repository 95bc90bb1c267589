from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lit_condense.functional.curvature import (
    last_layer_gradient_variance,
    last_layer_gradients,
    last_layer_hessian_diagonal,
)
from lit_condense.functional.last_layer_geometry import gradient_norms

CLOSE = {"rtol": 1e-8, "atol": 1e-12}
SIZES = [(5, 3, 4), (2, 1, 2), (7, 6, 3)]
"""Samples, features, classes."""


def noise(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sample(n, d, classes, scale=1.0):
    """Features, weights, biases and labels of a last layer."""
    features, weight, bias = (noise(*s, seed=i) for i, s in enumerate([(n, d), (classes, d), (classes,)]))
    return features, scale * weight, scale * bias, torch.arange(n) % classes


def flat_layer(bias, weight):
    return torch.cat([bias, weight.flatten()])


def loss_of_layer(flat, feature, label, classes):
    """Cross-entropy of one sample as a function of the layer, biases first."""
    bias, weight = flat[:classes], flat[classes:].view(classes, -1)
    return F.cross_entropy((weight @ feature + bias)[None], label[None])


def logits_of(features, weight, bias):
    return features @ weight.T + bias


@pytest.mark.parametrize("scale", [1.0, 20.0], ids=["unsure", "sure"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gradients_are_those_of_autograd_sample_by_sample(sizes, scale):
    features, weight, bias, labels = sample(*sizes, scale)
    found = last_layer_gradients(features, logits_of(features, weight, bias), labels)
    assert found.shape == (sizes[0], sizes[2] * (sizes[1] + 1))
    for row, feature, label in zip(found, features, labels, strict=True):
        wanted = torch.func.grad(loss_of_layer)(flat_layer(bias, weight), feature, label, sizes[2])
        torch.testing.assert_close(row, wanted, **CLOSE)


@pytest.mark.parametrize("scale", [1.0, 20.0], ids=["unsure", "sure"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_norms_are_those_of_the_gradients_and_of_autograd(sizes, scale):
    features, weight, bias, labels = sample(*sizes, scale)
    logits = logits_of(features, weight, bias)
    found = gradient_norms(features, logits, labels)
    torch.testing.assert_close(found, last_layer_gradients(features, logits, labels).norm(dim=1), **CLOSE)
    for norm, feature, label in zip(found, features, labels, strict=True):
        wanted = torch.func.grad(loss_of_layer)(flat_layer(bias, weight), feature, label, sizes[2])
        torch.testing.assert_close(norm, wanted.norm(), **CLOSE)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_hessian_diagonal_is_the_diagonal_of_the_whole_hessian(sizes):
    features, weight, bias, labels = sample(*sizes)
    found = last_layer_hessian_diagonal(features, logits_of(features, weight, bias), labels)
    for row, feature, label in zip(found, features, labels, strict=True):
        hessian = torch.func.hessian(loss_of_layer)(flat_layer(bias, weight), feature, label, sizes[2])
        torch.testing.assert_close(row, hessian.diagonal(), **CLOSE)
    assert (found >= 0).all()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_variance_is_the_unbiased_one_of_the_stacked_gradients(sizes):
    features, weight, bias, labels = sample(*sizes)
    per_sample = [
        torch.func.grad(loss_of_layer)(flat_layer(bias, weight), feature, label, sizes[2])
        for feature, label in zip(features, labels, strict=True)
    ]
    found = last_layer_gradient_variance(features, logits_of(features, weight, bias), labels)
    torch.testing.assert_close(found, torch.var(torch.stack(per_sample), dim=0), **CLOSE)


def test_bias_coordinates_are_variances_of_the_softmax_error():
    features, weight, bias, labels = sample(6, 3, 4)
    logits = logits_of(features, weight, bias)
    error = logits.softmax(1) - torch.eye(4, dtype=torch.float64)[labels]
    mean = error.sum(0) / 6
    wanted = ((error - mean) ** 2).sum(0) / 5
    torch.testing.assert_close(last_layer_gradient_variance(features, logits, labels)[:4], wanted, **CLOSE)


def test_nothing_is_divided_by_the_number_of_samples():
    features, weight, bias, labels = sample(6, 3, 4)
    logits = logits_of(features, weight, bias)
    for function in (last_layer_gradients, last_layer_hessian_diagonal):
        together = function(features, logits, labels)
        apart = [function(features[i : i + 1], logits[i : i + 1], labels[i : i + 1]) for i in range(6)]
        torch.testing.assert_close(together, torch.cat(apart), rtol=1e-14, atol=1e-16)


def test_the_variance_does_not_depend_on_the_order_of_samples():
    features, weight, bias, labels = sample(6, 3, 4)
    logits, turned = logits_of(features, weight, bias), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(
        last_layer_gradient_variance(features[turned], logits[turned], labels[turned]),
        last_layer_gradient_variance(features, logits, labels),
        rtol=1e-13,
        atol=1e-15,
    )


def test_everything_is_differentiable_in_the_features():
    features, weight, bias, labels = sample(4, 2, 3)

    def variance(x):
        return last_layer_gradient_variance(x, logits_of(x, weight, bias), labels)

    assert torch.autograd.gradcheck(variance, features.requires_grad_())
    assert torch.autograd.gradgradcheck(variance, features)


def test_one_sample_has_no_variance():
    features, weight, bias, labels = sample(1, 3, 4)
    with pytest.raises(ValueError, match="at least 2 samples"):
        last_layer_gradient_variance(features, logits_of(features, weight, bias), labels)


def test_a_label_is_needed_for_every_sample():
    features, weight, bias, labels = sample(5, 3, 4)
    with pytest.raises(ValueError, match="one label for each of the 5 samples, got 4"):
        last_layer_hessian_diagonal(features, logits_of(features, weight, bias), labels[:4])
