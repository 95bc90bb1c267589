from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_condense.functional import greedy as module
from lit_condense.functional.greedy import (
    FacilityLocation,
    GraphCut,
    LogDeterminant,
    assignments,
    lazy_greedy,
    naive_greedy,
)
from tests.oracles import selection as oracle


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def symmetric(n, seed=0, values=None):
    """Non-negative similarities; whole numbers below ``values`` make ties."""
    s = uniform(n, n, seed=seed)
    s = (s * values).floor() if values else s
    return torch.maximum(s, s.T)


def kernel(n, rank, seed=0):
    rows = torch.randn(n, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows @ rows.T


class Counted(FacilityLocation):
    """Counts how many gains were asked for, and keeps those of the chosen."""

    def __init__(self, similarity):
        super().__init__(similarity)
        self.asked, self.gained = 0, []

    def gains(self, candidates):
        self.asked += len(candidates)
        return super().gains(candidates)

    def add(self, candidate):
        self.gained.append(float(super().gains(torch.tensor([candidate]))))
        super().add(candidate)


# ------------------------------------------------------------------ gains


def functions(n=9, seed=0):
    s = symmetric(n, seed)
    k = kernel(n, n, seed)
    return [
        (FacilityLocation(s), oracle.facility_location(s)),
        (FacilityLocation(s - 0.7), oracle.facility_location(s - 0.7)),
        (GraphCut(s, 1.0), oracle.graph_cut(s, 1.0)),
        (GraphCut(s, 2.5), oracle.graph_cut(s, 2.5)),
        (LogDeterminant(k, n), oracle.log_determinant(k)),
    ]


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("seed", range(3))
def test_gains_are_differences_of_the_value(index, seed):
    function, value = functions(seed=seed)[index]
    chosen = []
    for candidate in (4, 0, 7, 2, 8):
        free = [j for j in range(9) if j not in chosen]
        found = function.gains(torch.tensor(free))
        assert found.dtype == torch.float32
        wanted = [value([*chosen, j]) - value(chosen) for j in free]
        torch.testing.assert_close(found.double(), torch.tensor(wanted).double(), rtol=1e-4, atol=1e-5)
        function.add(candidate)
        chosen.append(candidate)


@pytest.mark.parametrize("maximise", [naive_greedy, lazy_greedy])
@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("seed", range(4))
def test_greedy_adds_what_raises_the_value_most(index, seed, maximise):
    function, value = functions(seed=seed)[index]
    found = maximise(function, 6)
    assert found.dtype == torch.int64
    assert found.tolist() == oracle.greedy(value, 9, 6)


def test_candidates_need_not_be_what_is_covered():
    s = uniform(4, 9)
    assert lazy_greedy(FacilityLocation(s), 3).tolist() == oracle.greedy(oracle.facility_location(s.T), 4, 3)


# ------------------------------------------------------------------ lazy is naive


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 25), st.integers(1, 4), st.integers(0, 10_000), st.integers(1, 5))
def test_lazy_equals_naive_also_with_ties(n, values, seed, block):
    for s in (symmetric(n, seed, values=values + 1), symmetric(n, seed), torch.ones(n, n)):
        before, module.BLOCK = module.BLOCK, block  # several blocks although n is small
        try:
            for make in (FacilityLocation, GraphCut):
                assert torch.equal(lazy_greedy(make(s), n), naive_greedy(make(s), n))
        finally:
            module.BLOCK = before


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 10_000))
def test_lazy_equals_naive_for_volumes_of_any_rank(n, rank, seed):
    k = kernel(n, rank, seed)
    found = lazy_greedy(LogDeterminant(k, n), n)
    assert torch.equal(found, naive_greedy(LogDeterminant(k, n), n))
    assert sorted(found.tolist()) == list(range(n))


def test_lazy_equals_naive_on_many_float32_candidates_and_asks_for_far_fewer_gains():
    points = torch.randn(700, 3, generator=torch.Generator().manual_seed(1))
    distance = torch.cdist(points, points)
    s = distance.max() - distance
    lazy, naive = Counted(s), Counted(s)
    assert torch.equal(lazy_greedy(lazy, 60), naive_greedy(naive, 60))
    assert naive.asked == 60 * 700
    assert lazy.asked < naive.asked / 3


@pytest.mark.parametrize("maximise", [naive_greedy, lazy_greedy])
def test_ties_go_to_the_lowest_index(maximise):
    assert maximise(FacilityLocation(torch.ones(70, 70)), 70).tolist() == list(range(70))
    assert maximise(GraphCut(torch.ones(70, 70)), 70).tolist() == list(range(70))
    assert maximise(LogDeterminant(torch.eye(70), 70), 70).tolist() == list(range(70))


@pytest.mark.parametrize("maximise", [naive_greedy, lazy_greedy])
def test_two_that_cover_each_other_are_equally_good_whatever_float32_makes_of_it(maximise):
    for seed in range(100):
        near, one, other = uniform(3, seed=seed).tolist()
        s = torch.tensor([[9, one, other], [one, 2, 1 + near], [other, 1 + near, 2]], dtype=torch.float32)
        assert maximise(FacilityLocation(s), 3).tolist() == [0, 1, 2]


def test_gains_of_facility_location_never_grow():
    function = Counted(symmetric(30))
    lazy_greedy(function, 30)
    assert all(a >= b >= 0 for a, b in zip(function.gained, function.gained[1:], strict=False))
    assert sum(function.gained) == pytest.approx(float(symmetric(30).amax(1).sum()), rel=1e-6)


# ------------------------------------------------------------------ how good


@pytest.mark.parametrize("n", [8, 10, 12])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_facility_location_reaches_its_share_of_the_best_value(n, count):
    worst = 1.0
    for seed in range(8):
        s = symmetric(n, seed) ** 4
        value = oracle.facility_location(s)
        worst = min(worst, value(lazy_greedy(FacilityLocation(s), count).tolist()) / oracle.best_value(value, n, count))
    assert 1 - 1 / math.e <= worst <= 1 + 1e-12
    if count == 1:
        assert worst == pytest.approx(1)


# ------------------------------------------------------------------ volumes


def test_the_gains_of_a_volume_add_up_to_the_log_determinant():
    k = kernel(12, 20, seed=3)
    function, total = LogDeterminant(k, 12), 0.0
    for candidate in (3, 11, 0, 7, 5):
        total += float(function.gains(torch.tensor([candidate])))
        function.add(candidate)
    chosen = [3, 11, 0, 7, 5]
    assert total == pytest.approx(float(torch.logdet(k[chosen][:, chosen])), rel=1e-6)


def test_copies_come_after_everything_else_and_keep_gains_finite():
    once = kernel(6, 10, seed=2)
    twice = torch.arange(12) % 6
    k = once[twice][:, twice].float()
    function = LogDeterminant(k, 12)
    found = lazy_greedy(function, 12).tolist()
    assert sorted(i % 6 for i in found[:6]) == list(range(6))
    assert found[6:] == [i for i in range(12) if i not in found[:6]]
    assert function.gains(torch.arange(12)).isfinite().all()


@pytest.mark.parametrize("seed", range(4))
def test_redundancy_is_what_the_chosen_explain(seed):
    k = kernel(10, 14, seed)
    found = naive_greedy(LogDeterminant(k, 6, redundancy=True), 6)
    assert found.tolist() == oracle.most_redundant(k, 6)
    assert found.tolist() != lazy_greedy(LogDeterminant(k, 6), 6).tolist()


# ------------------------------------------------------------------ clusters


def test_each_sample_belongs_to_the_chosen_one_most_similar_to_it():
    s, chosen = symmetric(15, 4), torch.tensor([9, 2, 13])
    s.fill_diagonal_(2)
    wanted = [max(range(3), key=lambda c: float(s[i, chosen[c]])) for i in range(15)]
    assert assignments(s, chosen).tolist() == wanted


def test_among_copies_each_chosen_one_keeps_itself_and_the_first_takes_the_rest():
    assert assignments(torch.ones(5, 5), torch.tensor([3, 1])).tolist() == [0, 1, 0, 0, 0]
