from __future__ import annotations

import functools
import random

import jsonargparse
import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from lit_condense.errors import SettingsError
from lit_condense.networks import (
    MLP,
    VGG11,
    AdaptedNetwork,
    AlexNet,
    ConvNet,
    LeNet,
    NetworkFactory,
    ResNet18,
    build_network,
    factory_target,
    network_name,
)
from lit_condense.rng import RandomKey

KEY = RandomKey(0).fold("network", 3)
Small = functools.partial(ConvNet, width=8)


class Foreign(nn.Module):
    """Takes the three arguments in another order; ``after`` is applied to its logits."""

    def __init__(self, num_classes, image_size, in_channels, outputs=None, after=None, bias=True):
        super().__init__()
        height, width = image_size
        self.frozen = nn.Dropout(0.5).eval()
        self.head = nn.Linear(in_channels * height * width, outputs or num_classes, bias=bias)
        self.after = after or (lambda logits: logits)

    def forward(self, images):
        return self.after(self.head(self.frozen(images.flatten(1))))


class Lazy(nn.Module):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__()
        self.head = nn.LazyLinear(num_classes)

    def forward(self, images):
        return self.head(images.flatten(1))


def from_jsonargparse(*arguments):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=NetworkFactory)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    return instantiate(parser.parse_args(list(arguments))).network


def same_weights(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("factory", [Small, functools.partial(ConvNet, width=8, norm="batch"), MLP, LeNet, Lazy])
def test_the_same_key_gives_the_same_weights_and_another_key_others(factory):
    networks = [build_network(factory, 1, (16, 16), 4, key) for key in (KEY, KEY, KEY.fold("other"))]
    assert same_weights(networks[0], networks[1])
    assert not same_weights(networks[0], networks[2])


def test_weights_do_not_depend_on_the_global_generators_or_the_default_device():
    first = build_network(Small, 3, (8, 8), 4, KEY)
    torch.rand(3)
    with torch.device("meta"):
        second = build_network(Small, 3, (8, 8), 4, KEY)
    assert same_weights(first, second)


def global_draws():
    return torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist()  # noqa: NPY002 - the global generator


@pytest.mark.parametrize("factory", [Small, Foreign, Lazy])
def test_global_generators_are_left_as_they_were(factory):
    with KEY.isolated():
        undisturbed = global_draws()
    with KEY.isolated():
        build_network(factory, 3, (8, 8), 4, KEY.fold("inner"), needs_features=True)
        assert global_draws() == undisturbed


def test_networks_come_in_the_modes_they_were_made_in_with_untouched_statistics():
    network = build_network(functools.partial(ConvNet, width=8, norm="batch"), 3, (8, 8), 4, KEY)
    assert all(module.training for module in network.modules())
    assert torch.equal(network.blocks[0].norm.running_mean, torch.zeros(8))
    assert network.blocks[0].norm.num_batches_tracked == 0
    foreign = build_network(Foreign, 3, (8, 8), 4, KEY)
    assert (foreign.training, foreign.frozen.training) == (True, False)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in foreign.parameters())


@pytest.mark.parametrize("size", [(32, 32), (20, 48)])
@pytest.mark.parametrize("network_class", [ConvNet, MLP, LeNet, AlexNet])
def test_shipped_networks_build_for_many_sizes(network_class, size):
    network = build_network(network_class, 3, size, 7, KEY, needs_features=True)
    assert isinstance(network, network_class)
    assert network.image_size == size


@pytest.mark.parametrize("network_class", [VGG11, ResNet18])
def test_deep_shipped_networks_build_and_pass_the_feature_check(network_class):
    assert isinstance(build_network(network_class, 1, (28, 28), 7, KEY, needs_features=True), network_class)


def test_foreign_networks_are_wrapped_only_where_features_are_needed():
    assert type(build_network(Foreign, 3, (8, 8), 4, KEY)) is Foreign
    wrapped = build_network(Foreign, 3, (8, 8), 4, KEY, needs_features=True)
    assert isinstance(wrapped, AdaptedNetwork)
    assert same_weights(wrapped.module, build_network(Foreign, 3, (8, 8), 4, KEY))
    lazy = build_network(Lazy, 3, (8, 8), 4, KEY, needs_features=True)
    assert lazy.features(torch.ones(2, 3, 8, 8)).shape == (2, 192)


def torchvision_resnet(in_channels, image_size, num_classes):
    return torchvision.models.resnet18(num_classes=num_classes)


def test_torchvision_networks_can_be_used_through_a_function():
    network = build_network(torchvision_resnet, 3, (32, 32), 10, KEY, needs_features=True)
    assert network.classifier.in_features == 512
    with pytest.raises(SettingsError, match=r"torchvision_resnet was built, but does not run, for 1x32x32 images"):
        build_network(torchvision_resnet, 1, (32, 32), 10, KEY)


def softmax(logits):
    return logits.softmax(1)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (functools.partial(ConvNet, depth=4), r"ConvNet halves the image 4 times"),
        (functools.partial(ConvNet, widht=4), r"could not be built .* for 3x8x8 images and 4 classes: .*'widht'"),
        (lambda channels, size, classes: nn.Identity(), r"with in_channels, image_size and num_classes .*TypeError"),
        (functools.partial(Foreign, outputs=9), r"logits of shape \(2, 4\), but gave \(2, 9\): give its last layer 4"),
        (functools.partial(Foreign, after=lambda logits: [logits]), r"\(2, 4\), but gave list"),
        (
            functools.partial(Foreign, after=lambda x: x.reshape(3, 3)),
            r"Foreign.* was built, but does not run, .*shape",
        ),
        (lambda in_channels, image_size, num_classes: 7, r"should make an nn.Module, but made int"),
        (nn.Linear(3, 4), r"given as a class or factory.*but got Linear as an object"),
        ("ConvNet", r"given as a class or factory.*but got str"),
    ],
)
def test_networks_that_cannot_serve_are_explained(factory, message):
    with pytest.raises(SettingsError, match=message):
        build_network(factory, 3, (8, 8), 4, KEY)


class Tokens(nn.Module):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__()
        self.head = nn.Linear(image_size[1], num_classes)

    def forward(self, images):
        return self.head(images[:, 0]).mean(1)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (functools.partial(Foreign, after=softmax), r"Foreign should return the output of its last linear layer"),
        (functools.partial(Foreign, after=lambda x: 2 * x, bias=False), r"without softmax or scaling"),
        (Tokens, r"Tokens should give .* one row of features for an image, but gave .* \(2, 8, 8\) for 2 images"),
    ],
)
def test_networks_whose_logits_are_not_the_last_layer_of_the_features_are_refused(factory, message):
    build_network(factory, 3, (8, 8), 4, KEY)
    with pytest.raises(SettingsError, match=message):
        build_network(factory, 3, (8, 8), 4, KEY, needs_features=True)


def test_faults_in_foreign_code_keep_their_own_error():
    def faulty(in_channels, image_size, num_classes):
        return nn.NoSuchLayer()

    with pytest.raises(AttributeError, match="NoSuchLayer"):
        build_network(faulty, 3, (8, 8), 4, KEY)


def test_a_class_path_becomes_a_factory_whose_settings_can_be_read_back():
    factory = from_jsonargparse(
        '--network={"class_path": "lit_condense.networks.ConvNet", "init_args": {"width": 32, "norm": "batch"}}'
    )
    target, settings = factory_target(factory)
    assert target is ConvNet
    assert (settings["width"], settings["norm"]) == (32, "batch")
    assert network_name(factory) == "ConvNet(norm=batch,width=32)"
    network = build_network(factory, 3, (8, 8), 4, KEY)
    assert isinstance(network, ConvNet)
    assert (network.width, network.norm, network.depth) == (32, "batch", 3)
    assert same_weights(network, build_network(functools.partial(ConvNet, norm="batch", width=32), 3, (8, 8), 4, KEY))


@pytest.mark.parametrize("network_class", [ConvNet, MLP, LeNet, AlexNet, VGG11, ResNet18])
def test_a_bare_class_path_has_the_bare_name(network_class):
    factory = from_jsonargparse(f"--network=lit_condense.networks.{network_class.__name__}")
    assert factory_target(factory)[0] is network_class
    assert network_name(factory) == network_class.__name__


def test_unknown_choices_are_refused_by_the_command_line():
    with pytest.raises(jsonargparse.ArgumentError, match="norm"):
        from_jsonargparse("--network=lit_condense.networks.ConvNet", "--network.norm=spectral")


def function(in_channels, image_size, num_classes, width=3):
    return MLP(in_channels, image_size, num_classes, width=width)


@pytest.mark.parametrize(
    ("factory", "target", "settings", "name"),
    [
        (ConvNet, ConvNet, {}, "ConvNet"),
        (functools.partial(ConvNet, width=64, norm="batch"), ConvNet, {"width": 64, "norm": "batch"}, None),
        (functools.partial(functools.partial(ConvNet, width=64), norm="batch"), ConvNet, None, None),
        (functools.partial(ConvNet, width=128, depth=3), ConvNet, {"width": 128, "depth": 3}, "ConvNet"),
        (functools.partial(ResNet18, average_pool=True), ResNet18, None, "ResNet18(average_pool=True)"),
        (function, function, {}, "function"),
        (functools.partial(function, width=5), function, {"width": 5}, "function(width=5)"),
    ],
)
def test_names_and_settings_of_plain_factories(factory, target, settings, name):
    found, keywords = factory_target(factory)
    assert found is target
    assert keywords == (settings if settings is not None else factory.keywords)
    assert network_name(factory) == (name or "ConvNet(norm=batch,width=64)")
