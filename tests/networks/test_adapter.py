from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn
from torch.func import functional_call, jvp, vmap

from lit_condense.errors import SettingsError
from lit_condense.networks import AdaptedNetwork, CondensableNetwork, ConvNet, FeaturesAndLogits, as_condensable

IMAGES = torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2)


def foreign():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 5))


def test_features_of_a_foreign_sequential_are_the_input_of_its_last_layer():
    module = foreign()
    network = as_condensable(module, 5)
    expected = module[:3](IMAGES)
    assert torch.equal(network.features(IMAGES), expected)
    assert torch.equal(network(IMAGES), module(IMAGES))
    assert torch.equal(network.classifier(expected), network(IMAGES))
    assert network.classifier is module[3]


def test_parameters_are_the_foreign_ones_each_once_and_in_order():
    module = foreign()
    keys = list(module.state_dict())
    network = as_condensable(module, 5)
    assert [id(parameter) for parameter in network.parameters()] == [id(parameter) for parameter in module.parameters()]
    assert list(network.state_dict()) == [f"module.{key}" for key in keys]
    assert list(network.module.state_dict()) == keys


def test_the_features_of_torchvision_resnet18_are_its_pooled_maps():
    module = torchvision.models.resnet18(num_classes=10).eval()
    network = as_condensable(module, 10)
    images = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    with torch.no_grad():
        features = network.features(images)
        body = nn.Sequential(*list(module.children())[:-1])
        torch.testing.assert_close(features, body(images).flatten(1))
        torch.testing.assert_close(network(images), network.classifier(features))
    assert network.classifier is module.fc


def test_own_networks_and_those_that_declare_the_contract_stay_as_they_are():
    class Declared(CondensableNetwork):
        def __init__(self):
            super().__init__()
            self.extra = nn.Linear(5, 5)
            self.classifier = nn.Linear(12, 5)

        def features(self, images):
            return images.flatten(1)

    for network in (ConvNet(3, 8, 5, width=4), Declared()):
        assert as_condensable(network, 5) is network


def test_a_foreign_attribute_called_features_is_no_declaration():
    module = torchvision.models.alexnet(num_classes=10)
    network = as_condensable(module, 10)
    assert isinstance(network, AdaptedNetwork)
    assert network.classifier is module.classifier[6]


@pytest.mark.parametrize("make", [foreign, lambda: ConvNet(3, 2, 5, width=4, depth=1)])
def test_features_and_logits_use_the_tensors_they_are_given(make):
    network = as_condensable(make(), 5)
    tensors = {name: parameter + 0.3 for name, parameter in network.named_parameters()}
    changed = copy.deepcopy(network)
    changed.load_state_dict(tensors)
    features, logits = FeaturesAndLogits(network).with_tensors(tensors, IMAGES)
    torch.testing.assert_close(features, changed.features(IMAGES))
    torch.testing.assert_close(logits, changed(IMAGES))
    torch.testing.assert_close(functional_call(network, tensors, (IMAGES,)), logits)
    own_features, own_logits = FeaturesAndLogits(network)(IMAGES)
    assert torch.equal(own_features, network.features(IMAGES))
    assert torch.equal(own_logits, network(IMAGES))
    assert not torch.allclose(own_logits, logits)


def test_features_carry_derivatives_through_transforms_of_torch_func():
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 5)).double()
    network, images = as_condensable(smooth, 5), IMAGES.double()
    tensors = {name: parameter.detach() for name, parameter in network.named_parameters()}
    tangents = {name: torch.ones_like(tensor) for name, tensor in tensors.items()}

    def features(tensors):
        return FeaturesAndLogits(network).with_tensors(tensors, images)[0]

    _, forward = jvp(features, (tensors,), (tangents,))
    step = 1e-5
    ahead = features({name: tensor + step for name, tensor in tensors.items()})
    back = features({name: tensor - step for name, tensor in tensors.items()})
    torch.testing.assert_close(forward, (ahead - back) / (2 * step), rtol=1e-6, atol=1e-8)
    stacked = {name: torch.stack([tensor, tensor + 1]) for name, tensor in tensors.items()}
    both = vmap(features)(stacked)
    torch.testing.assert_close(both[1], features({name: tensor + 1 for name, tensor in tensors.items()}))


@pytest.mark.parametrize("make", [foreign, lambda: ConvNet(3, 2, 5, width=4, depth=1)])
def test_features_and_logits_trace_into_one_graph(make):
    network = as_condensable(make(), 5)
    both = FeaturesAndLogits(network)
    compiled = torch.compile(both.with_tensors, fullgraph=True, backend="eager")
    for found, expected in zip(compiled(dict(network.named_parameters()), IMAGES), both(IMAGES), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_show_their_own_features(copied):
    network = as_condensable(foreign(), 5)
    network(IMAGES)
    other = copied(network)
    with torch.no_grad():
        other.module[1].bias.add_(1)
    assert torch.equal(other.features(IMAGES), other.module[:3](IMAGES))
    assert torch.equal(network.features(IMAGES), network.module[:3](IMAGES))
    assert not torch.equal(other.features(IMAGES), network.features(IMAGES))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 5, 2), nn.Flatten()),
            r"Sequential needs a last nn.Linear with 5 outputs, but has no nn.Linear \(it holds Conv2d, Flatten\)",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 5)),
            r"linear layers are '1' \(12 to 5\), '3' \(5 to 5\), of which 2 have 5 outputs: derive the network from",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 7)),
            r"exactly one .* as the last .* '3' \(5 to 7\), of which 1 have 5 outputs",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 7)), r"linear layers are '1' \(12 to 7\), of which 0 have 5"),
        (nn.Linear(12, 5), r"Linear is itself the only linear layer: wrap it in nn.Sequential"),
    ],
)
def test_modules_without_one_clear_last_layer_are_refused_with_what_was_found(module, message):
    with pytest.raises(SettingsError, match=message):
        as_condensable(module, 5)


def test_a_last_layer_that_runs_twice_is_refused_and_leaves_nothing_behind():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(12, 5)

        def forward(self, images):
            return self.head(images.flatten(1)) + self.head(-images.flatten(1))

    network = as_condensable(Twice(), 5)
    with pytest.raises(SettingsError, match=r"Twice should run its last linear layer 'head' once .* ran it 2 times"):
        network.features(IMAGES)
    assert network._seen == []
