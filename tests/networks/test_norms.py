from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_condense.errors import SettingsError
from lit_condense.networks.norms import make_norm
from tests.networks.helpers import EPSILON, instance_norm, pixels, shake, standardised

N, C, H, W = 3, 8, 2, 5


def layer_and_maps(norm):
    return shake(make_norm(norm, C, (H, W), "Net")), 2 * pixels(N, C, H, W) + 1


def test_instance_norm_standardises_each_channel_of_each_image():
    layer, maps = layer_and_maps("instance")
    torch.testing.assert_close(layer(maps), instance_norm(maps, layer.weight, layer.bias))


def test_group_norm_standardises_four_groups_of_channels_of_each_image():
    layer, maps = layer_and_maps("group")
    groups = standardised(maps.reshape(N, 4, C // 4, H, W), (2, 3, 4)).reshape(N, C, H, W)
    torch.testing.assert_close(layer(maps), groups * layer.weight[:, None, None] + layer.bias[:, None, None])


def test_layer_norm_standardises_each_image_and_scales_every_entry():
    layer, maps = layer_and_maps("layer")
    assert layer.weight.shape == layer.bias.shape == (C, H, W)
    torch.testing.assert_close(layer(maps), standardised(maps, (1, 2, 3)) * layer.weight + layer.bias)


def test_batch_norm_standardises_each_channel_over_the_batch_and_remembers_it():
    layer, maps = layer_and_maps("batch")
    scale, shift = layer.weight[:, None, None], layer.bias[:, None, None]
    torch.testing.assert_close(layer(maps), standardised(maps, (0, 2, 3)) * scale + shift)
    # one update of the running values with momentum 0.1; the running variance is the unbiased one
    mean, variance = 0.1 * maps.mean((0, 2, 3)), 0.9 + 0.1 * maps.transpose(0, 1).reshape(C, -1).var(1)
    expected = (maps - mean[:, None, None]) / (variance + EPSILON).sqrt()[:, None, None] * scale + shift
    torch.testing.assert_close(layer.eval()(maps), expected)


def test_no_norm_changes_nothing():
    maps = pixels(N, C, H, W)
    assert torch.equal(make_norm("none", C, (H, W), "Net")(maps), maps)


@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group"])
def test_norms_start_with_scale_one_and_shift_zero(norm):
    layer = make_norm(norm, C, (H, W), "Net")
    assert torch.equal(layer.weight, torch.ones_like(layer.weight))
    assert torch.equal(layer.bias, torch.zeros_like(layer.bias))


def test_instance_norm_of_one_pixel_is_refused_because_it_erases_the_image():
    with torch.no_grad():
        assert nn.GroupNorm(4, 4)(pixels(2, 4, 1, 1).float()).abs().max() < 1e-3  # only rounding is left
    with pytest.raises(SettingsError, match=r"Net .*one pixel, which erases the image: use larger images, or norm"):
        make_norm("instance", 4, (1, 1), "Net")
    assert isinstance(make_norm("instance", 4, (1, 2), "Net"), nn.GroupNorm)


def test_unknown_norms_are_named():
    with pytest.raises(SettingsError, match=r"Net.norm to be 'instance', .*, got 'batchnorm'"):
        make_norm("batchnorm", 4, (2, 2), "Net")
