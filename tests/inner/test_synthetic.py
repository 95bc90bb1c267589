from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from lit_condense.augmentation import Augmentation, NoAugmentation
from lit_condense.errors import SettingsError
from lit_condense.inner import InnerContext, TrainOnSynthetic, loops_for
from lit_condense.matching import Progress
from lit_condense.networks import MLP, build_network
from lit_condense.rng import RandomKey
from tests.helpers import TinyData, WatchedLoss, fresh_inner_network, tiny_convnet
from tests.oracles.dc import Sgd, train_epochs

REAL = TinyData().real
NOW = Progress(0, 0, 0)
KEY = RandomKey(3).fold("inner", 0, 0)


def inner_network(loop, factory=None):
    return fresh_inner_network(loop, REAL, factory)


def context(inner, seen=None, augmentation=None, ipc=(2,) * 5):
    images = torch.randn(sum(ipc), 1, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    labels = torch.repeat_interleave(torch.arange(5), torch.tensor(ipc))
    loss = WatchedLoss(inner.network, None if seen is None else lambda *batch: seen.append(batch))
    return InnerContext(images, labels, ipc, augmentation or NoAugmentation(), REAL, loss)


def positions(images, batch):
    """Return where the images of a batch stand."""
    distances = (batch[:, None] - images).abs().amax((2, 3, 4))
    assert distances.min(1).values.max() < 1e-12
    return distances.argmin(1).tolist()


def assert_same_weights(network, other, **tolerance):
    for found, wanted in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, **tolerance)


@pytest.mark.parametrize(
    ("ipc", "loops"), [(1, (1, 1)), (10, (10, 50)), (20, (20, 25)), (30, (30, 20)), (40, (40, 15)), (50, (50, 10))]
)
def test_the_published_loops_are_kept(ipc, loops):
    assert loops_for(ipc) == loops
    loop = TrainOnSynthetic()
    assert (loop.updates_per_network([ipc] * 5), loop.epochs_between([ipc] * 5)) == loops


@pytest.mark.parametrize("ipc", range(1, 61))
def test_every_other_number_of_images_follows_the_documented_rule(ipc):
    updates, epochs = loops_for(ipc)
    assert updates == min(ipc, 50)
    steps = [(1, 1), (10, 50), (20, 25), (30, 20), (40, 15), (50, 10)]
    assert epochs == next((e for published, e in steps if ipc <= published), 10)


@pytest.mark.parametrize(("ipc", "typical"), [((10, 10, 10), 10), ((1, 1, 2), 1), ((10, 30), 20), ((5, 9, 13), 9)])
def test_unequal_classes_take_the_loops_of_their_mean(ipc, typical):
    loop = TrainOnSynthetic()
    assert (loop.updates_per_network(ipc), loop.epochs_between(ipc)) == loops_for(typical)


def test_given_loops_win_over_published_ones():
    loop = TrainOnSynthetic(updates=3, epochs=0)
    assert (loop.updates_per_network([10]), loop.epochs_between([10])) == (3, 0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"momentum": 0.5}, {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01}, {"batch_size": 4}, {"batch_size": 1}],
    ids=str,
)
def test_advance_is_the_literal_training_loop(settings):
    loop = TrainOnSynthetic(updates=9, epochs=3, **settings)
    inner, seen = inner_network(loop), []
    wanted = copy.deepcopy(inner.network)
    given = context(inner, seen)
    loop.advance(inner, given, NOW, KEY)

    size = settings.get("batch_size", 256)
    orders, batches = [], iter(seen)
    for _ in range(3):
        order = []
        while len(order) < 10:
            images, labels = next(batches)
            order += positions(given.images, images)
            assert torch.equal(labels, given.labels[order[-len(images) :]])
            assert len(images) == min(size, 10 - len(order) + len(images))
        assert sorted(order) == list(range(10))
        orders.append(order)
    assert next(batches, None) is None
    assert len({tuple(order) for order in orders}) == 3  # shuffled anew in each epoch

    sgd = Sgd(settings.get("lr", 0.01), settings.get("momentum", 0.0), settings.get("weight_decay", 0.0))
    train_epochs(wanted, sgd, given.images, given.labels, orders, size)
    assert_same_weights(inner.network, wanted, rtol=1e-12, atol=1e-14)


def test_the_order_follows_from_the_key_and_not_from_the_global_generators():
    orders = []
    for key in (KEY, KEY, KEY.fold(1)):
        loop = TrainOnSynthetic(epochs=2)
        inner, seen = inner_network(loop), []
        before = torch.get_rng_state()
        loop.advance(inner, context(inner, seen), NOW, key)
        assert torch.equal(torch.get_rng_state(), before)
        orders.append(torch.stack([images for images, _ in seen]))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


class Counting(Augmentation):
    """Adds one, and writes down what was drawn."""

    def __init__(self):
        self.draws = []

    def draw(self, key, image_size, samples):
        self.draws.append((key, image_size, samples))
        return {}

    def apply(self, images, draw):
        return images + 1


def test_each_batch_is_augmented_by_its_own_draw_for_every_sample():
    augmentation, seen = Counting(), []
    loop = TrainOnSynthetic(epochs=2, batch_size=7)
    inner = inner_network(loop)
    given = context(inner, seen, augmentation)
    loop.advance(inner, given, NOW, KEY)
    assert [samples for _, _, samples in augmentation.draws] == [7, 3, 7, 3]
    assert all(size == (8, 8) for _, size, _ in augmentation.draws)
    assert len({key for key, _, _ in augmentation.draws}) == 4
    assert all(torch.equal(labels, given.labels[positions(given.images + 1, images)]) for images, labels in seen)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_restored_network_trains_on_as_if_nothing_had_happened(momentum):
    loop = TrainOnSynthetic(epochs=2, momentum=momentum)
    first = inner_network(loop, tiny_convnet("batch"))
    loop.advance(first, context(first), NOW, KEY)
    saved = copy.deepcopy(first.state_dict())

    other = inner_network(loop, tiny_convnet("batch"))
    other.renew(4)
    other.load_state_dict(saved)
    assert other.index == first.index == 0
    for inner in (first, other):
        loop.advance(inner, context(inner), NOW, KEY.fold(1))
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name


def test_the_state_can_be_saved_without_pickled_code(tmp_path):
    loop = TrainOnSynthetic(epochs=1, momentum=0.9)
    inner = inner_network(loop)
    loop.advance(inner, context(inner), NOW, KEY)
    torch.save(inner.state_dict(), tmp_path / "state.pt")
    restored = torch.load(tmp_path / "state.pt", weights_only=True)
    other = inner_network(loop)
    other.load_state_dict(restored)
    assert_same_weights(other.network, inner.network, rtol=0, atol=0)


def test_renewing_gives_fresh_keyed_weights_in_the_same_module():
    loop = TrainOnSynthetic(epochs=2, momentum=0.9)
    inner = inner_network(loop)
    module = inner.network
    start = [p.detach().clone() for p in module.parameters()]
    loop.advance(inner, context(inner), NOW, KEY)
    inner.renew(1)
    assert inner.network is module
    assert inner.index == 1
    assert not inner.optimizer.state  # no momentum of the network before
    assert_same_weights(module, build_network(tiny_convnet(), 1, (8, 8), 5, RandomKey(1).fold("network", 1)).double())
    inner.renew(0)
    assert all(torch.equal(p, s) for p, s in zip(module.parameters(), start, strict=True))


def test_training_touches_everything_that_is_listed_for_broadcasting():
    loop = TrainOnSynthetic(epochs=1, momentum=0.9)
    inner = inner_network(loop, MLP)
    before = [t.clone() for t in inner.tensors()]
    loop.advance(inner, context(inner), NOW, KEY)
    after = inner.tensors()
    assert len(after) == len(before) + len(list(inner.network.parameters()))  # the momentum buffers
    assert not any(torch.equal(a, b) for a, b in zip(after, before, strict=False))


def test_the_images_are_not_trained_with_the_network():
    loop = TrainOnSynthetic(epochs=1)
    inner = inner_network(loop)
    given = context(inner)
    images = given.images.clone().requires_grad_()
    loop.advance(inner, replace(given, images=images), NOW, KEY)
    assert images.grad is None


@pytest.mark.parametrize(
    "settings",
    [{"updates": 0}, {"epochs": -1}, {"batch_size": 0}, {"lr": -1.0}, {"momentum": -0.1}, {"weight_decay": -1.0}],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingsError, match=f"TrainOnSynthetic.{next(iter(settings))}"):
        TrainOnSynthetic(**settings)


def test_unknown_batch_norm_statistics_are_refused():
    with pytest.raises(SettingsError, match="batch_norm"):
        TrainOnSynthetic(batch_norm="synthetic")
