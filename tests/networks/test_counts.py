"""The published parameter counts, cell by cell (networks_and_evaluation.md, sections 1 and 2)."""

from __future__ import annotations

import pytest
import torch

from lit_condense.networks import MLP, VGG11, AlexNet, ConvNet, LeNet, ResNet18

MNIST, CIFAR10, CIFAR100, TINY = (1, 28, 10), (3, 32, 10), (3, 32, 100), (3, 64, 200)

CONVNETS = {
    "D1": ({"depth": 1}, (329_226, 331_530, 3_280_740, 26_218_440)),
    "D2": ({"depth": 2}, (231_306, 233_610, 970_980, 6_705_480)),
    "default": ({}, (317_706, 320_010, 504_420, 1_938_120)),
    "D3": ({"depth": 3}, (317_706, 320_010, 504_420, 1_938_120)),
    "D4": ({"depth": 4}, (450_186, 452_490, 498_660, 857_160)),
    "W32": ({"width": 32}, (24_138, 24_714, 70_884, 429_384)),
    "W64": ({"width": 64}, (85_130, 86_282, 178_532, 895_432)),
    "W128": ({"width": 128}, (317_706, 320_010, 504_420, 1_938_120)),
    "W256": ({"width": 256}, (1_225_226, 1_229_834, 1_598_564, 4_465_864)),
    "no norm": ({"norm": "none"}, (316_938, 319_242, 503_652, 1_937_352)),
    "layer norm": ({"norm": "layer"}, (661_002, 663_306, 847_716, 3_313_608)),
    "batch norm": ({"norm": "batch"}, (317_706, 320_010, 504_420, 1_938_120)),
    "instance norm": ({"norm": "instance"}, (317_706, 320_010, 504_420, 1_938_120)),
    "group norm": ({"norm": "group"}, (317_706, 320_010, 504_420, 1_938_120)),
    "no pooling": ({"pooling": "none"}, (1_607_946, 1_610_250, 13_406_820, 105_157_320)),
    "max pooling": ({"pooling": "max"}, (317_706, 320_010, 504_420, 1_938_120)),
}

OTHERS = {
    "MLP": (MLP, {}, (118_282, 411_146, 422_756)),
    "LeNet": (LeNet, {}, (61_706, 62_006, 69_656)),
    "AlexNet": (AlexNet, {}, (1_865_802, 1_872_202, 2_148_772)),
    "AlexNetBN": (AlexNet, {"norm": "batch"}, (1_867_722, 1_874_122, 2_150_692)),
    "VGG11": (VGG11, {}, (9_229_962, 9_231_114, 9_277_284)),
    "VGG11BN": (VGG11, {"norm": "batch"}, (9_229_962, 9_231_114, 9_277_284)),
    "ResNet18": (ResNet18, {}, (11_172_810, 11_173_962, 11_220_132)),
    "ResNet18BN": (ResNet18, {"norm": "batch"}, (11_172_810, 11_173_962, 11_220_132)),
    "ResNet18_AP": (ResNet18, {"average_pool": True}, (11_213_770, 11_250_762, 11_988_132)),
    "ResNet18BN_AP": (ResNet18, {"average_pool": True, "norm": "batch"}, (11_213_770, 11_250_762, 11_988_132)),
}


def count(network_class, data, settings):
    with torch.device("meta"):
        network = network_class(*data, **settings)
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("variant", CONVNETS)
def test_every_convnet_count_matches_the_published_table(variant):
    settings, published = CONVNETS[variant]
    assert tuple(count(ConvNet, data, settings) for data in (MNIST, CIFAR10, CIFAR100, TINY)) == published


@pytest.mark.parametrize("variant", OTHERS)
def test_every_other_count_matches_the_published_table(variant):
    network_class, settings, published = OTHERS[variant]
    assert tuple(count(network_class, data, settings) for data in (MNIST, CIFAR10, CIFAR100)) == published


def test_convnet_4_on_tiny_imagenet_has_the_count_of_idc():
    assert count(ConvNet, TINY, {"depth": 4}) == 857_160
