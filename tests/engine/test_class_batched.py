"""Classes through the network at once: which networks may, and that it is the same as one after the other.

That whole updates agree with the literal oracle for blocks of 3 and 5 classes is in test_engine.py and tests/methods.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_condense.engine import Engine
from lit_condense.engine.class_batched import goes_together, observe_together
from lit_condense.engine.forward import Forward
from lit_condense.engine.quantities import observe
from lit_condense.networks import FeaturesAndLogits, LeNet, build_network
from lit_condense.networks.adapter import as_condensable
from lit_condense.rng import RandomKey
from tests.helpers import tiny_convnet


def images_of(k, n, size=(8, 8)):
    return torch.randn(k, n, 2, *size, generator=torch.Generator().manual_seed(k + n), dtype=torch.float64)


def forward_of(factory, size=(8, 8), with_outputs=True):
    network = build_network(factory, 2, size, 5, RandomKey(2), needs_features=with_outputs).double()
    return Forward(network, "exact", FeaturesAndLogits(network) if with_outputs else None)


class Foreign(nn.Sequential):
    """A classifier that shows no features by itself."""

    def __init__(self, in_channels, image_size, num_classes, *layers):
        cells = in_channels * image_size[0] * image_size[1]
        super().__init__(nn.Flatten(), nn.Linear(cells, 6), *layers, nn.Tanh(), nn.Linear(6, num_classes))


class Dropping(Foreign):
    def __init__(self, **settings):
        super().__init__(*settings.values(), nn.Dropout(0.5))


class Jittering(Foreign):
    """Draws without a layer that says so."""

    def forward(self, images):
        return super().forward(images + torch.rand_like(images))


FITTING = {
    "instance": tiny_convnet("instance"),
    "group": tiny_convnet("group"),
    "none": tiny_convnet("none"),
    "foreign": Foreign,
}


@pytest.mark.parametrize(
    "needs", [{"gradients"}, {"features"}, {"logits"}, {"gradients", "features", "logits"}], ids=str
)
@pytest.mark.parametrize("factory", FITTING.values(), ids=FITTING)
def test_blocks_at_once_are_the_blocks_one_by_one_with_both_derivatives(factory, needs):
    forward, labels = forward_of(factory), torch.tensor([[0, 0, 0], [4, 4, 4], [2, 2, 2]])
    images = images_of(3, 3).requires_grad_()

    def seen(quantities):
        tensors = quantities.tensors()
        loss = sum(tensor.cos().sum() for tensor in tensors)
        return [*tensors, torch.autograd.grad(loss, images)[0]]

    together = seen(observe_together(forward, images, labels, frozenset(needs)))
    apart = seen(observe(forward, images, labels, frozenset(needs), True, [None] * 3))
    assert len(together) == len(apart) > 1
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("with_outputs", [False, True])
@pytest.mark.parametrize("factory", FITTING.values(), ids=FITTING)
def test_networks_without_batch_statistics_and_draws_go_together(factory, with_outputs):
    assert goes_together(forward_of(factory, with_outputs=with_outputs), images_of(1, 1)[0, 0])


UNFIT = {
    "batch norm": tiny_convnet("batch"),
    "layer norm, whose double backward vmap gets wrong": tiny_convnet("layer"),
    "dropout": Dropping,
    "undeclared draws": Jittering,
}


@pytest.mark.parametrize("factory", UNFIT.values(), ids=UNFIT)
def test_others_go_one_by_one(factory):
    forward = forward_of(factory, with_outputs=False)
    before = {name: value.clone() for name, value in forward.network.state_dict().items()}
    assert not goes_together(forward, images_of(1, 1)[0, 0])
    assert all(torch.equal(value, before[name]) for name, value in forward.network.state_dict().items())
    engine = Engine(classes_per_block=3).start(forward.network, images_of(1, 4)[0])
    assert engine.route.endswith("class by class")


def test_published_networks_with_max_pooling_go_together():
    assert goes_together(forward_of(LeNet, (32, 32)), images_of(1, 1, (32, 32))[0, 0])


def test_an_adapted_network_may_be_asked_for_logits_alone():
    network = as_condensable(Foreign(2, (8, 8), 5).double(), 5)
    forward = Forward(network, "exact", FeaturesAndLogits(network))
    seen = observe_together(forward, images_of(2, 1), torch.tensor([[0], [1]]), frozenset({"logits"}))
    assert seen.logits.shape == (2, 1, 5)
    assert seen.features is None
    assert seen.gradients == {}
