"""Several evaluation networks at once: which strategy, and that each trains the networks that one by one trains."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from lit_condense.data import Normalization, TensorImages
from lit_condense.evaluation import SmallSet
from lit_condense.evaluation.protocols import recipe_for
from lit_condense.evaluation.several import STACKED_AT_ONCE, Trainings, in_threads, strategy_for
from lit_condense.evaluation.stacked import can_be_stacked, train_stacked
from lit_condense.evaluation.training import train_network
from lit_condense.networks import build_network
from lit_condense.rng import RandomKey
from tests.helpers import tiny_convnet

KEYS = [RandomKey(4).fold("evaluation", i) for i in range(3)]
PROTOCOLS = ("dc", "dsa", "idc", "coreset", "egm", "mtt")


def images_of(seed, count=10):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SETS = [SmallSet(images_of(seed), torch.arange(10) % 5) for seed in range(3)]
WEIGHTED = [SmallSet(data.images, data.labels, 1.0 + torch.arange(10, dtype=torch.float64)) for data in SETS]


def network_of(key, factory=None):
    return build_network(factory or tiny_convnet(), 1, (8, 8), 5, key).double()


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


# ------------------------------------------------------------------ the table


@pytest.mark.parametrize(
    ("device", "batch_gflop", "networks", "cores", "strategy"),
    [
        ("cpu", 0.003, 10, 2, "stacked"),  # 10 images of 8x8 pixels
        ("cpu", 0.003, 2, 2, "threads"),
        ("cpu", 0.03, 10, 2, "threads"),  # 100 of them
        ("cpu", 0.03, 1, 2, "alone"),
        ("cpu", 0.03, 10, 1, "alone"),
        ("cpu", 10.0, 10, 2, "compiled"),  # ConvNet-3 of width 128 on 100 images of 32x32 pixels
        ("cuda", 0.003, 10, 2, "recorded"),
        ("cuda", 10.0, 10, 2, "recorded"),
        ("cuda", 1000.0, 10, 2, "compiled"),  # all real images
        ("mps", 10.0, 10, 2, "alone"),
    ],
)
def test_the_strategy_follows_from_device_shape_and_number(device, batch_gflop, networks, cores, strategy):
    assert strategy_for(device, batch_gflop, 300, networks, cores) == strategy


# ------------------------------------------------------------------ stacked


@pytest.mark.parametrize("sets", [SETS, WEIGHTED], ids=["plain", "weighted"])
@pytest.mark.parametrize("batch_size", [None, 4], ids=["one batch", "three batches"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_stacked_networks_are_those_trained_one_by_one(protocol, batch_size, sets):
    recipe = recipe_for(protocol, "cifar10", True, 6)
    recipe = recipe if batch_size is None else replace(recipe, batch_size=batch_size)
    networks = [network_of(key) for key in KEYS]
    apart = copy.deepcopy(networks)
    steps = train_stacked(networks, sets, recipe, KEYS)
    for network, alone, data, key in zip(networks, apart, sets, KEYS, strict=True):
        before = weights(alone)
        assert train_network(alone, data, recipe, key) == steps
        torch.testing.assert_close(weights(network), weights(alone), rtol=1e-9, atol=1e-11)
        assert (weights(alone) - before).abs().max() > 1e-3


def test_a_limit_of_steps_shrinks_the_schedule_of_stacked_networks_too():
    networks = [network_of(key) for key in KEYS]
    apart = copy.deepcopy(networks)
    recipe = recipe_for("dc", "cifar10", False, 300)
    assert train_stacked(networks, SETS, recipe, KEYS, max_steps=7) == 7
    train_network(apart[2], SETS[2], recipe, KEYS[2], max_steps=7)
    torch.testing.assert_close(weights(networks[2]), weights(apart[2]), rtol=1e-9, atol=1e-11)


class Dropping(nn.Sequential):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(nn.Flatten(), nn.Dropout(0.5), nn.Linear(in_channels * 64, num_classes))


@pytest.mark.parametrize(
    ("factory", "fits"),
    [
        (tiny_convnet("instance"), True),
        (tiny_convnet("layer"), True),  # its first derivative is right
        (tiny_convnet("none"), True),
        (tiny_convnet("batch"), False),
        (Dropping, False),
    ],
    ids=["instance", "layer", "none", "batch", "dropout"],
)
def test_what_can_be_stacked_is_found_out(factory, fits):
    networks = [network_of(key, factory) for key in KEYS[:2]]
    before = [weights(network) for network in networks]
    assert can_be_stacked(networks, images_of(0)) == fits
    assert all(torch.equal(weights(network), old) for network, old in zip(networks, before, strict=True))


def test_frozen_weights_are_not_stacked_and_stay():
    networks = [network_of(key) for key in KEYS[:2]]
    for network in networks:
        network.classifier.requires_grad_(False)
    assert not can_be_stacked(networks, images_of(0))
    assert not networks[0].classifier.weight.requires_grad


# ------------------------------------------------------------------ threads


def test_threads_work_on_one_core_each_and_the_cores_come_back():
    before = torch.get_num_threads()

    def work(i):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
        return i, torch.get_num_threads()

    with torch.inference_mode():
        assert in_threads(work, 3) == [(0, 1), (1, 1), (2, 1)]
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda i: 1 / i, 2)
    assert torch.get_num_threads() == before


# ------------------------------------------------------------------ the whole


def store():
    images = ((images_of(9, 40).float() + 4) / 8).clamp(0, 1)
    return TensorImages(images, torch.arange(40) % 5, 5, Normalization((0.5,), (0.5,)), tuple("abcde"), "test")


def trained(monkeypatch, strategy, factory, networks=3):
    """The weights of the networks and their accuracies, trained by that strategy."""
    monkeypatch.setattr("lit_condense.evaluation.several.strategy_for", lambda *_: strategy)
    made = []

    def build(key):
        made.append(build_network(factory, 1, (8, 8), 5, key))
        return made[-1]

    data = SmallSet(SETS[0].images.float(), SETS[0].labels)
    recipe = recipe_for("dsa", "cifar10", False, 5)
    trainings = Trainings.planned(build, lambda _: recipe, data, store(), networks, None)
    del made[:]
    keys = [RandomKey(7).fold(i) for i in range(networks)]
    accuracies = []
    for group in trainings.groups(networks):
        accuracies += trainings.accuracies([keys[i] for i in group], [data] * len(group))
    return trainings.strategy, [weights(network) for network in made], accuracies


@pytest.mark.parametrize("strategy", ["stacked", "threads"])
def test_every_strategy_gives_the_networks_of_one_by_one(monkeypatch, strategy):
    found, several, accuracies = trained(monkeypatch, strategy, tiny_convnet())
    _, alone, wanted = trained(monkeypatch, "alone", tiny_convnet())
    assert found == strategy
    assert accuracies == pytest.approx(wanted, abs=0.026)  # one of 40 test images
    for one, other in zip(several, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_threads_give_the_same_bytes_however_many_run_beside_each_other(monkeypatch):
    _, together, accuracies = trained(monkeypatch, "threads", tiny_convnet("batch"))
    monkeypatch.setattr(Trainings, "groups", lambda _, count: [range(i, i + 1) for i in range(count)])
    strategy, one_by_one, again = trained(monkeypatch, "threads", tiny_convnet("batch"))
    assert strategy == "threads"
    assert accuracies == again
    assert all(torch.equal(one, other) for one, other in zip(together, one_by_one, strict=True))


@pytest.mark.parametrize(
    ("factory", "strategy"), [(tiny_convnet("batch"), "threads"), (Dropping, "alone")], ids=["batch norm", "dropout"]
)
def test_architectures_that_cannot_be_stacked_take_the_next_best_strategy(monkeypatch, factory, strategy):
    assert trained(monkeypatch, "stacked", factory)[0] == strategy
    assert trained(monkeypatch, "threads", factory)[0] == strategy


def test_groups_cover_all_networks_once(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    plan = {"build": None, "recipe": None, "test": None, "max_steps": None, "steps": 1}
    sizes = {
        strategy: [list(group) for group in Trainings(**plan, strategy=strategy).groups(23)]
        for strategy in ("stacked", "threads")
    }
    assert sizes["stacked"] == [list(range(STACKED_AT_ONCE)), list(range(STACKED_AT_ONCE, 23))]
    assert [list(range(8)), list(range(8, 16)), list(range(16, 23))] == sizes["threads"]
    assert Trainings(**plan, strategy="alone").groups(2) == [range(1), range(1, 2)]
