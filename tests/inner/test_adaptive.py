from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from lit_condense.augmentation import NoAugmentation
from lit_condense.errors import SettingsError
from lit_condense.inner import (
    DecreasingTraining,
    InnerContext,
    TrainOnSynthetic,
    TrainUntilOverfitting,
    decreasing_epochs,
)
from lit_condense.matching import Progress
from lit_condense.rng import RandomKey
from tests.helpers import TinyData, WatchedLoss, fresh_inner_network, tiny_convnet
from tests.oracles import methods
from tests.oracles.dc import Sgd, train_epochs

REAL = TinyData().real
KEY = RandomKey(3).fold("inner", 0, 0)


def at(match):
    return Progress(match, 0, match)


def context(inner, ipc=2, epochs_seen=None, real=REAL):
    """Random images, so that learning them soon helps no real image."""
    labels = torch.arange(5).repeat_interleave(ipc)
    images = torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    watch = None if epochs_seen is None else lambda batch, _: epochs_seen.append(len(batch))
    loss = WatchedLoss(inner.network, watch)
    return InnerContext(images, labels, (ipc,) * 5, NoAugmentation(), real, loss)


def assert_same_weights(network, other, **tolerance):
    for found, wanted in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, **tolerance)


CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def orders(key, images, epochs):
    return [torch.randperm(images, generator=key.fold("order", e).generator()) for e in range(epochs)]


# ------------------------------------------------------------------ the decreasing schedule


def test_the_published_table_of_epochs():
    table = [50, 40, 30, 20, *[10] * 6, *[5] * 60]
    assert [decreasing_epochs(m) for m in range(70)] == table
    loop = DecreasingTraining()
    assert [loop.epochs_after(at(m), (50,) * 5) for m in range(70)] == table


def test_the_first_release_opens_with_other_epochs():
    loop = DecreasingTraining(opening=[100, 50, 50, 50])
    assert [loop.epochs_after(at(m), (50,) * 5) for m in range(20)] == [100, 50, 50, 50, *[10] * 6, *[5] * 10]
    assert [decreasing_epochs(m, ()) for m in (0, 9, 10)] == [10, 10, 5]


def test_negative_epochs_of_an_opening_are_refused():
    with pytest.raises(SettingsError, match=r"DecreasingTraining.opening to hold 0 or more epochs, got \[5, -1\]"):
        DecreasingTraining(opening=[5, -1])


@pytest.mark.parametrize(("ipc", "total"), [(1, 0), (10, 190), (20, 245), (30, 295), (40, 345), (50, 395)])
def test_the_published_totals_of_epochs(ipc, total):
    loop = DecreasingTraining()
    updates = loop.updates_per_network((ipc,) * 5)
    assert updates == ipc
    # after a network's last update it is not trained
    assert sum(loop.epochs_after(at(m), (ipc,) * 5) for m in range(updates - 1)) == total


def test_advance_really_trains_for_these_epochs():
    loop = DecreasingTraining()
    inner, seen = fresh_inner_network(loop, REAL), []
    given = context(inner, epochs_seen=seen)
    counts = []
    for match in (0, 3, 4, 9, 10, 40):
        seen.clear()
        loop.advance(inner, given, at(match), KEY.fold(match))
        counts.append(len(seen))  # one batch an epoch
    assert counts == [50, 20, 10, 10, 5, 5]


def test_it_is_the_literal_loop_with_momentum_kept_between_updates():
    loop = DecreasingTraining(updates=12, batch_size=4)
    inner = fresh_inner_network(loop, REAL)
    wanted, sgd, given = copy.deepcopy(inner.network), Sgd(0.01, 0.5), context(inner)
    for match in (9, 10):
        key = KEY.fold(match)
        loop.advance(inner, given, at(match), key)
        epochs = {9: 10, 10: 5}[match]
        train_epochs(wanted, sgd, given.images, given.labels, orders(key, 10, epochs), 4)
    assert_same_weights(inner.network, wanted, **CLOSE)


@pytest.mark.parametrize("loop", [DecreasingTraining, TrainUntilOverfitting])
def test_the_defaults_are_those_of_egm(loop):
    made = loop()
    assert (made.batch_size, made.lr, made.momentum, made.weight_decay) == (256, 0.01, 0.5, 0.0)
    assert [made.updates_per_network([ipc]) for ipc in (1, 10, 50)] == [1, 10, 50]
    assert loop(updates=7).updates_per_network([10]) == 7


# ------------------------------------------------------------------ until over-fitting


def held_out(key, count, real=REAL):
    chosen = torch.randperm(len(real), generator=key.fold("held_out").generator())[:count]
    return real.at(chosen).double(), real.labels_at(chosen)


def literal(network, loop, sgd, given, key):
    return methods.train_until_overfitting(
        network,
        sgd,
        given.images,
        given.labels,
        orders(key, len(given.labels), loop.most_epochs),
        loop.batch_size,
        *held_out(key, loop.held_out, given.real),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"most_epochs": 12},
        {"lr": 0.1},
        {"lr": 0.1, "batch_size": 4, "momentum": 0.9, "weight_decay": 0.01},
        {"held_out": 5, "lr": 0.05, "most_epochs": 20},
        {"lr": 1e-4, "most_epochs": 4},
        {"momentum": 0.0, "lr": 0.3},
    ],
    ids=str,
)
def test_it_is_the_literal_loop(settings):
    loop = TrainUntilOverfitting(**settings)
    inner, seen = fresh_inner_network(loop, REAL), []
    given = context(inner, epochs_seen=seen)
    wanted, sgd = copy.deepcopy(inner.network), Sgd(loop.lr, loop.momentum, loop.weight_decay)
    for match in range(2):  # the optimizer's momentum lives on, the measuring batch is a new one
        seen.clear()
        key = KEY.fold(match)
        loop.advance(inner, given, at(match), key)
        epochs = literal(wanted, loop, sgd, given, key)
        assert len(seen) == epochs * -(-10 // loop.batch_size)
        assert_same_weights(inner.network, wanted, **CLOSE)


def epochs_done(loop, key=KEY, real=REAL):
    inner, seen = fresh_inner_network(loop, real), []
    loop.advance(inner, context(inner, epochs_seen=seen, real=real), at(0), key)
    return len(seen)


def test_the_stops_of_the_literal_loop_are_of_both_kinds():
    counts = [epochs_done(TrainUntilOverfitting(lr=0.1, held_out=12), KEY.fold(i)) for i in range(6)]
    assert len(set(counts)) > 1
    assert min(counts) < 50


@pytest.mark.parametrize("most", [1, 7, None])
def test_it_never_trains_for_more_than_the_most_epochs(most):
    # a rate so small that the loss on anything moves steadily one way; take a batch on which it falls
    settings = {"lr": 1e-6, **({"most_epochs": most} if most else {})}
    counts = [epochs_done(TrainUntilOverfitting(held_out=3, **settings), KEY.fold(i)) for i in range(4)]
    assert max(counts) == (most or 50)
    assert set(counts) <= {1, most or 50}


class Losses(WatchedLoss):
    """A network's loss: training steps are counted, measurements are read off a list."""

    def __init__(self, inner, measured):
        super().__init__(inner.network, self.count)
        self.measured, self.steps, self.asked = list(measured), 0, []

    def count(self, images, labels):
        self.steps += 1

    def __call__(self, images, labels):
        assert not torch.is_grad_enabled()
        self.asked.append((images, labels))
        return torch.tensor(self.measured[len(self.asked) - 1])


@pytest.mark.parametrize(
    ("measured", "epochs"),
    [
        ([5.0, 6.0], 1),
        ([5.0, 4.0, 3.0, 3.5], 3),
        ([5.0, 4.0, 4.0, 4.1], 3),  # as large as before is not larger
        ([5.0, 4.0, 4.5], 2),  # above the value before, though below the first
        ([9.0, *(8.0 - 0.1 * i for i in range(49)), 1.0], 50),
        ([1.0] * 51, 50),
    ],
    ids=lambda v: str(v)[:24],
)
def test_it_stops_with_the_first_epoch_after_which_the_loss_is_above_its_previous_value(measured, epochs):
    loop = TrainUntilOverfitting()
    inner = fresh_inner_network(loop, REAL)
    losses = Losses(inner, measured)
    loop.advance(inner, replace(context(inner), loss=losses), at(0), KEY)
    assert losses.steps == epochs
    assert len(losses.asked) == epochs + 1  # once before, and after every epoch


def test_the_measuring_batch_is_mixed_real_images_the_same_for_an_update_and_new_for_the_next():
    loop = TrainUntilOverfitting(held_out=12)
    batches = []
    for key in (KEY, KEY.fold(1)):
        inner = fresh_inner_network(loop, REAL)
        losses = Losses(inner, [4.0, 3.0, 2.0, 3.0])
        loop.advance(inner, replace(context(inner), loss=losses), at(0), key)
        images, labels = losses.asked[0]
        assert all(torch.equal(images, again) for again, _ in losses.asked)
        wanted, wanted_labels = held_out(key, 12)
        assert torch.equal(images, wanted)
        assert torch.equal(labels, wanted_labels)
        assert len(set(labels.tolist())) > 1
        batches.append(images)
    assert not torch.equal(*batches)


def test_the_published_measuring_batch_is_256_images():
    real = TinyData((70,) * 5).real
    loop = TrainUntilOverfitting(most_epochs=1)
    inner = fresh_inner_network(loop, real)
    losses = Losses(inner, [1.0, 1.0])
    loop.advance(inner, replace(context(inner, real=real), loss=losses), at(0), KEY)
    assert [len(images) for images, _ in losses.asked] == [256, 256]


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_network_measures_in_training_mode_and_stays_in_it(norm):
    loop = TrainUntilOverfitting(most_epochs=2)
    inner = fresh_inner_network(loop, REAL, tiny_convnet(norm))
    modes = []
    inner.network.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    loop.advance(inner, context(inner), at(0), KEY)
    assert all(modes)
    assert all(m.training for m in inner.network.modules())


@pytest.mark.parametrize("settings", [{"most_epochs": 0}, {"held_out": 0}, {"batch_size": 0}, {"lr": -1.0}], ids=str)
def test_settings_out_of_range_are_refused(settings):
    name = next(iter(settings))
    owner = "TrainUntilOverfitting" if name in ("most_epochs", "held_out") else "Train"
    with pytest.raises(SettingsError, match=f"{owner}.*{name}"):
        TrainUntilOverfitting(**settings)


def test_a_fixed_number_of_epochs_is_another_loop():
    # the contract that both schedules change: TrainOnSynthetic asks for the epochs after each update
    loop = TrainOnSynthetic(epochs=3)
    assert [loop.epochs_after(at(m), (2,) * 5) for m in range(12)] == [3] * 12
