from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lit_condense.errors import DataError, SettingsError
from lit_condense.functional import last_layer_geometry
from lit_condense.functional.last_layer_geometry import OuterProducts
from lit_condense.rng import RandomKey
from lit_condense.selection import (
    CRAIG,
    AdaCore,
    Candidates,
    FacilityLocation,
    Glister,
    GradMatch,
    GraphCut,
    LCMatS,
    LogDeterminant,
    ProxyOutputs,
    Validation,
    gradients,
)
from lit_condense.selection.methods.grad_match import matching_pursuit, non_negative_least_squares
from lit_condense.settings import settings_of
from tests.oracles import selection as oracle

KEY = RandomKey(5).fold("selection")
PAIRWISE = [
    FacilityLocation(),
    GraphCut(),
    LogDeterminant(),
    LogDeterminant("deepcore"),
    CRAIG(),
    CRAIG("deepcore"),
    AdaCore(),
    AdaCore(weighted=True),
    AdaCore(hessian="mean"),
    AdaCore(hessian="sample"),
    AdaCore(variant="lcmat_program"),
    LCMatS(),
    LCMatS(rho=0.5, coordinates=3, weighted=True),
    LCMatS(variant="lcmat_program"),
]
METHODS = [
    *PAIRWISE,
    GradMatch(),
    GradMatch(variant="deepcore"),
    Glister(validation="all"),
    Glister(validation="class"),
    Glister(variant="deepcore"),
    Glister(variant="deepcore_mended"),
]
SEEDS = range(4)


def label_of(method):
    return f"{type(method).__name__}-{'-'.join(str(v) for v in settings_of(method)['init_args'].values())}"


each_method = pytest.mark.parametrize("method", METHODS, ids=label_of)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(n=14, d=5, classes=3, seed=0):
    """Features after a ReLU, and a last layer."""
    return noise(n, d, seed=seed).relu(), noise(classes, d, seed=seed + 50), noise(classes, seed=seed + 70)


def sample(n=14, d=5, classes=3, seed=0):
    """Features, logits and labels."""
    z, weight, bias = layer(n, d, classes, seed)
    return z, z @ weight.T + bias, torch.arange(n) % classes


def everyone(*given):
    """Validation images: those of ``(features, logits, labels)``."""
    features, logits, labels = given or sample(n=20, seed=90)
    return Validation(labels, ProxyOutputs(nn.Identity(), features, logits))


def candidates_of(features, logits, labels, indices=None, validation=None):
    indices = torch.arange(len(labels)) if indices is None else indices
    validation = validation or everyone(*sample(20, features.shape[1], logits.shape[1], seed=90))
    return Candidates(None, indices, labels, [ProxyOutputs(nn.Identity(), features, logits)], None, validation)


def choose(method, given, count):
    return method.choose(candidates_of(*given), count, KEY)


def picks(method, given, count):
    return choose(method, given, count).positions.tolist()


# ------------------------------------------------------------------ the contract


@each_method
def test_exactly_as_many_different_candidates_as_asked(method):
    given = sample(n=9)
    for count in range(1, 10):
        choice = choose(method, given, count)
        assert choice.positions.dtype == torch.int64
        assert choice.positions.shape == (count,)
        assert len(set(choice.positions.tolist())) == count
        if choice.weights is not None:
            assert choice.weights.shape == (count,)
            assert choice.weights.dtype == torch.float32
            assert (choice.weights >= 0).all()


def test_weights_are_given_where_they_are_defined():
    weighted = [label_of(m) for m in METHODS if choose(m, sample(), 3).weights is not None]
    assert weighted == [label_of(m) for m in METHODS if m.weighted]
    assert weighted == [
        "CRAIG-definition",
        "CRAIG-deepcore",
        "AdaCore-1.0-True-sample-definition",
        "LCMatS-0.5-3-True-definition",
        "GradMatch-1.0-definition",
        "GradMatch-1.0-deepcore",
    ]


@each_method
def test_the_order_of_the_candidates_makes_no_difference(method):
    z, logits, labels = sample()
    z[7:], logits[7:], labels[7:] = (
        z[:7],
        logits[:7],
        labels[:7].clone(),
    )  # copies: ties must not follow the order either
    first = choose(method, (z, logits, labels), 6)
    for seed in SEEDS:
        order = torch.randperm(14, generator=torch.Generator().manual_seed(seed))
        shown = candidates_of(z[order], logits[order], labels[order], order)
        again = method.choose(shown, 6, KEY)
        assert order[again.positions].tolist() == first.positions.tolist()
        if first.weights is not None:
            assert torch.equal(again.weights, first.weights)


@each_method
def test_the_same_key_gives_the_same_images_and_nothing_else_is_drawn(method):
    given, before = sample(), torch.get_rng_state()
    copies = [x.clone() for x in given]
    first, again = choose(method, given, 5), choose(method, given, 5)
    assert torch.equal(first.positions, again.positions)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


@each_method
def test_samples_without_gradient_poison_nothing(method):
    z, logits, labels = sample()
    for i in (0, 3, 8):
        logits[i] = -1e4
        logits[i, labels[i]] = 1e4
    z[5] = 0
    for count in (1, 6, 14):
        choice = choose(method, (z, logits, labels), count)
        assert len(set(choice.positions.tolist())) == count
        assert choice.weights is None or choice.weights.isfinite().all()


@each_method
def test_candidates_without_any_gradient_are_still_chosen_from(method):
    given = noise(6, 3).relu(), 1e4 * torch.eye(3)[torch.arange(6) % 3], torch.arange(6) % 3
    choice = choose(method, given, 4)
    assert len(set(choice.positions.tolist())) == 4
    assert choice.weights is None or choice.weights.isfinite().all()


@each_method
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_count(method, value):
    for broken in (0, 1):
        given = sample()
        given[broken][[2, 9], 1] = value
        with pytest.raises(DataError, match=rf"{type(method).__name__} needs finite .* of 2 of 14 candidates"):
            choose(method, given, 3)


def test_distances_that_overflow_are_refused():
    z, logits, labels = sample()
    z[3] = 3e38
    z[4] = -3e38
    logits[3:5] = 0
    with pytest.raises(DataError, match=r"CRAIG needs finite distances, but those of \d+ of 14"):
        choose(CRAIG(), (z, logits, labels), 3)


@pytest.mark.parametrize("method", METHODS, ids=label_of)
def test_too_many_pairs_are_refused_before_any_work(method, monkeypatch):
    monkeypatch.setattr(gradients, "MOST_PAIRED", 13)
    if method not in PAIRWISE:
        assert len(picks(method, sample(), 3)) == 3
        return
    with pytest.raises(SettingsError, match=rf"{type(method).__name__} .* at most 13 .* got 14.*balanced budget"):
        choose(method, sample(), 3)
    assert len(picks(method, sample(n=13), 3)) == 3


class Largest(TorchDispatchMode):
    """Writes down the largest tensor that any operation returns."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


@each_method
def test_no_matrix_of_samples_by_coordinates_is_ever_made(method):
    n, d, classes = 60, 70, 40  # n * n = 3600, n * d = 4200, n * D = 170400
    given = sample(n, d, classes)
    with Largest() as largest:
        choose(method, given, 5)
    assert n * d <= largest.numbers <= 2 * n * 100  # 100: the coordinates that LCMat-S compares


@each_method
def test_blocks_make_no_difference(method, monkeypatch):
    wanted = picks(method, sample(), 6)
    monkeypatch.setattr(last_layer_geometry, "BLOCK", 4)
    assert picks(method, sample(), 6) == wanted


@each_method
def test_settings_can_be_read_back(method):
    settings = settings_of(method)
    again = type(method)(**settings["init_args"])
    assert settings_of(again) == settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogDeterminant("paper"), "LogDeterminant.variant"),
        (lambda: CRAIG("lcmat_program"), "CRAIG.variant"),
        (lambda: Glister(variant=""), "Glister.variant"),
        (lambda: GradMatch(variant="x"), "GradMatch.variant"),
        (lambda: LCMatS(variant="deepcore"), "LCMatS.variant"),
        (lambda: Glister(step=0), "Glister.step .* got 0"),
        (lambda: Glister(validation="test"), "Glister.validation .* got 'test'"),
        (lambda: GradMatch(regularization=0), "GradMatch.regularization .* got 0"),
        (lambda: GraphCut(coverage=-1), "GraphCut.coverage .* got -1"),
        (lambda: AdaCore(damping=0), "AdaCore.damping .* got 0"),
        (lambda: AdaCore(hessian="none"), "AdaCore.hessian .* got 'none'"),
        (lambda: AdaCore(variant="deepcore"), "AdaCore.variant .* got 'deepcore'"),
        (lambda: AdaCore(damping=float("nan")), "AdaCore.damping .* got nan"),
        (lambda: LCMatS(rho=-0.1), "LCMatS.rho .* got -0.1"),
        (lambda: LCMatS(rho=float("inf")), "LCMatS.rho .* got inf"),
        (lambda: LCMatS(coordinates=0), "LCMatS.coordinates .* got 0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(SettingsError, match=f"Expected {message}"):
        make()


# ------------------------------------------------------------------ submodular


@pytest.mark.parametrize("seed", SEEDS)
def test_facility_location_is_that_of_the_explicit_cosine_kernel(seed):
    given = sample(seed=seed)
    value = oracle.facility_location(oracle.cosine_kernel(oracle.gradients(*given)))
    assert oracle.shortfall(value, 14, picks(FacilityLocation(), given, 7)) < 1e-5


@pytest.mark.parametrize("coverage", [1.0, 0.2])
@pytest.mark.parametrize("seed", SEEDS)
def test_graph_cut_is_that_of_the_explicit_cosine_kernel(seed, coverage):
    given = sample(seed=seed)
    value = oracle.graph_cut(oracle.cosine_kernel(oracle.gradients(*given)), coverage)
    assert oracle.shortfall(value, 14, picks(GraphCut(coverage), given, 7)) < 1e-5


@pytest.mark.parametrize("seed", SEEDS)
def test_log_determinant_is_that_of_the_explicit_cosine_kernel(seed):
    given = sample(seed=seed)
    kernel = oracle.cosine_kernel(oracle.gradients(*given))
    found = picks(LogDeterminant(), given, 6)
    assert found[0] == 0  # all candidates are equally good at first
    assert oracle.shortfall(oracle.log_determinant(kernel), 14, found) < 1e-4
    assert picks(LogDeterminant("deepcore"), given, 6) == oracle.most_redundant(kernel, 6)


# ------------------------------------------------------------------ covering: CRAIG, AdaCore, LCMat-S


def assert_covers(distance, choice):
    """Greedy in the summed distance to the nearest chosen one; weighted by how many are nearest."""
    chosen = choice.positions.tolist()
    assert len(chosen) > 1
    assert oracle.shortfall(oracle.uncovered(distance), len(distance), chosen) < 1e-5 * float(distance.max())
    assert choice.weights.tolist() == oracle.cluster_sizes(distance, chosen)


@pytest.mark.parametrize("seed", SEEDS)
def test_craig_covers_the_explicit_gradients(seed):
    given = sample(seed=seed)
    distance = oracle.distances(oracle.gradients(*given))
    choice = choose(CRAIG(), given, 6)
    assert_covers(distance, choice)


@pytest.mark.parametrize("count", [1, 5, 14])
def test_weights_of_craig_sum_to_the_candidates(count):
    choice = choose(CRAIG(), sample(), count)
    assert float(choice.weights.sum()) == 14
    assert (choice.weights >= 1).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_adacore_covers_the_explicit_quotients(seed):
    z, logits, labels = sample(seed=seed)
    z = z + 0.2
    quotient = oracle.gradients(z, logits, labels) / oracle.hessian_diagonals(z, logits)
    distance = oracle.distances(quotient)
    choice = choose(AdaCore(damping=1e-12, weighted=True, hessian="sample"), (z, logits, labels), 6)
    assert_covers(distance, choice)


@pytest.mark.parametrize("damping", [1e-9, 0.5])
@pytest.mark.parametrize("seed", SEEDS)
def test_adacore_covers_gradients_divided_by_the_damped_mean_of_the_explicit_diagonals(seed, damping):
    given = sample(seed=seed)
    curvature = oracle.hessian_diagonals(*given[:2]).mean(0)
    distance = oracle.distances(oracle.gradients(*given) / (curvature + damping * curvature.mean()))
    assert_covers(distance, choose(AdaCore(damping, weighted=True, hessian="mean"), given, 6))


def test_strong_damping_of_the_mean_diagonal_is_craig():
    given = sample()
    assert picks(AdaCore(1e9, hessian="mean"), given, 8) == picks(CRAIG(), given, 8)


def curvature_distances(given, rho, coordinates):
    z, logits, _ = given
    hessians = oracle.hessian_diagonals(z, logits)
    chosen = oracle.widest(hessians, coordinates)
    return oracle.distances(oracle.gradients(*given)), rho * oracle.distances(hessians[:, chosen], norm=1)


@pytest.mark.parametrize(("rho", "coordinates"), [(0.5, 4), (8.0, 2), (8.0, 100)])
@pytest.mark.parametrize("seed", SEEDS)
def test_lcmat_covers_gradients_and_half_rho_times_the_widest_curvatures(seed, rho, coordinates):
    given = sample(seed=seed)
    gradient, curvature = curvature_distances(given, rho / 2, coordinates)
    distance = gradient + curvature
    choice = choose(LCMatS(rho, coordinates, weighted=True), given, 6)
    assert_covers(distance, choice)


def test_curvature_makes_a_difference():
    given = sample()
    assert picks(LCMatS(rho=8.0), given, 6) != picks(LCMatS(rho=0.0), given, 6)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_curvature_lcmat_is_craig(seed):
    given = sample(seed=seed)
    lcmat, craig = choose(LCMatS(rho=0, weighted=True), given, 8), choose(CRAIG(), given, 8)
    assert torch.equal(lcmat.positions, craig.positions)
    assert torch.equal(lcmat.weights, craig.weights)
    assert choose(LCMatS(rho=0), given, 8).weights is None


# ------------------------------------------------------------------ GRAD-MATCH


def orthonormal(n):
    return OuterProducts(torch.eye(n, dtype=torch.float64), torch.zeros(n, 2, dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("regularization", [1e-9, 1.0])
def test_of_orthonormal_gradients_the_largest_positive_coefficients_are_picked(count, regularization):
    target = torch.zeros(6, 3, dtype=torch.float64)
    target[:, 0] = torch.tensor([0.3, -5.0, 0.1, 2.0, -0.2, 0.7])
    chosen = matching_pursuit(orthonormal(6), target, count, regularization)
    assert chosen.tolist() == [3, 5, 0, 2, 4, 1][:count]
    system = (1 + regularization) * torch.eye(count, dtype=torch.float64)
    weights = non_negative_least_squares(system, target[chosen, 0])
    torch.testing.assert_close(weights, target[chosen, 0].clamp(min=0) / (1 + regularization))


@pytest.mark.parametrize("regularization", [1e-3, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_gradmatch_is_the_literal_pursuit_of_the_mean_gradient(seed, regularization):
    given = sample(seed=seed)
    rows = oracle.gradients(*given)
    choice = choose(GradMatch(regularization), given, 7)
    chosen = choice.positions.tolist()
    assert chosen == oracle.matching_pursuit(rows, rows.mean(0), 7, regularization)
    a = rows[chosen]
    system = a @ a.T + regularization * torch.eye(7, dtype=torch.float64)
    wanted = oracle.non_negative_least_squares(system, a @ rows.mean(0))
    torch.testing.assert_close(choice.weights.double(), wanted, rtol=1e-5, atol=1e-7)


def test_images_that_the_solution_leaves_out_fill_up_with_weight_0():
    z, logits, labels = sample(n=40, d=2)
    choice = choose(GradMatch(1e-6), (z, logits, labels), 30)  # 9 coordinates: far fewer images are enough
    assert len(set(choice.positions.tolist())) == 30
    assert 0 < int((choice.weights > 0).sum()) < 30


@pytest.mark.parametrize("seed", range(12))
def test_non_negative_least_squares_is_the_best_of_all_supports(seed):
    a = noise(8, 6 + seed % 5, seed=seed).double()
    system = a @ a.T + 1e-3 * torch.eye(8, dtype=torch.float64)
    products = noise(8, seed=seed + 30).double()
    torch.testing.assert_close(
        non_negative_least_squares(system, products), oracle.non_negative_least_squares(system, products)
    )


def test_non_negative_least_squares_without_anything_to_gain_is_0():
    system = torch.eye(3, dtype=torch.float64)
    assert non_negative_least_squares(system, torch.tensor([-1.0, 0.0, -2.0]).double()).tolist() == [0, 0, 0]
    assert non_negative_least_squares(system, torch.zeros(3).double()).tolist() == [0, 0, 0]


def test_non_negative_least_squares_ends_on_nearly_singular_systems():
    a = noise(60, 4).double()
    system = a @ a.T + 1e-10 * torch.eye(60, dtype=torch.float64)
    products = a @ noise(4, seed=1).double()
    x = non_negative_least_squares(system, products)
    assert (x >= 0).all()
    slopes = products - system @ x
    assert float(slopes.max()) < 1e-6
    assert float((slopes * x).abs().max()) < 1e-6


# ------------------------------------------------------------------ GLISTER


@pytest.mark.parametrize("step", [1.0, 60.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_glister_takes_the_validation_gradient_anew_after_an_explicit_step(seed, step):
    z, weight, bias = layer(seed=seed)
    labels = torch.arange(14) % 3
    views = [ProxyOutputs(nn.Identity(), z.double(), z.double() @ weight.double().T + bias, lr=0.5, batch_size=6)]
    shown = Candidates(None, torch.arange(14), labels, views)
    found = Glister(step, "class").choose(shown, 8, KEY).positions.tolist()
    assert found == oracle.glister(z, weight, bias, labels, 8, step * 0.5 / 6)


def test_glister_lowers_the_loss_of_all_images_by_steps_along_those_of_one_class():
    differ = 0
    for seed in range(8):
        z, weight, bias = (x.double() for x in layer(n=60, seed=seed))
        labels = torch.arange(60) % 3
        own = (labels == 1).nonzero()[:, 0]
        logits = z @ weight.T + bias
        shown = candidates_of(z[own], logits[own], labels[own], own, everyone(z, logits, labels))
        found = Glister(200.0, "all").choose(shown, 5, KEY).positions.tolist()
        assert found == oracle.glister(z, weight, bias, labels, 5, 200 * 0.1 / 128, among=own.tolist())
        differ += found != Glister(200.0, "class").choose(shown, 5, KEY).positions.tolist()
    assert differ > 0


def test_glister_without_the_other_classes_says_what_it_lacks():
    z, logits, labels = sample()
    shown = Candidates(None, torch.arange(14), labels, [ProxyOutputs(nn.Identity(), z, logits)])
    assert Glister(validation="all").validates
    with pytest.raises(DataError, match="validation: class"):
        Glister(validation="all").choose(shown, 3, KEY)
    for method in (Glister(validation="class"), Glister(variant="deepcore"), Glister(variant="deepcore_mended")):
        assert not method.validates
        assert len(method.choose(shown, 3, KEY).positions) == 3
