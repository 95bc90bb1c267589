from __future__ import annotations

import io

import pytest
import torch

from lit_condense.errors import SettingsError
from lit_condense.functional.kmeans import plus_plus
from lit_condense.matching import Progress
from lit_condense.networks import MLP, FeaturesAndLogits, as_condensable, build_network
from lit_condense.networks.features import network_features, representatives
from lit_condense.rng import RandomKey
from lit_condense.sampling import Representative
from lit_condense.sharding import Share
from tests.helpers import TinyData, tiny_convnet
from tests.methods.helpers import Parts
from tests.oracles import clustering, methods

SIZES = (20, 13, 5, 16)
"""Images of each class; with batches of 6, class 2 is used whole."""
REAL = TinyData(SIZES).real
CLASSES = range(len(SIZES))
KEY = RandomKey(2).fold("sampling", 10)


def outputs_of(index=0, norm="instance", factory=None):
    network = build_network(factory or tiny_convnet(norm), 1, (8, 8), len(SIZES), RandomKey(7).fold("network", index))
    return FeaturesAndLogits(as_condensable(network, len(SIZES)).double())


OUTPUTS = outputs_of()


def progress_of(match, network=0):
    return Progress(103 * network + match, network, match)  # 103: a network's life is no multiple of the interval


def refreshed(sampling, outputs=OUTPUTS, progress=progress_of(0), key=KEY, share=Share()):  # noqa: B008 - both are frozen
    sampling.refresh(REAL, network_features(outputs.network), progress, key, share)
    return choices(sampling)


def choices(sampling):
    return [sampling.select(REAL, c, RandomKey(0)) for c in CLASSES]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def assert_literal(found, candidates, key, per_cluster=1, seeding="kmeans++"):
    """Embed normalised images, cluster them, and let each centre in turn take the nearest images that are left."""
    with torch.no_grad():
        features = methods.features_of(OUTPUTS.network, REAL.at(candidates).double())
    clusters = len(found) // per_cluster
    if seeding == "random":
        start = torch.randperm(len(candidates), generator=key.generator())[:clusters].tolist()
    else:
        start = plus_plus(features, clusters, key.generator()).tolist()
    centres, _ = clustering.lloyd(features, start)
    positions = [candidates.tolist().index(i) for i in found.tolist()]
    assert len(set(positions)) == len(positions)
    assert clustering.excess(features, centres, positions, per_cluster) < 1e-10


# ------------------------------------------------------------------ what is chosen


@pytest.mark.parametrize("per_cluster", [1, 2, 3])
def test_the_choice_is_the_literal_one(per_cluster):
    found = refreshed(Representative(6, per_cluster=per_cluster))
    for c in CLASSES:
        if c != 2:
            assert_literal(found[c], REAL.indices_of(c), KEY.fold("kmeans", c), per_cluster)


@pytest.mark.parametrize("per_cluster", [1, 3])
def test_the_choice_from_random_starts_is_the_literal_one(per_cluster):
    found = refreshed(Representative(6, per_cluster=per_cluster, seeding="random"))
    for c in (0, 1, 3):
        assert_literal(found[c], REAL.indices_of(c), KEY.fold("kmeans", c), per_cluster, "random")
    assert not same(found, refreshed(Representative(6, per_cluster=per_cluster)))
    assert same(found, refreshed(Representative(6, per_cluster=per_cluster, seeding="random")))


@pytest.mark.parametrize("chunk", [1, 7, 500])
def test_the_chunks_of_the_forward_pass_do_not_matter(chunk):
    found = refreshed(Representative(6, chunk=chunk))
    for c in (0, 1, 3):
        assert_literal(found[c], REAL.indices_of(c), KEY.fold("kmeans", c))


@pytest.mark.parametrize("settings", [{}, {"per_cluster": 3}, {"subset": 8}], ids=str)
def test_a_batch_holds_different_images_of_its_class(settings):
    sampling = Representative(6, **settings)
    for c, chosen in enumerate(refreshed(sampling)):
        assert chosen.dtype == torch.int64
        assert len(chosen) == len(set(chosen.tolist())) == sampling.size(REAL, c) == min(6, SIZES[c])
        assert (REAL.labels[chosen] == c).all()


def test_a_class_smaller_than_the_batch_is_used_whole():
    assert sorted(refreshed(Representative(6))[2].tolist()) == REAL.indices_of(2).tolist()
    everything = refreshed(Representative(50))
    assert [sorted(chosen.tolist()) for chosen in everything] == [REAL.indices_of(c).tolist() for c in CLASSES]


def test_a_class_of_exactly_the_batch_is_used_whole():
    assert sorted(refreshed(Representative(13))[1].tolist()) == REAL.indices_of(1).tolist()


def test_another_network_or_key_chooses_other_images():
    first = refreshed(Representative(6))
    assert not same(first, refreshed(Representative(6), outputs=outputs_of(1)))
    assert not same(first, refreshed(Representative(6), key=KEY.fold(1)))
    assert same(first, refreshed(Representative(6)))


def test_representatives_lie_closer_to_their_class_than_random_ones():
    # every image of the class has a chosen one near: that is what clustering is for
    with torch.no_grad():
        features = methods.features_of(OUTPUTS.network, REAL.at(REAL.indices_of(0)).double())
    position = {int(index): i for i, index in enumerate(REAL.indices_of(0))}

    def reach(chosen):
        return clustering.inertia(features, features[[position[int(i)] for i in chosen]])

    found = reach(refreshed(Representative(6))[0])
    random = [reach(REAL.random_of_class(0, 6, RandomKey(i))) for i in range(20)]
    assert found < sum(random) / 20
    assert found < sorted(random)[4]


def test_a_subset_is_drawn_by_key_and_clustered_alone():
    found = refreshed(Representative(6, subset=9))
    for c in CLASSES:
        subset = REAL.random_of_class(c, 9, KEY.fold("kmeans", c, "subset"))
        assert set(found[c].tolist()) <= set(subset.tolist())
        if c != 2:
            assert_literal(found[c], subset, KEY.fold("kmeans", c))
    others = refreshed(Representative(6, subset=9), key=KEY.fold(1))
    assert set(found[0].tolist()) != set(others[0].tolist())


def test_a_subset_of_the_batch_size_is_a_random_batch():
    found = refreshed(Representative(6, subset=6))
    for c in (0, 1, 3):
        assert torch.equal(found[c], REAL.random_of_class(c, 6, KEY.fold("kmeans", c, "subset")))


# ------------------------------------------------------------------ when


@pytest.mark.parametrize("interval", [1, 3, 10])
def test_it_chooses_at_every_interval_and_holds_in_between(interval):
    sampling, changed, before = Representative(6, interval=interval), [], None
    for match in range(12):
        # a network that trains on: another one at each update, and another key
        now = refreshed(sampling, outputs_of(match), progress_of(match), KEY.fold(match))
        if before is not None and not same(before, now):
            changed.append(match)
        before = now
    assert changed == [m for m in range(1, 12) if m % interval == 0]


def test_a_new_network_always_chooses():
    sampling = Representative(6, interval=10)
    first = refreshed(sampling)
    for match in range(1, 4):
        assert same(first, refreshed(sampling, outputs_of(1), progress_of(match), KEY.fold(1)))
    second = refreshed(sampling, outputs_of(1), progress_of(0, network=1), KEY.fold(1))
    assert not same(first, second)
    assert same(second, refreshed(Representative(6), outputs_of(1), key=KEY.fold(1)))


def test_before_the_first_choice_batches_are_random_and_of_the_right_size():
    sampling = Representative(6)
    for c in CLASSES:
        chosen = sampling.select(REAL, c, KEY)
        assert len(chosen) == sampling.size(REAL, c)
        assert (REAL.labels[chosen] == c).all()


# ------------------------------------------------------------------ state


def test_the_state_goes_through_a_file_without_pickled_code():
    sampling, file = Representative(6), io.BytesIO()
    first = refreshed(sampling)
    torch.save(sampling.state_dict(), file)
    file.seek(0)
    other = Representative(6)
    refreshed(other, key=KEY.fold(1))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same(choices(other), first)
    assert same(refreshed(other, outputs_of(1), progress_of(9)), first)  # still held


def test_a_later_choice_does_not_change_a_saved_state():
    sampling = Representative(6)
    first = refreshed(sampling)
    saved = sampling.state_dict()
    refreshed(sampling, key=KEY.fold(1))
    other = Representative(6)
    other.load_state_dict(saved)
    assert same(choices(other), first)


def test_the_state_before_the_first_choice_can_be_restored():
    other = Representative(6)
    refreshed(other)
    other.load_state_dict(Representative(6).state_dict())
    assert torch.equal(other.select(REAL, 0, KEY), REAL.random_of_class(0, 6, KEY))


def test_the_interval_can_count_updates_of_the_run_where_networks_live_shorter():
    sampling, changed, before = Representative(6, interval=3, every_network=False), [], None
    for update in range(8):  # a new network for every update
        sampling.refresh(
            REAL, network_features(outputs_of(update).network), Progress(update, update, 0), KEY.fold(update), Share()
        )
        now = choices(sampling)
        if before is not None and not same(before, now):
            changed.append(update)
        before = now
    assert changed == [3, 6]


# ------------------------------------------------------------------ ranks, and what it leaves alone


@pytest.mark.parametrize("settings", [{}, {"per_cluster": 2, "subset": 10}], ids=str)
@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_every_rank_has_the_choice_of_a_single_process(ranks, settings):
    wanted = refreshed(Representative(6, **settings))

    def work(share):
        sampling = Representative(6, **settings)
        return refreshed(sampling, share=share)

    for found in Parts(ranks).run(work):
        assert same(found, wanted)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_network_is_left_as_it_was(norm):
    outputs = outputs_of(norm=norm)
    outputs.network.train()
    frozen = [m for m in outputs.network.modules() if isinstance(m, torch.nn.BatchNorm2d)][:1]
    for layer in frozen:
        layer.eval()
    before = {name: value.clone() for name, value in outputs.state_dict().items()}
    modes = [m.training for m in outputs.modules()]
    refreshed(Representative(6), outputs)
    assert all(torch.equal(value, before[name]) for name, value in outputs.state_dict().items())
    assert [m.training for m in outputs.modules()] == modes
    assert all(p.grad is None for p in outputs.parameters())


def test_the_global_generators_are_left_alone():
    before = torch.get_rng_state()
    refreshed(Representative(6))
    assert torch.equal(torch.get_rng_state(), before)


def test_any_network_with_features_will_do():
    outputs = outputs_of(factory=MLP)
    found = refreshed(Representative(6), outputs)
    assert len(set(found[0].tolist())) == 6


def test_the_function_alone_picks_among_the_candidates():
    candidates = REAL.indices_of(3)[::2]
    features = network_features(OUTPUTS.network)
    found = representatives(features, REAL, candidates.unsqueeze(0), 4, [KEY], per_cluster=2)
    assert_literal(found[0], candidates, KEY, per_cluster=2)


def test_raw_pixels_can_be_clustered_as_in_the_published_program():
    shown = []

    def features(images):
        shown.append(images)
        return images.flatten(1).double()

    Representative(6, pixels="raw").refresh(REAL, features, progress_of(0), KEY, Share())
    wanted = torch.cat([REAL.pixels_at(REAL.indices_of(c)) for c in (1, 3, 0)])  # smaller classes first, 2 is whole
    assert torch.equal(torch.cat(shown), wanted)


def test_classes_of_one_size_are_clustered_together_and_choose_as_alone():
    equal = TinyData((20, 20, 20)).real
    keys = [KEY.fold(c) for c in range(3)]
    features = network_features(outputs_of().network)
    indices = torch.stack([equal.indices_of(c) for c in range(3)])
    together = representatives(features, equal, indices, 6, keys)
    alone = [representatives(features, equal, indices[c : c + 1], 6, keys[c : c + 1])[0] for c in range(3)]
    assert same(together, alone)


# ------------------------------------------------------------------ settings


def test_the_defaults_are_the_published_ones():
    sampling = Representative()
    assert (sampling.batch_size, sampling.interval, sampling.per_cluster, sampling.subset) == (128, 10, 1, None)
    assert sampling.seeding == "kmeans++"
    assert sampling.needs == {"features"}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"batch_size": 0}, "batch_size to be 1 or more"),
        ({"interval": 0}, "interval"),
        ({"per_cluster": 0}, "per_cluster"),
        ({"chunk": 0}, "chunk"),
        ({"pixels": "bytes"}, "pixels"),
        ({"seeding": "first"}, r"Representative.seeding to be 'kmeans\+\+' or 'random', got 'first'"),
        ({"batch_size": 7, "per_cluster": 2}, r"batch_size \(7\) to be a multiple of per_cluster \(2\)"),
        ({"batch_size": 7, "subset": 6}, r"subset to be at least batch_size \(7\), got 6"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings, named):
    with pytest.raises(SettingsError, match=named):
        Representative(**settings)
