from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lit_condense.errors import SettingsError
from lit_condense.networks import ResNet18
from tests.networks.helpers import drawn, instance_norm, pixels


def written_out_features(images, parameters, average_pool):
    """Consume the parameters in order: stem, then per block both convolutions and the shortcut, if there is one."""
    take = iter(parameters).__next__
    maps = instance_norm(F.conv2d(images, take(), padding=1), take(), take()).clamp(min=0)
    for block in range(8):
        halve = block in (2, 4, 6)
        stride = 2 if halve and not average_pool else 1
        pool = (lambda x: F.avg_pool2d(x, 2)) if halve and average_pool else (lambda x: x)
        inner = instance_norm(F.conv2d(maps, take(), stride=stride, padding=1), take(), take()).clamp(min=0)
        inner = instance_norm(F.conv2d(pool(inner), take(), padding=1), take(), take())
        if halve:
            maps = instance_norm(pool(F.conv2d(maps, take(), stride=stride)), take(), take())
        maps = (maps + inner).clamp(min=0)
    return maps.flatten(1) if average_pool else maps.mean((2, 3))


@pytest.mark.parametrize(("size", "average_pool"), [((12, 17), False), ((17, 20), True)])
def test_the_forward_pass_is_the_written_out_one(size, average_pool):
    network = drawn(ResNet18, 2, size, 4, average_pool=average_pool)
    images = pixels(1, 2, *size)
    with torch.no_grad():
        features = written_out_features(images, list(network.parameters()), average_pool)
        torch.testing.assert_close(network.features(images), features, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(network(images), network.classifier(features), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("average_pool", "size", "sizes"),
    [(True, 28, [28, 14, 7, 3]), (True, 32, [32, 16, 8, 4]), (False, 28, [28, 14, 7, 4]), (False, 32, [32, 16, 8, 4])],
)
def test_stages_have_the_published_sizes(average_pool, size, sizes):
    with torch.device("meta"):
        network = ResNet18(1, size, 10, average_pool=average_pool)
        maps, seen = network.conv(torch.zeros(1, 1, size, size)), []
        for block in network.blocks:
            maps = block(maps)
            seen.append(tuple(maps.shape[1:]))
    assert seen[1::2] == [(channels, s, s) for channels, s in zip([64, 128, 256, 512], sizes, strict=True)]
    assert network.classifier.in_features == (512 * sizes[-1] ** 2 if average_pool else 512)


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({}, 9),
        ({"norm": "batch"}, 1),
        ({"norm": "layer"}, 1),
        ({"norm": "group"}, 1),
        ({"norm": "none"}, 1),
        ({"average_pool": True}, 16),
        ({"average_pool": True, "norm": "batch"}, 8),
        ({"average_pool": True, "norm": "layer"}, 8),
    ],
)
def test_smallest_image_is_the_documented_one(settings, least):
    with torch.device("meta"):
        network = ResNet18(3, least, 10, **settings).eval()
        assert network(torch.zeros(2, 3, least, least)).shape == (2, 10)
    if least > 1:
        with torch.device("meta"), pytest.raises(SettingsError, match=rf"ResNet18 halves the image 3 times.*{least}x"):
            ResNet18(3, least - 1, 10, **settings)


def test_features_of_the_smallest_image_still_depend_on_the_image():
    network = drawn(ResNet18, 1, 9, 10)
    with torch.no_grad():
        first, second = network.features(pixels(2, 1, 9, 9))
    assert (first - second).abs().max() > 0.1


def test_instance_norm_of_a_last_pixel_is_explained():
    with torch.device("meta"), pytest.raises(SettingsError, match=r"8x8 images.*single pixel.*9x9, or norm batch"):
        ResNet18(3, 8, 10)


def test_settings_are_kept_under_their_names():
    with torch.device("meta"):
        network = ResNet18(3, 32, 10, norm="batch", average_pool=True)
    assert (network.norm, network.average_pool, network.image_size) == ("batch", True, (32, 32))
