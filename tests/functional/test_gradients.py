from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_condense.functional.gradients import class_gradients
from lit_condense.networks import MLP, build_network
from lit_condense.rng import RandomKey
from tests.helpers import tiny_convnet
from tests.oracles import dc as oracle

CLASSES, IMAGES = 3, 4


def network_of(factory):
    return build_network(factory, 2, (8, 8), CLASSES, RandomKey(1)).double()


def batch(seed=0):
    images = torch.randn(CLASSES, IMAGES, 2, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = torch.arange(CLASSES)[:, None].expand(CLASSES, IMAGES)
    return images, labels


NETWORKS = {"instance": tiny_convnet(), "batch": tiny_convnet("batch"), "layer": tiny_convnet("layer"), "MLP": MLP}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_block_has_the_gradient_of_its_own_mean_loss(name):
    network = network_of(NETWORKS[name])
    images, labels = batch()
    gradients = class_gradients(network, images, labels)
    assert list(gradients) == [name for name, _ in network.named_parameters()]
    for c in range(CLASSES):
        literal = oracle.network_gradient(network, images[c], c)
        for found, wanted in zip(gradients.values(), literal, strict=True):
            assert found.shape == (CLASSES, *wanted.shape)
            torch.testing.assert_close(found[c], wanted, rtol=1e-11, atol=1e-14)


def test_labels_may_differ_inside_a_block():
    network = network_of(tiny_convnet())
    images, _ = batch()
    labels = torch.tensor([[0, 1, 2, 0], [1, 1, 1, 1], [2, 0, 2, 0]])
    gradients = class_gradients(network, images, labels)
    parameters = list(network.parameters())
    for c in range(CLASSES):
        literal = torch.autograd.grad(oracle.cross_entropy(network(images[c]), labels[c]), parameters)
        for found, wanted in zip(gradients.values(), literal, strict=True):
            torch.testing.assert_close(found[c], wanted, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", NETWORKS)
def test_with_a_graph_the_gradients_can_be_differentiated_in_the_images(name):
    network = network_of(NETWORKS[name])
    images, labels = batch()
    images.requires_grad_()
    gradients = class_gradients(network, images, labels, create_graph=True)
    found = torch.autograd.grad(sum(g.square().sum() for g in gradients.values()), images)[0]
    for c in range(CLASSES):
        leaf = images[c].detach().clone().requires_grad_()
        literal = oracle.network_gradient(network, leaf, c, create_graph=True)
        wanted = torch.autograd.grad(sum(g.square().sum() for g in literal), leaf)[0]
        torch.testing.assert_close(found[c], wanted, rtol=1e-10, atol=1e-14)


def test_without_a_graph_nothing_can_be_differentiated():
    images, labels = batch()
    gradients = class_gradients(network_of(tiny_convnet()), images.requires_grad_(), labels)
    assert not any(g.requires_grad for g in gradients.values())


def test_frozen_parameters_are_left_out():
    network = network_of(tiny_convnet())
    network.classifier.weight.requires_grad_(False)
    names = list(class_gradients(network, *batch()))
    assert "classifier.weight" not in names
    assert "classifier.bias" in names


def test_nothing_is_left_in_grad_and_weights_and_mode_stay():
    network = network_of(tiny_convnet())
    before = [p.detach().clone() for p in network.parameters()]
    class_gradients(network, *batch())
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))
    assert network.training


def test_images_and_labels_of_different_numbers_of_blocks_are_refused():
    images, labels = batch()
    with pytest.raises(ValueError, match="argument"):
        class_gradients(network_of(tiny_convnet()), images, labels[:2])


class Branching(nn.Module):
    """Two inputs to the head with parameters of unequal shapes, one of them a scalar."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        self.wide = nn.Linear(2 * 8 * 8, 6, dtype=torch.float64)
        self.head = nn.Linear(7, CLASSES, bias=False, dtype=torch.float64)

    def forward(self, images):
        flat = images.flatten(1)
        return self.head(torch.cat([self.scale * self.wide(flat).tanh(), flat.square().mean(1, keepdim=True)], dim=1))


def test_any_module_with_parameters_of_unequal_shapes_works():
    generator = torch.Generator().manual_seed(4)
    network = Branching()
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    images, labels = batch(1)
    gradients = class_gradients(network, images, labels)
    assert gradients["scale"].shape == (CLASSES,)
    for c in range(CLASSES):
        literal = oracle.network_gradient(network, images[c], c)
        for found, wanted in zip(gradients.values(), literal, strict=True):
            torch.testing.assert_close(found[c], wanted, rtol=1e-11, atol=1e-14)
