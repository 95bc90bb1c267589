from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from lit_condense.augmentation import CropFlip, NoAugmentation
from lit_condense.evaluation import Evaluation, SmallSet, training
from lit_condense.evaluation.protocols import describe, recipe_for
from lit_condense.networks import build_network
from lit_condense.rng import RandomKey
from tests.helpers import tiny_convnet

KEY = RandomKey(4).fold("evaluation", 0)
IMAGES = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.arange(10) % 5
WEIGHTS = torch.tensor([3.0, 0.0, 1.0, 2.5, 0.5, 4.0, 1.0, 0.25, 2.0, 7.0], dtype=torch.float64)
EPOCHS, BATCH = 4, 4


def literal(network, weights=None, lr=0.1, low=1e-4):
    """The protocol without augmentation, written out step by step."""
    parameters = list(network.parameters())
    momenta = [torch.zeros_like(p) for p in parameters]
    total, step = EPOCHS * 3, 0
    for epoch in range(EPOCHS):
        order = torch.randperm(10, generator=KEY.fold("order", epoch).generator())
        for chosen in (order[:4], order[4:8], order[8:]):
            losses = F.cross_entropy(network(IMAGES[chosen]), LABELS[chosen], reduction="none")
            w = torch.ones(len(chosen), dtype=torch.float64) if weights is None else weights[chosen]
            gradients = torch.autograd.grad((w * losses).sum() / w.sum(), parameters)
            rate = low + (lr - low) * (1 + math.cos(math.pi * step / total)) / 2
            with torch.no_grad():
                for p, g, m in zip(parameters, gradients, momenta, strict=True):
                    g = g + 5e-4 * p
                    m.mul_(0.9).add_(g)
                    p.sub_(rate * (g + 0.9 * m))
            step += 1
    return torch.cat([p.detach().flatten() for p in parameters])


def trained(network, weights=None):
    recipe = replace(recipe_for("coreset", "cifar10", True, EPOCHS), augmentation=NoAugmentation(), batch_size=BATCH)
    steps = training.train_network(network, SmallSet(IMAGES, LABELS, weights), recipe, KEY)
    return steps, torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_training_is_the_literal_recipe(weights):
    network = build_network(tiny_convnet(), 1, (8, 8), 5, KEY).double()
    wanted = literal(copy.deepcopy(network), weights)
    steps, found = trained(network, weights)
    assert steps == 12
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-13)


def test_weights_reach_the_training_and_equal_ones_change_nothing():
    networks = [build_network(tiny_convnet(), 1, (8, 8), 5, KEY).double() for _ in range(3)]
    plain, equal, other = (
        trained(n, w)[1] for n, w in zip(networks, (None, torch.full((10,), 0.3).double(), WEIGHTS), strict=True)
    )
    torch.testing.assert_close(plain, equal, rtol=1e-11, atol=1e-13)
    assert not torch.allclose(plain, other, rtol=1e-3)


@pytest.mark.parametrize("soft", [False, True])
def test_the_weighted_labels_give_the_weighted_mean(soft):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(10, 5, generator=generator, dtype=torch.float64)
    labels = torch.rand(10, 5, generator=generator, dtype=torch.float64).softmax(1) if soft else LABELS
    expected = (WEIGHTS * F.cross_entropy(logits, labels, reduction="none")).sum() / WEIGHTS.sum()
    found = F.cross_entropy(logits, training.weighted(labels, WEIGHTS, 5))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


def test_a_batch_without_any_weight_is_worth_nothing_but_is_finite():
    soft = training.weighted(LABELS, torch.zeros(10), 5)
    assert torch.equal(soft, torch.zeros(10, 5))


def test_the_protocol_is_the_published_one():
    recipe = recipe_for("coreset", "cifar10", convnet_bn=True)
    assert (recipe.passes, recipe.batch_size, recipe.lr, recipe.final_lr) == (200, 128, 0.1, 1e-4)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.9, True, 5e-4)
    assert (recipe.drops, recipe.restart, recipe.cutmix) == ((), False, 0.0)
    assert isinstance(recipe.augmentation, CropFlip)
    assert (recipe.augmentation.padding, recipe.augmentation.flip) == (4, 0.5)
    assert recipe_for("coreset", "cifar10", False).passes == recipe.passes
    assert recipe_for("coreset", "cifar10", False, epochs=7).passes == 7


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "svhn", "digits", "tiny_imagenet", "my photos"])
def test_other_data_sets_than_cifar_and_imagenet_are_not_augmented(dataset):
    recipe = recipe_for("coreset", dataset, True)
    assert isinstance(recipe.augmentation, NoAugmentation)
    assert recipe.passes == 200


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "CIFAR-10", "imagenet", "ImageNet_10"])
def test_cifar_and_imagenet_are_cropped_and_mirrored(dataset):
    augmentation = recipe_for("coreset", dataset, True).augmentation
    assert augmentation.operations == ("reflected_crop", "flip")


def test_the_augmentation_can_be_asked_for_by_those_who_know_their_data():
    asked = Evaluation(protocol="coreset", augmentation=CropFlip(flip=0.0)).augmentation
    recipe = recipe_for("coreset", "my photos", True, augmentation=asked)
    assert recipe.augmentation.operations == ("reflected_crop",)


def test_the_rate_falls_from_the_first_to_the_last_step_as_a_cosine():
    recipe = recipe_for("coreset", "cifar10", True)
    rates = [recipe.lr_at(step, 1000, ()) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[500] == pytest.approx((0.1 + 1e-4) / 2)
    assert rates[999] == pytest.approx(1e-4, rel=0.01)
    assert all(a > b for a, b in pairwise(rates))
    assert recipe.capped(40, 1000) == (1000, ())


def test_it_can_be_asked_for_and_describes_itself():
    assert Evaluation(protocol="coreset").protocol == "coreset"
    plain = describe(recipe_for("coreset", "cifar10", True))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["operations"] == ["reflected_crop", "flip"]
