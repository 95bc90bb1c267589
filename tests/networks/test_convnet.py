from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lit_condense.errors import SettingsError
from lit_condense.networks import ConvNet
from tests.networks.helpers import instance_norm, pixels, shake


def written_out_features(images, parameters, first_padding, depth):
    maps = images
    for block in range(depth):
        weight, bias, scale, shift = parameters[4 * block : 4 * block + 4]
        maps = F.conv2d(maps, weight, bias, padding=first_padding if block == 0 else 1)
        maps = instance_norm(maps, scale, shift).clamp(min=0)
        even = maps[:, :, : maps.shape[2] // 2 * 2, : maps.shape[3] // 2 * 2]
        maps = (even[:, :, ::2, ::2] + even[:, :, 1::2, ::2] + even[:, :, ::2, 1::2] + even[:, :, 1::2, 1::2]) / 4
    return maps.reshape(len(images), -1)


@pytest.mark.parametrize(
    ("channels", "size", "padding"),
    [
        (3, (32, 32), 1),
        (1, (28, 28), 3),
        (1, (32, 32), 1),
        (1, (8, 8), 1),
        (3, (28, 28), 1),
        (1, (28, 30), 1),
        (3, (17, 24), 1),
    ],
)
def test_the_forward_pass_is_the_written_out_one(channels, size, padding):
    network = shake(ConvNet(channels, size, 5, width=6))
    images = pixels(2, channels, *size)
    parameters = list(network.parameters())
    features = written_out_features(images, parameters, padding, depth=3)
    torch.testing.assert_close(network.features(images), features, rtol=1e-9, atol=1e-9)
    logits = features @ parameters[-2].T + parameters[-1]
    torch.testing.assert_close(network(images), logits, rtol=1e-9, atol=1e-9)


def test_parameters_come_in_the_published_order():
    shapes = [tuple(parameter.shape) for parameter in ConvNet(3, 32, 10).parameters()]
    block = [(128,), (128,), (128,)]
    assert shapes == [
        *[(128, 3, 3, 3), *block],
        *[(128, 128, 3, 3), *block],
        *[(128, 128, 3, 3), *block],
        *[(10, 2048), (10,)],
    ]


def test_weight_tensors_of_convnet_3_have_394_rows():
    assert sum(len(parameter) for parameter in ConvNet(3, 32, 10).parameters() if parameter.ndim >= 2) == 394


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 32)])
def test_published_sizes_have_2048_features(channels, size):
    network = ConvNet(channels, size, 10)
    assert network.features(torch.zeros(1, channels, size, size)).shape == (1, 2048)
    assert network.classifier.in_features == 2048


@pytest.mark.parametrize("pooling", ["avg", "max", "none"])
@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group", "none"])
def test_logits_are_the_classifier_of_the_features_for_every_norm_and_pooling(norm, pooling):
    network = ConvNet(2, (12, 9), 4, width=8, norm=norm, pooling=pooling).double().eval()
    images = pixels(3, 2, 12, 9)
    features = network.features(images)
    assert features.shape == (3, 8 * 12 * 9 if pooling == "none" else 8)
    assert torch.equal(network(images), network.classifier(features))


def test_maximum_pooling_keeps_the_largest_of_four_pixels():
    network = ConvNet(1, 4, 2, width=1, depth=1, norm="none", pooling="max").double()
    images = pixels(2, 1, 4, 4)
    maps = F.conv2d(images, *list(network.parameters())[:2], padding=1).clamp(min=0)
    expected = maps.reshape(2, 2, 2, 2, 2).amax((2, 4)).reshape(2, 4)
    torch.testing.assert_close(network.features(images), expected)


ACTIVATIONS = {
    "relu": lambda x: x.clamp(min=0),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "swish": lambda x: x / (1 + (-x).exp()),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_activation_is_its_formula(activation):
    network = ConvNet(1, 3, 2, width=2, depth=1, norm="none", activation=activation, pooling="none").double()
    images = pixels(2, 1, 3, 3)
    maps = F.conv2d(images, *list(network.parameters())[:2], padding=1)
    torch.testing.assert_close(network.features(images), ACTIVATIONS[activation](maps).reshape(2, -1))


@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group"])
@pytest.mark.parametrize("activation", ["sigmoid", "swish"])
def test_image_gradients_of_weight_gradients_are_right(activation, norm):
    """The second derivative that gradient matching needs, against a finite difference of the first."""
    network = shake(ConvNet(1, 4, 2, width=4, depth=1, norm=norm, activation=activation))
    parameters = list(network.parameters())
    images, direction = pixels(2, 1, 4, 4).requires_grad_(), pixels(2, 1, 4, 4, seed=1)

    def matched(images):
        loss = F.cross_entropy(network(images), torch.tensor([0, 1]))
        return sum((g**2).sum() for g in torch.autograd.grad(loss, parameters, create_graph=True))

    slope = (torch.autograd.grad(matched(images), images)[0] * direction).sum()
    step = 1e-5
    expected = (matched(images + step * direction) - matched(images - step * direction)) / (2 * step)
    torch.testing.assert_close(slope, expected.detach(), rtol=1e-6, atol=1e-9)


def test_activations_leave_their_input_as_it_was():
    network = ConvNet(1, 8, 2, width=4)
    assert not any(getattr(module, "inplace", False) for module in network.modules())


def test_settings_are_kept_under_their_names():
    settings = {
        "in_channels": 2,
        "image_size": (8, 16),
        "num_classes": 3,
        "width": 8,
        "depth": 2,
        "norm": "group",
        "activation": "swish",
        "pooling": "max",
    }
    network = ConvNet(**settings)
    assert {name: getattr(network, name) for name in settings} == settings
    assert ConvNet(3, 16, 10, width=4).image_size == (16, 16)


def test_smallest_images_fit_and_one_pixel_less_does_not():
    assert ConvNet(1, 8, 10, width=4)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(SettingsError, match=r"ConvNet halves the image 3 times.*7x8 images.*lower depth.*8x8.*none"):
        ConvNet(1, (7, 8), 10, width=4)
    with pytest.raises(SettingsError, match=r"4 times.*8x8 images.*16x16"):
        ConvNet(3, 8, 10, depth=4)
    with pytest.raises(SettingsError, match=r"halves the image once, for which 1x1 "):
        ConvNet(3, 1, 10, depth=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "spectral"}, r"ConvNet.norm to be 'instance', 'batch', 'layer', 'group' or 'none', got 'spectral'"),
        ({"activation": "gelu"}, r"ConvNet.activation to be 'relu', 'sigmoid', 'leaky_relu' or 'swish', got 'gelu'"),
        ({"pooling": "global"}, r"ConvNet.pooling to be .avg., .max. or .none., got .global."),
        ({"width": 6, "norm": "group"}, r"ConvNet with group norm needs a width that 4 divides, but got 6"),
        ({"width": 0}, r"ConvNet needs width to be a whole number of at least 1, but got 0"),
        ({"depth": 2.0}, r"needs depth .* but got 2.0"),
        ({"depth": True}, r"needs depth .* but got True"),
        ({"in_channels": 0}, r"needs in_channels .* but got 0"),
        ({"num_classes": -1}, r"needs num_classes .* but got -1"),
        ({"image_size": (8, 0)}, r"needs image_size .* but got 0"),
        ({"image_size": (1, 8, 8)}, r"one number or \(height, width\), but got \(1, 8, 8\)"),
        ({"image_size": 8.0}, r"one number or \(height, width\), but got 8.0"),
        ({"image_size": 1, "pooling": "none"}, r"ConvNet would apply instance norm to feature maps of one pixel"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(SettingsError, match=message):
        ConvNet(**{"in_channels": 3, "image_size": 8, "num_classes": 10, **settings})
