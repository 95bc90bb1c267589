"""A pool: which networks an update is about, how they are trained, and what is said of them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from lit_condense.errors import SettingsError
from lit_condense.inner import InnerContext, Pool, networks
from lit_condense.inner.contract import slots_of
from lit_condense.inner.networks import InnerNetworks, Keeping, move_
from lit_condense.matching import ClassAwareCrossEntropy, FeatureMatching, GradientMatching, Progress
from lit_condense.networks import build_network
from lit_condense.rng import RandomKey
from lit_condense.sampling import Representative
from tests.helpers import DOUBLE, Recorder, TinyData, WatchedLoss, fitted, fresh_inner_network, resumed, tiny_convnet
from tests.oracles import idm

REAL = TinyData().real


def pool(seed=0, **settings):
    made = Pool(**{"size": 6, "every": 3, "batch_size": 8, "steps": 3, **settings})
    made.begin_run(RandomKey(seed))
    return made


def context(network, watch=None):
    images, labels = REAL.at(torch.arange(4)).double(), REAL.labels_at(torch.arange(4))
    loss = WatchedLoss(network, watch)
    return InnerContext(images, labels, [1] * 5, pool().augmentation, REAL, loss)


# ------------------------------------------------------------------ which networks


@pytest.mark.parametrize(("size", "every"), [(6, 3), (4, 1), (20, 30), (3, 2)])
def test_the_queue_is_the_published_one(size, every):
    wanted = idm.queues(700, size, every)
    assert [pool(size=size, every=every).alive(update, every) for update in range(700)] == wanted
    assert max(map(len, wanted)) == size
    assert len(pool(size=size, every=every).alive(0, every)) == min(4, size)


def test_a_network_lives_for_as_many_updates_as_the_pool_holds_networks_times_their_interval():
    made = pool()
    lives = Counter(slot for update in range(90) for slot in made.alive(update, 3))
    assert {lives[slot] for slot in range(6, 20)} == {6 * 3}


def test_the_key_and_the_update_draw_the_networks():
    one, other = pool(), pool(seed=1)
    drawn = [one.networks(update, 3) for update in range(60)]
    assert drawn == [pool().networks(update, 3) for update in range(60)]
    assert drawn != [other.networks(update, 3) for update in range(60)]
    assert drawn != [one.trained_after(update, 3)[:1] for update in range(60)]


def test_every_network_is_matched_and_trained_as_often_as_the_others():
    made, updates = pool(size=5, every=1000), range(3, 900)
    matched = Counter(slot for update in updates for slot in made.networks(update, 1000))
    trained = Counter(slot for update in updates for slot in made.trained_after(update, 1000))
    for counts, each in ((matched, 1), (trained, 2)):
        expected = len(updates) * each / 4  # alive: three at the start and one
        assert sorted(counts) == [0, 1, 2, 3]
        assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5


def test_several_can_be_matched_and_fewer_trained_than_asked_where_there_are_fewer():
    made = pool(size=8, matched=6, trained=9)
    slots = slots_of(made, 0, 3)
    assert len(slots.matched) == 6
    assert sorted(slots.trained) == slots.alive
    assert slots_of(pool(trained=0), 0, 3).trained == []


def test_one_whose_life_is_over_is_not_trained():
    made = pool(size=4, every=1)
    for update in range(20):
        assert min(made.alive(update, 1)) not in made.trained_after(update, 1)


# ------------------------------------------------------------------ their training and their accuracy


def test_networks_are_trained_on_mixed_real_batches_and_their_accuracy_counted_as_in_the_definition():
    made, batches = pool(steps=5), []
    inner = fresh_inner_network(made, REAL)
    literal = build_network(tiny_convnet(), 1, (8, 8), 5, RandomKey(1).fold("network", 0)).double()
    optimizer = torch.optim.SGD(literal.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    here = context(inner.network, lambda *batch: batches.append(batch))
    seen = right = 0
    for update in (0, 1):
        made.advance(inner, here, Progress(update, 0, update), RandomKey(5).fold(update))
        accuracy = idm.trained(literal, optimizer, batches[5 * update :])
        seen, right = seen + 40, right + accuracy * 40
        assert made.numbers(inner, here, Progress(update + 1, 0, update + 1)) == {"accuracy": right / seen}
    assert 0 < right < seen
    for ours, theirs in zip(inner.network.parameters(), literal.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert all(len(labels) == 8 and len(set(labels.tolist())) > 1 for _, labels in batches)
    assert not torch.equal(batches[0][0], batches[1][0])


def test_a_new_network_has_an_empty_meter_and_all_are_emptied_when_it_is_time():
    made = pool(reset_meters_every=4)
    inner = fresh_inner_network(made, REAL)
    here = context(inner.network)
    accuracy = lambda update: made.numbers(inner, here, Progress(update, 0, update))["accuracy"]  # noqa: E731
    assert accuracy(0) == 0
    for update in range(3):
        made.advance(inner, here, Progress(update, 0, update), RandomKey(update))
    assert accuracy(3) > 0
    assert accuracy(4) == 0
    made.advance(inner, here, Progress(4, 0, 4), RandomKey(4))
    assert accuracy(5) > 0
    assert made.state_dict()["meters"][0][1] == 3 * 8  # counted from the reset on
    inner.renew(1)
    assert accuracy(5) == 0
    never = pool(reset_meters_every=None)
    never.advance(inner, here, Progress(0, 1, 0), RandomKey(0))
    assert never.numbers(inner, here, Progress(10**6, 1, 0)) == {"accuracy": never.state_dict()["meters"][1][2] / 24}


def test_meters_of_networks_that_are_gone_are_dropped():
    made = pool(size=3, every=1)
    inner = fresh_inner_network(made, REAL)
    here = context(inner.network)
    for update in range(12):
        for slot in made.trained_after(update, 1):
            inner.index = slot
            made.advance(inner, here, Progress(update, slot, 0), RandomKey(update))
        assert set(made.state_dict()["meters"]) <= set(made.alive(update, 1))


# ------------------------------------------------------------------ in a run

IDM = (FeatureMatching, ClassAwareCrossEntropy)


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_broken_run_goes_on_with_all_its_networks_and_meters(tmp_path, stop):
    straight, on = resumed(tmp_path, stop, 9, *IDM, inner=lambda: Pool(5, 2, steps=2, batch_size=8))
    one, other = straight._training.state_dict(), on._training.state_dict()
    assert one["loop"] == other["loop"] != {"meters": {}}
    assert one["born"] == other["born"]
    assert one["resting"].keys() | {one["index"]} == set(straight.inner.alive(8, 2))  # each network once
    for slot, resting in one["resting"].items():
        for name, value in resting["network"].items():
            assert torch.equal(value, other["resting"][slot]["network"][name]), (slot, name)


def test_any_loss_and_any_sampling_can_be_used_with_a_pool():
    for losses, settings in (
        ([GradientMatching()], {}),
        ([GradientMatching("l1")], {"sampling": Representative(4, interval=2, every_network=False)}),
    ):
        recorder = Recorder()
        module = fitted(recorder, *losses, inner=Pool(4, 1, matched=2, steps=1, batch_size=8), max_steps=5, **settings)
        images = torch.stack(recorder.images)
        assert torch.isfinite(images).all()
        assert (images[1:] != images[:-1]).any((1, 2, 3, 4)).all()
        assert len(module._training.state_dict()["resting"]) == 3


def test_a_pool_whose_networks_are_never_trained_gives_no_accuracy_and_runs():
    for never in ({"trained": 0}, {"steps": 0}):
        made = Pool(4, 2, **never)
        assert made.gives == frozenset()
        assert slots_of(pool(**never), 5, 3).trained == []
        assert torch.isfinite(fitted(FeatureMatching(), inner=made, max_steps=12).images).all()
        with pytest.raises(SettingsError, match=r"gives accuracy of its networks, .* got Pool, which gives none"):
            fitted(ClassAwareCrossEntropy(), inner=Pool(4, 2, **never))


def test_a_loop_must_return_the_numbers_that_it_names():
    class Forgetful(Pool):
        def numbers(self, inner, context, progress):
            return {"acc": 0.5}

    with pytest.raises(SettingsError, match=r"Forgetful.numbers to return accuracy, as its `gives` says, got acc"):
        fitted(ClassAwareCrossEntropy(), inner=Forgetful(4, 2))


@pytest.mark.parametrize(("owner", "name"), [(Pool, "gives"), (ClassAwareCrossEntropy, "reads")])
def test_names_of_numbers_are_a_set(monkeypatch, owner, name):
    monkeypatch.setattr(owner, name, ["accuracy"])
    with pytest.raises(SettingsError, match=rf"{owner.__name__}.{name} to be a frozenset of names, got \['accuracy'\]"):
        fitted(ClassAwareCrossEntropy(), inner=Pool(4, 2))


def test_a_pool_is_not_cut_short_at_any_length(recwarn):
    fitted(FeatureMatching(), inner=Pool(4, 3, steps=1, batch_size=8), max_steps=4)
    assert not [str(one.message) for one in recwarn if "no multiple" in str(one.message)]


def test_the_start_of_a_run_says_what_its_networks_take(caplog):
    caplog.set_level("INFO")
    module = fitted(*[make() for make in IDM], inner=Pool(5, 2, steps=1, batch_size=8), max_steps=9, trainer=DOUBLE)
    numbers = sum(p.numel() for p in module.inner_network.network.parameters())
    megabytes = 5 * 8 * 2 * numbers / 1e6  # weights and momentum, float64
    words = f"up to 5 networks at a time, which with their optimizers take {megabytes:,.2f} MB"
    assert f"{words} of main memory and of each checkpoint" in caplog.text


def test_a_second_run_of_the_same_pool_begins_anew():
    made = Pool(20, 30, steps=3, batch_size=8)
    first = fitted(*[make() for make in IDM], inner=made, max_steps=12).images.clone()
    again = fitted(*[make() for make in IDM], inner=made, max_steps=12).images
    assert torch.equal(first, again)
    assert made.state_dict() != {"meters": {}}
    made.begin_run(RandomKey(0))
    assert made.state_dict() == {"meters": {}}


def test_networks_rest_in_main_memory_where_they_would_fill_half_of_the_device(monkeypatch):
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    assert Keeping(6, 100, gpu).home == gpu
    assert Keeping(7, 100, gpu).home == cpu
    assert Keeping(10**6, 10**6, cpu).home == cpu
    assert "0.00 MB of memory of cuda:0" in Keeping(6, 100, gpu).described
    assert "0.00 MB of main memory" in Keeping(7, 100, gpu).described


def test_networks_that_rest_elsewhere_come_back_with_weights_and_momentum(monkeypatch):
    there = torch.device("cpu", 0)  # another name of the same place: what is moved can be seen without a GPU
    moved = []
    monkeypatch.setattr(networks, "move_", lambda optimizer, device: (moved.append(device), move_(optimizer, device)))
    made = pool()
    inner = fresh_inner_network(made, REAL)
    held = InnerNetworks(inner, home=there)
    held.bring_in(0, 0)
    made.advance(inner, context(inner.network), Progress(0, 0, 0), RandomKey(0))
    before = [tensor.clone() for tensor in inner.tensors()]
    held.bring_in(1, 1)
    held.use(0)
    assert moved == [there, there, torch.device("cpu")]  # the first one rests, then the second, and the first is back
    for found, wanted in zip(inner.tensors(), before, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 0}, r"Pool.size to be 1 or more, got 0"),
        ({"every": 0}, r"Pool.every to be 1 or more, got 0"),
        ({"matched": 0}, r"Pool.matched to be 1 or more, got 0"),
        ({"matched": 7}, r"Pool.matched to be at most the size of the pool \(6\), got 7. Raise size"),
        ({"trained": -1}, r"Pool.trained to be 0 or more, got -1"),
        ({"steps": -1}, r"Pool.steps to be 0 or more, got -1"),
        ({"batch_size": 0}, r"Pool.batch_size to be 1 or more, got 0"),
        ({"reset_meters_every": 0}, r"Pool.reset_meters_every to be 1 or more, got 0"),
    ],
    ids=str,
)
def test_numbers_that_cannot_be_are_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        pool(**settings)
