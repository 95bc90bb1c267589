from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch.nn import functional as F

from lit_condense.augmentation import AlwaysOn, Augmentation, NoAugmentation
from lit_condense.augmentation.cutmix import CutMix, mixed
from lit_condense.errors import SettingsError
from lit_condense.inner import InnerContext, TrainOnReal
from lit_condense.matching import GradientMatching, Progress
from lit_condense.rng import RandomKey
from tests.helpers import TinyData, WatchedLoss, fitted, fresh_inner_network
from tests.oracles import methods
from tests.oracles.dc import Sgd, cross_entropy, train_step

REAL = TinyData((20, 17, 20, 9, 14)).real
NOW = Progress(0, 0, 0)
KEY = RandomKey(3).fold("inner", 0, 0)


def context(inner, seen=None):
    """Synthetic images that must not be looked at."""
    loss = WatchedLoss(inner.network, None if seen is None else lambda *batch: seen.append(batch))
    images = torch.full((10, 1, 8, 8), torch.nan, dtype=torch.float64)
    return InnerContext(images, torch.zeros(10, dtype=torch.int64), (2,) * 5, NoAugmentation(), REAL, loss)


def literal(network, loop, sgd, key, steps):
    """One SGD step on each of the keyed batches of an advance."""
    keys = [key.fold("real", step) for step in range(steps)]
    orders = [torch.randperm(len(REAL), generator=here.generator()) for here in keys]
    return trained(
        network, loop, sgd, [(here, order[: loop.batch_size]) for here, order in zip(keys, orders, strict=True)]
    )


def trained(network, loop, sgd, batches):
    """One SGD step on each batch: augment each image, cut and paste, two cross-entropies."""
    mixes = 0
    for here, chosen in batches:
        images, labels = REAL.at(chosen).double(), REAL.labels_at(chosen)
        images = loop.augmentation.apply(images, loop.augmentation.draw(here.fold("augment"), (8, 8), len(images)))
        if loop.cutmix:
            draw = CutMix(loop.cutmix).draw(here.fold("cutmix"), (8, 8), len(images))["cutmix"]
            partners, box = draw[0].tolist(), [int(edge) for edge in draw[1:]]
            images, ratio = methods.cut_and_paste(images, partners, box)
            mixes += ratio < 1
            methods.mixed_train_step(network, sgd, images, labels, labels[partners], ratio)
        else:
            train_step(network, sgd, images, labels)
    return mixes


@pytest.mark.parametrize(
    "settings",
    [
        {"images": 24, "batch_size": 8},
        {"images": 24, "batch_size": 8, "cutmix": 0.0},
        {"images": 40, "batch_size": 8, "cutmix": 1.0},
        {"images": 5, "batch_size": 8, "cutmix": 1.0, "lr": 0.2, "momentum": 0.0, "weight_decay": 0.1},
        {"images": 16, "batch_size": 8, "augmentation": AlwaysOn(("flip", "color", "rotate", "cutout"))},
        {"images": 16, "batch_size": 8, "augmentation": NoAugmentation(), "cutmix": 0.0},
    ],
    ids=lambda s: ",".join(f"{k}={v if isinstance(v, float | int) else type(v).__name__}" for k, v in s.items()),
)
def test_advance_is_the_literal_loop(settings):
    loop = TrainOnReal(**settings)
    inner = fresh_inner_network(loop, REAL)
    wanted, sgd = copy.deepcopy(inner.network), Sgd(loop.lr, loop.momentum, loop.weight_decay)
    mixes, steps = 0, -(-loop.images // loop.batch_size)
    for match in range(2):  # the optimizer's momentum lives on
        key = KEY.fold(match)
        loop.advance(inner, context(inner), NOW, key)
        mixes += literal(wanted, loop, sgd, key, steps)
    for found, expected in zip(inner.network.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert (mixes > 0) == (loop.cutmix > 0)


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_early_epochs_are_the_literal_loop_over_all_real_images(cutmix):
    loop = TrainOnReal(early=2, batch_size=32, cutmix=cutmix)
    inner = fresh_inner_network(loop, REAL)
    wanted, sgd = copy.deepcopy(inner.network), Sgd(loop.lr, loop.momentum, loop.weight_decay)
    assert loop.trains_new
    loop.begin(inner, context(inner), KEY)
    for epoch in range(2):
        here = KEY.fold("early", epoch)
        order = torch.randperm(len(REAL), generator=here.generator())
        # 80 images: two batches of 32 and one of what is left
        batches = [(here.fold(step), order[32 * step : 32 * (step + 1)]) for step in range(3)]
        trained(wanted, loop, sgd, batches)
    for found, expected in zip(inner.network.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_new_network_is_trained_early_before_it_is_matched():
    seen = []

    class Loop(TrainOnReal):
        def begin(self, inner, context, key):
            super().begin(inner, context, key)
            seen.append(("begin", inner.index, key.path, weights_of(inner.network)))

    class Loss(GradientMatching):
        def on_train_start(self, trainer, pl_module):
            seen.clear()  # it is asked in the trial before the run too

        def weight_at(self, progress):
            if not seen or seen[-1][:2] != ("match", progress.update):
                seen.append(("match", progress.update, None, None))
            return super().weight_at(progress)

    fitted(Loss(), inner=Loop(updates=2, images=8, batch_size=8, early=1), max_steps=4)
    assert [event[:2] for event in seen] == [
        *(("begin", 0), ("match", 0), ("match", 1)),
        *(("begin", 1), ("match", 2), ("match", 3)),
    ]
    begun = [event for event in seen if event[0] == "begin"]
    assert [path for _, _, path, _ in begun] == [("inner", 0, "begin"), ("inner", 1, "begin")]
    assert not torch.equal(begun[0][3], begun[1][3])


def weights_of(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize(
    ("images", "batch_size", "steps"),
    [(2000, 64, 32), (500, 64, 8), (2000, 128, 16), (64, 64, 1), (65, 64, 2), (0, 64, 0)],
)
def test_real_images_are_rounded_up_to_whole_batches(images, batch_size, steps, monkeypatch):
    loop, seen = TrainOnReal(images=images, batch_size=batch_size, cutmix=0), []
    inner = fresh_inner_network(loop, REAL)
    monkeypatch.setattr(inner, "train_step", lambda loss, batch, labels: seen.append(len(batch)))
    loop.advance(inner, context(inner), NOW, KEY)
    assert seen == [min(batch_size, len(REAL))] * steps


def test_every_step_has_a_fresh_batch_without_an_image_twice():
    loop, seen = TrainOnReal(images=60, batch_size=12, cutmix=0, augmentation=NoAugmentation()), []
    inner = fresh_inner_network(loop, REAL)
    loop.advance(inner, context(inner, seen), NOW, KEY)
    loop.advance(inner, context(inner, seen), NOW, KEY.fold(1))
    store = REAL.at(torch.arange(len(REAL))).double()
    batches = []
    for images, labels in seen:
        distances = (images[:, None] - store).abs().amax((2, 3, 4))
        chosen = distances.argmin(1)
        assert distances.min(1).values.max() < 1e-12
        assert torch.equal(REAL.labels[chosen], labels)
        assert len(set(chosen.tolist())) == 12
        batches.append(tuple(chosen.tolist()))
    assert len(set(batches)) == 10


@pytest.mark.parametrize("per_network", [1, 4])
def test_batches_can_go_through_all_images_in_epochs_from_network_to_network(per_network):
    loop = TrainOnReal(images=24, batch_size=12, cutmix=0, augmentation=NoAugmentation(), batches="epochs")
    store, drawn = REAL.at(torch.arange(len(REAL))).double(), []
    for update in range(9):  # 2 steps each; 80 images are 6 batches of 12 and one of 8
        seen, (network, match) = [], divmod(update, per_network)
        inner = fresh_inner_network(loop, REAL)
        key = RandomKey(3).fold("inner", network, match)
        loop.advance(inner, context(inner, seen), Progress(update, network, match), key)
        drawn += [(images[:, None] - store).abs().amax((2, 3, 4)).argmin(1).tolist() for images, _ in seen]
    assert [len(batch) for batch in drawn] == ([12] * 6 + [8]) * 2 + [12] * 4
    orders = [torch.randperm(80, generator=RandomKey(3).fold("walk", "inner", "pass", p).generator()) for p in range(3)]
    assert list(itertools.chain(*drawn)) == torch.cat(orders)[: 160 + 48].tolist()
    for epoch in (drawn[:7], drawn[7:14]):
        assert sorted(itertools.chain(*epoch)) == list(range(80))


def test_soft_labels_are_the_share_of_each_image_and_half_of_the_batches_are_mixed():
    loop, seen = TrainOnReal(images=4 * 60, batch_size=4, augmentation=NoAugmentation()), []
    inner = fresh_inner_network(loop, REAL)
    loop.advance(inner, context(inner, seen), NOW, KEY)
    count = 0
    for images, labels in seen:
        assert labels.shape == (4, 5)
        torch.testing.assert_close(labels.sum(1), torch.ones(4, dtype=torch.float64))
        assert labels.min() >= 0
        count += bool((labels.max(1).values < 1).any())
        assert images.shape == (4, 1, 8, 8)
    # 60 coin throws, some of whose boxes are empty or meet partners of the same class
    assert 10 <= count <= 40


def test_cross_entropy_with_soft_labels_is_the_weighted_sum_of_two():
    images, labels = torch.rand(6, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0])
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = []
    for i in range(20):
        key = KEY.fold(i)
        _, soft = mixed(images, labels, 1.0, 5, key)
        partners, *edges = CutMix(1.0).draw(key, (8, 8), 6)["cutmix"]
        _, ratio = methods.cut_and_paste(images, partners.tolist(), [int(edge) for edge in edges])
        wanted = ratio * cross_entropy(logits, labels) + (1 - ratio) * cross_entropy(logits, labels[partners])
        torch.testing.assert_close(F.cross_entropy(logits, soft), wanted, rtol=1e-12, atol=0)
        shares.append(ratio)
    assert min(shares) < 0.6
    assert max(shares) > 0.8


class Counting(Augmentation):
    """Writes down what is drawn."""

    def __init__(self):
        self.draws = []

    def draw(self, key, image_size, samples):
        self.draws.append((key.path, image_size, samples))
        return {}


def test_each_image_of_a_batch_is_augmented_by_its_own_draw():
    augmentation = Counting()
    loop = TrainOnReal(images=20, batch_size=8, augmentation=augmentation)
    inner = fresh_inner_network(loop, REAL)
    loop.advance(inner, context(inner), NOW, KEY)
    assert [samples for _, _, samples in augmentation.draws] == [8, 8, 8]
    assert all(size == (8, 8) for _, size, _ in augmentation.draws)
    assert len({path for path, _, _ in augmentation.draws}) == 3


def test_the_key_alone_decides_and_the_global_generators_are_left_alone():
    weights = []
    for key in (KEY, KEY, KEY.fold(1)):
        loop = TrainOnReal(images=16, batch_size=8)
        inner = fresh_inner_network(loop, REAL)
        before = torch.get_rng_state()
        loop.advance(inner, context(inner), NOW, key)
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(torch.cat([p.detach().flatten() for p in inner.network.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_defaults_are_those_of_idc():
    loop = TrainOnReal()
    assert (loop.updates, loop.images, loop.batch_size, loop.cutmix) == (100, 2000, 64, 0.5)
    assert (loop.lr, loop.momentum, loop.weight_decay, loop.batch_norm) == (0.01, 0.9, 5e-4, "own_batch")
    assert set(loop.augmentation.operations) == {"color", "crop"}
    assert isinstance(loop.augmentation, AlwaysOn)
    assert [loop.updates_per_network([ipc]) for ipc in (1, 10, 50)] == [100] * 3
    assert (loop.early, loop.trains_new, loop.batches) == (0, False, "anew")


@pytest.mark.parametrize(
    "settings",
    [
        {"updates": 0},
        {"images": -1},
        {"batch_size": 0},
        {"early": -1},
        {"cutmix": 1.5},
        {"cutmix": -0.1},
        {"lr": -1.0},
        {"batches": "all"},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingsError, match=f"TrainOnReal.{next(itertools.chain(settings))}"):
        TrainOnReal(**settings)
