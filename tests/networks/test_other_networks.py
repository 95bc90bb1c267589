"""MLP, LeNet, AlexNet and VGG11."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lit_condense.errors import SettingsError
from lit_condense.networks import MLP, VGG11, AlexNet, LeNet
from tests.networks.helpers import drawn, instance_norm, pixels, shake


def relu(x):
    return x.clamp(min=0)


def maximum_pool(x):
    return F.max_pool2d(x, 2)


def linear(x, weight, bias):
    return x @ weight.T + bias


@pytest.mark.parametrize("size", [(28, 28), (1, 1), (5, 9)])
def test_mlp_is_the_written_out_one(size):
    network = shake(MLP(2, size, 3, width=7))
    w1, b1, w2, b2, w3, b3 = network.parameters()
    images = pixels(4, 2, *size)
    features = relu(linear(relu(linear(images.reshape(4, -1), w1, b1)), w2, b2))
    torch.testing.assert_close(network.features(images), features)
    torch.testing.assert_close(network(images), linear(features, w3, b3))
    assert network.width == 7


@pytest.mark.parametrize(
    ("channels", "size", "padding"), [(1, (28, 28), 2), (3, (32, 32), 0), (1, (32, 32), 0), (1, (16, 21), 0)]
)
def test_lenet_is_the_written_out_one(channels, size, padding):
    network = shake(LeNet(channels, size, 3))
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = network.parameters()
    images = pixels(2, channels, *size)
    maps = maximum_pool(relu(F.conv2d(images, w1, b1, padding=padding)))
    maps = maximum_pool(relu(F.conv2d(maps, w2, b2)))
    features = relu(linear(relu(linear(maps.reshape(2, -1), w3, b3)), w4, b4))
    torch.testing.assert_close(network.features(images), features)
    torch.testing.assert_close(network(images), linear(features, w5, b5))


@pytest.mark.parametrize(
    ("channels", "size", "padding"), [(1, (28, 28), 4), (3, (28, 28), 2), (1, (8, 8), 2), (3, (9, 20), 2)]
)
@pytest.mark.parametrize("norm", ["none", "instance"])
def test_alexnet_is_the_written_out_one(channels, size, padding, norm):
    network = drawn(AlexNet, channels, size, 3, norm=norm)
    take = iter(network.parameters()).__next__
    maps = images = pixels(1, channels, *size)
    for index, pad in enumerate((padding, 2, 1, 1, 1)):
        maps = F.conv2d(maps, take(), take(), padding=pad)
        maps = relu(instance_norm(maps, take(), take()) if norm == "instance" else maps)
        maps = maximum_pool(maps) if index in (0, 1, 4) else maps
    features = maps.flatten(1)
    torch.testing.assert_close(network.features(images), features)
    torch.testing.assert_close(network(images), linear(features, take(), take()))


@pytest.mark.parametrize(("channels", "size", "padding"), [(1, (28, 28), 3), (3, (32, 32), 1), (1, (32, 64), 1)])
def test_vgg11_is_the_written_out_one(channels, size, padding):
    network = drawn(VGG11, channels, size, 3)
    take = iter(network.parameters()).__next__
    maps = images = pixels(1, channels, *size)
    with torch.no_grad():
        for convolutions in (1, 1, 2, 2, 2):
            for _ in range(convolutions):
                maps = F.conv2d(maps, take(), take(), padding=padding if maps is images else 1)
                maps = relu(instance_norm(maps, take(), take()))
            maps = maximum_pool(maps)
        features = maps.mean((2, 3))
        torch.testing.assert_close(network.features(images), features)
        torch.testing.assert_close(network(images), linear(features, take(), take()))


@pytest.mark.parametrize("size", [(64, 64), (17, 24)])
@pytest.mark.parametrize("network_class", [MLP, LeNet, AlexNet])
def test_other_sizes_work_and_logits_are_the_classifier_of_the_features(network_class, size):
    network = drawn(network_class, 3, size, 7)
    images = pixels(2, 3, *size)
    features = network.features(images)
    assert features.shape == (2, network.classifier.in_features)
    assert torch.equal(network(images), network.classifier(features))


@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group", "none"])
@pytest.mark.parametrize(("network_class", "size"), [(AlexNet, (32, 48)), (VGG11, (64, 40))])
def test_every_norm_fits_every_depth(network_class, size, norm):
    with torch.device("meta"):
        network = network_class(3, size, 7, norm=norm)
        assert network(torch.zeros(2, 3, *size)).shape == (2, 7)
    assert network.norm == norm


@pytest.mark.parametrize(
    ("network_class", "size", "message"),
    [
        (LeNet, (15, 16), r"LeNet halves the image 2 times.*15x16 images.*16x16, or another network"),
        (LeNet, (2, 2), r"LeNet halves the image 2 times"),
        (AlexNet, (8, 7), r"AlexNet halves the image 3 times.*8x7 images.*8x8"),
        (VGG11, (32, 31), r"VGG11 halves the image 5 times.*32x31 images.*32x32"),
        (VGG11, (28, 28), r"VGG11 halves the image 5 times.*28x28 images"),
        (MLP, (0, 4), r"MLP needs image_size to be a whole number of at least 1, but got 0"),
    ],
)
def test_images_that_do_not_fit_are_named(network_class, size, message):
    with pytest.raises(SettingsError, match=message):
        network_class(3, size, 10)


@pytest.mark.parametrize(("network_class", "least"), [(LeNet, 16), (AlexNet, 8), (VGG11, 32), (MLP, 1)])
def test_smallest_image_is_the_documented_one(network_class, least):
    with torch.device("meta"):
        network = network_class(1, least, 10)
        assert network(torch.zeros(1, 1, least, least)).shape == (1, 10)


@pytest.mark.parametrize("network_class", [AlexNet, VGG11])
def test_unknown_norms_are_named(network_class):
    with pytest.raises(SettingsError, match=r"norm to be .* got 'BN'"):
        network_class(3, 32, 10, norm="BN")
