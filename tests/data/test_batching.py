"""Passes over images, cut into batches: a rest of one is merged, and every way of training agrees on it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from lit_condense.augmentation import NoAugmentation
from lit_condense.data import Normalization, TensorImages
from lit_condense.data.batching import batch_at, batch_count, batch_sizes, batches
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.engine.forward import Forward
from lit_condense.evaluation import SmallSet, training
from lit_condense.evaluation.protocols import recipe_for
from lit_condense.evaluation.stacked import train_stacked
from lit_condense.networks import build_network
from lit_condense.rng import RandomKey
from tests.helpers import tiny_convnet

KEY = RandomKey(2)


@pytest.mark.parametrize(
    ("images", "size", "sizes"),
    [
        (9, 4, [4, 5]),
        (5, 4, [5]),
        (10, 4, [4, 4, 2]),
        (8, 4, [4, 4]),
        (3, 4, [3]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
        (3, 2, [3]),
        (65, 64, [65]),
    ],
)
def test_a_rest_of_one_is_merged_into_the_batch_before_it(images, size, sizes):
    order = torch.randperm(images, generator=KEY.generator())
    assert batch_sizes(images, size) == sizes
    assert batch_count(images, size) == len(sizes)
    found = batches(order, size)
    assert [len(batch) for batch in found] == sizes
    assert torch.equal(torch.cat(found), order)
    assert all(torch.equal(batch_at(order, size, i), batch) for i, batch in enumerate(found))


def test_no_published_setting_leaves_one_image_over():
    classes = {"mnist": 10, "cifar10": 10, "cifar100": 100}
    for count in classes.values():
        for ipc in (1, 10, 20, 50):
            for factor in (1, 2, 3):
                for batch in (64, 128, 256):
                    images = count * ipc * factor**2
                    assert batch_count(images, batch) == -(-images // batch)


def recipe(protocol="dc"):
    return replace(recipe_for(protocol, "cifar10", False, 3), augmentation=NoAugmentation(), cutmix=0.0, batch_size=4)


IMAGES = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SET = SmallSet(IMAGES, torch.arange(9) % 5)


@pytest.mark.parametrize("max_steps", [None, 5])
def test_every_way_of_training_takes_the_same_batches(max_steps):
    networks = [build_network(tiny_convnet(), 1, (8, 8), 5, KEY.fold(i)).double() for i in range(2)]
    keys, alone = [KEY.fold("set", i) for i in range(2)], copy.deepcopy(networks)
    steps = train_stacked(networks, [SET, SET], recipe(), keys, max_steps)
    for network, key in zip(alone, keys, strict=True):
        loss = FirstOrderLoss(Forward(network, "exact"), compiled=False)
        assert training.train_network(network, SET, recipe(), key, max_steps, loss) == steps
    assert steps == (max_steps or 2 * recipe().passes)
    assert training.batches_of(SET, recipe()) == 2
    for found, wanted in zip(networks, alone, strict=True):
        for a, b in zip(found.parameters(), wanted.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_pass_of_an_evaluation_holds_every_image_once():
    for passed in range(3):
        seen = [training._batch(SET, 4, 2 * passed + step, KEY)[0] for step in range(2)]
        assert [len(images) for images in seen] == [4, 5]
        assert len(torch.unique(torch.cat(seen).flatten(1), dim=0)) == 9


class Squeezing(nn.Module):
    """Drops a dimension of size one, so that one image alone gives no batch."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 2)

    def forward(self, images):
        return self.last(images.flatten(1)).squeeze()


def test_a_test_split_with_one_image_over_is_tested_without_a_batch_of_one():
    images = torch.rand(training.TEST_BATCH + 1, 1, 8, 8)
    labels = torch.arange(len(images)) % 2
    test = TensorImages(images, labels, 2, Normalization((0.0,), (1.0,)), ("a", "b"), "test")
    network = Squeezing()
    right = (network(test.at(torch.arange(len(images)))).argmax(1) == labels).float().mean()
    assert training.test_accuracy(network, test) == pytest.approx(float(right))
