from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_condense.functional import kmeans as module
from lit_condense.functional.kmeans import kmeans, nearest_distinct, plus_plus, random_points, squared_distances
from lit_condense.rng import RandomKey
from tests.oracles import clustering

KEY = RandomKey(4).fold("kmeans")
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(*path):
    return KEY.fold(*path).generator()


def blobs(clusters=6, each=30, spread=0.3, seed=0):
    centres = 4 * noise(clusters, 3, seed=seed)
    return (centres[:, None] + spread * noise(clusters, each, 3, seed=seed + 100)).flatten(0, 1)


# ------------------------------------------------------------------ distances


def test_distances_are_the_literal_ones():
    a, b = noise(5, 3), noise(4, 3, seed=1)
    found = squared_distances(a, b)
    wanted = [[clustering.distance_squared(x, y) for y in b] for x in a]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), **CLOSE)


def test_distances_of_far_away_points_are_not_negative():
    far = noise(20, 3).float() + 1e4
    assert squared_distances(far, far).min() >= 0


# ------------------------------------------------------------------ the start


@pytest.mark.parametrize("k", [1, 2, 7, 20])
def test_the_start_is_different_points_that_follow_from_the_key(k):
    points = noise(20, 2)
    first = plus_plus(points, k, generator())
    assert first.dtype == torch.int64
    assert len(set(first.tolist())) == k
    assert torch.equal(first, plus_plus(points, k, generator()))
    others = [plus_plus(points, k, generator(i)) for i in range(9)]
    assert any(not torch.equal(first, other) for other in others)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 50))
def test_no_value_is_picked_twice_while_others_remain(distinct, copies, seed):
    # whole numbers, so that a copy's distance is exactly 0
    values = torch.arange(distinct, dtype=torch.float64)[:, None] * torch.tensor([3.0, -2.0], dtype=torch.float64)
    points = values.repeat(copies, 1)
    for k in range(1, len(points) + 1):
        chosen = plus_plus(points, k, generator(seed))
        assert len(set(chosen.tolist())) == k
        assert len({tuple(p) for p in points[chosen].tolist()}) == min(k, distinct)


def test_no_point_is_picked_twice_where_distances_are_all_rounding():
    # far from the origin float32 puts a point at a positive distance from itself
    points = 1e3 * noise(1, 200).float() + 1e-3 * noise(40, 200, seed=1).float()
    for seed in range(20):
        assert len(set(plus_plus(points, 40, generator(seed)).tolist())) == 40


def test_far_points_are_likelier_in_proportion_to_their_squared_distance():
    # from 0 the others lie at squared distances 1, 4 and 9
    points = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    second = [pair[1] for pair in (plus_plus(points, 2, generator(i)).tolist() for i in range(4000)) if pair[0] == 0]
    for index, share in ((1, 1 / 14), (2, 4 / 14), (3, 9 / 14)):
        spread = math.sqrt(share * (1 - share) / len(second))
        assert second.count(index) / len(second) == pytest.approx(share, abs=4.5 * spread)
    assert second.count(0) == 0


def test_the_first_point_is_any_with_the_same_chance():
    first = [int(plus_plus(noise(5, 2), 1, generator(i))) for i in range(1000)]
    assert all(abs(first.count(i) / 1000 - 0.2) < 0.06 for i in range(5))


def test_the_start_does_not_depend_on_the_default_number_type():
    points = noise(30, 2)
    single = plus_plus(points, 8, generator())
    torch.set_default_dtype(torch.float64)
    try:
        double = plus_plus(points, 8, generator())
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(single, double)


def test_a_random_start_is_different_points_with_the_same_chance_however_far_apart():
    points = torch.tensor([[0.0], [1.0], [2.0], [3.0], [1000.0]])
    starts = [random_points(points, 2, generator(i)).tolist() for i in range(2000)]
    assert all(len(set(start)) == 2 for start in starts)
    for index in range(5):
        share = sum(index in start for start in starts) / len(starts)
        assert share == pytest.approx(2 / 5, abs=4.5 * math.sqrt(0.4 * 0.6 / len(starts)))
    assert torch.equal(random_points(points, 3, generator()), random_points(points, 3, generator()))
    assert sorted(random_points(points, 5, generator()).tolist()) == list(range(5))


# ------------------------------------------------------------------ Lloyd's algorithm


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "d", "k"), [(25, 2, 4), (12, 5, 12), (15, 3, 1), (40, 1, 6)])
def test_centres_from_random_points_are_those_of_the_literal_loop(n, d, k, seed):
    points = noise(n, d, seed=seed)
    order = torch.randperm(n, generator=generator(seed))
    wanted, _ = clustering.lloyd(points, order[:k].tolist())
    torch.testing.assert_close(kmeans(points, k, generator(seed), seeding="random"), wanted, **CLOSE)


def test_a_cluster_that_random_copies_leave_empty_takes_the_farthest_point():
    points = torch.cat([torch.zeros(12, 2), torch.tensor([[5.0, 0.0], [0.0, 7.0], [9.0, 9.0]])]).double()
    left_empty = 0
    for seed in range(6):
        start = torch.randperm(15, generator=generator(seed))[:4].tolist()
        wanted, empty = clustering.lloyd(points, start)
        left_empty += empty > 0
        torch.testing.assert_close(kmeans(points, 4, generator(seed), seeding="random"), wanted, **CLOSE)
    assert left_empty >= 4  # most draws hold several of the twelve copies


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "d", "k"), [(25, 2, 4), (12, 5, 12), (15, 3, 1), (40, 1, 6)])
def test_centres_are_those_of_the_literal_loop(n, d, k, seed):
    points = noise(n, d, seed=seed)
    wanted, _ = clustering.lloyd(points, plus_plus(points, k, generator(seed)).tolist())
    torch.testing.assert_close(kmeans(points, k, generator(seed)), wanted, **CLOSE)


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_the_passes_are_counted_as_in_the_literal_loop(passes):
    points = noise(60, 2)
    start = plus_plus(points, 7, generator()).tolist()
    wanted, _ = clustering.lloyd(points, start, passes)
    found = kmeans(points, 7, generator(), iterations=passes)
    torch.testing.assert_close(found, wanted, **CLOSE)
    assert not torch.allclose(found, clustering.lloyd(points, start, passes + 1)[0])


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.5, 1e9])
def test_it_stops_at_the_summed_squared_shift(tolerance):
    points = noise(60, 2)
    start = plus_plus(points, 7, generator()).tolist()
    wanted, _ = clustering.lloyd(points, start, tolerance=tolerance)
    torch.testing.assert_close(kmeans(points, 7, generator(), tolerance=tolerance), wanted, **CLOSE)


def test_float32_gives_the_same_clusters():
    points = blobs()
    found = kmeans(points.float(), 6, generator())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), kmeans(points, 6, generator()), rtol=1e-4, atol=1e-4)


BAD_STARTS = {
    "copies": ([0, 0, 0, 0], noise(20, 2)),
    "copies and one far away": ([3, 3, 3, 7], torch.cat([noise(19, 2), torch.full((1, 2), 50.0)])),
    # three different points, one of which loses all its points in a later pass
    "one loses its points later": (
        [0, 3, 2],
        torch.tensor([[8, -9], [-8, -5], [6, 8], [7, 9], [-9, -2], [-2, -6], [6, 8]], dtype=torch.float64),
    ),
}


def start_from(monkeypatch, start):
    monkeypatch.setattr(module, "plus_plus", lambda points, k, generator: torch.tensor(start))


@pytest.mark.parametrize("name", BAD_STARTS)
def test_no_cluster_stays_empty_whatever_the_start(name, monkeypatch):
    start, points = BAD_STARTS[name]
    start_from(monkeypatch, start)
    centres = kmeans(points, len(start), generator())
    owners = squared_distances(points, centres).argmin(1)
    assert sorted(set(owners.tolist())) == list(range(len(start)))


@pytest.mark.parametrize("name", BAD_STARTS)
def test_an_empty_cluster_takes_the_point_farthest_from_its_centre(name, monkeypatch):
    start, points = BAD_STARTS[name]
    start_from(monkeypatch, start)
    wanted, empty = clustering.lloyd(points, start)
    assert empty > 0
    torch.testing.assert_close(kmeans(points, len(start), generator()), wanted, **CLOSE)


def test_centres_do_not_share_memory_with_the_points():
    points = noise(6, 2)
    before = points.clone()
    kmeans(points, 6, generator(), iterations=0).zero_()
    kmeans(points, 3, generator()).zero_()
    assert torch.equal(points, before)


@pytest.mark.parametrize("clusters", [3, 6])
def test_as_good_as_scikit_learn_on_blobs(clusters):
    from sklearn.cluster import KMeans

    points = blobs(clusters)
    best = KMeans(clusters, n_init=10, random_state=0).fit(points.numpy()).inertia_
    found = [clustering.inertia(points, kmeans(points, clusters, generator(i))) for i in range(5)]
    assert min(found) == pytest.approx(best, rel=0.02)
    assert sorted(found)[2] == pytest.approx(best, rel=0.05)  # and usually


@pytest.mark.parametrize("k", [0, 6])
def test_more_clusters_than_points_or_none_are_refused(k):
    with pytest.raises(ValueError, match=f"1 to 5 clusters for 5 points, got {k}"):
        kmeans(noise(5, 2), k, generator())


# ------------------------------------------------------------------ the points nearest to the centres


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_each_centre_in_turn_takes_the_nearest_that_are_left(data):
    n = data.draw(st.integers(1, 12))
    per_centre = data.draw(st.integers(1, n))
    k = data.draw(st.integers(1, n // per_centre))
    # few values, so that centres compete and points coincide
    numbers = st.lists(st.integers(-3, 3), min_size=n + k, max_size=n + k)
    coordinates = torch.tensor([data.draw(numbers), data.draw(numbers)], dtype=torch.float64).T
    points, centres = coordinates[:n], coordinates[n:]
    found = nearest_distinct(points, centres, per_centre)
    assert found.tolist() == clustering.nearest_distinct(points, centres, per_centre)
    assert len(set(found.tolist())) == k * per_centre


def test_all_points_can_be_taken():
    points = noise(6, 2)
    assert sorted(nearest_distinct(points, points[:1].repeat(6, 1)).tolist()) == list(range(6))
    assert sorted(nearest_distinct(points, points[:2], 3).tolist()) == list(range(6))
