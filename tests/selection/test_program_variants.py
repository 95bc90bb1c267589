"""Variants that reproduce what published programs do, faults included."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_condense.data import Normalization, TensorImages
from lit_condense.rng import RandomKey
from lit_condense.selection import CRAIG, AdaCore, Candidates, Glister, GradMatch, GraNd, LCMatS, ProxyOutputs, program
from lit_condense.selection.program import program_scales
from tests.oracles import selection as oracle

KEY = RandomKey(5).fold("selection")
SEEDS = range(4)
SIZES = pytest.mark.parametrize("n", [14, 12, 9])  # of batches of 6: the last has 2, 6 and 3


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(program, "PROGRAM_BATCH", 6)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(n=14, d=5, classes=3, seed=0):
    """Features after a ReLU, and a last layer."""
    return noise(n, d, seed=seed).relu(), noise(classes, d, seed=seed + 50), noise(classes, seed=seed + 70)


def sample(n=14, d=5, classes=3, seed=0):
    """Features, logits and labels."""
    z, weight, bias = layer(n, d, classes, seed)
    return z, z @ weight.T + bias, torch.arange(n) % classes


def choose(method, given, count, lr=0.1):
    z, logits, labels = given
    views = [ProxyOutputs(nn.Identity(), z, logits, lr)]
    return method.choose(Candidates(None, torch.arange(len(labels)), labels, views), count, KEY)


def picks(method, given, count):
    return choose(method, given, count).positions.tolist()


def scaled_gradients(given):
    return oracle.gradients(*given) * oracle.program_scale(len(given[2]), 6)[:, None]


# ------------------------------------------------------------------ the scale of the last batch


def test_of_5000_images_the_last_8_have_16_times_the_gradient(monkeypatch):
    monkeypatch.undo()
    scales = program_scales(5000)[:, 0]
    torch.testing.assert_close(scales, oracle.program_scale(5000))
    assert scales.unique().tolist() == [1 / 128, 1 / 8]
    assert (scales == 1 / 8).nonzero()[:, 0].tolist() == list(range(4992, 5000))
    assert program_scales(256).unique().tolist() == [1 / 128]
    assert program_scales(100).unique().tolist() == [1 / 100]


@pytest.mark.parametrize(
    "method", [Glister(variant="deepcore"), Glister(variant="deepcore_mended")], ids=["as is", "mended"]
)
def test_the_images_of_the_last_batch_are_picked_first_by_glister(method, monkeypatch):
    monkeypatch.undo()
    z, logits, _ = sample(n=1288, d=30)  # 10 batches of 128 and one of 8
    given = z, logits / 8, torch.ones(1288, dtype=torch.int64)  # gradients of about the same size
    assert set(picks(method, given, 8)) == set(range(1280, 1288))
    assert max(picks(Glister(validation="class"), given, 8)) < 1280


@SIZES
@pytest.mark.parametrize("seed", SEEDS)
def test_the_craig_of_deepcore_covers_scaled_gradients_and_counts_one_more(n, seed):
    given = sample(n=n, seed=seed)
    distance = oracle.distances(scaled_gradients(given))
    choice = choose(CRAIG("deepcore"), given, 6)
    chosen = choice.positions.tolist()
    assert oracle.shortfall(oracle.uncovered(distance), n, chosen) < 1e-5 * float(distance.max())
    assert choice.weights.tolist() == [size + 1 for size in oracle.cluster_sizes(distance, chosen)]


@pytest.mark.parametrize("networks", [1, 2])
def test_the_grand_of_deepcore_takes_norms_at_the_scale_of_a_loader_of_the_whole_split(networks):
    real = TensorImages(torch.rand(14, 1, 2, 2), torch.arange(14) % 2, 2, Normalization((0.4,), (0.3,)), ["a", "b"])
    views = [ProxyOutputs(nn.Identity(), noise(7, 4, seed=s), noise(7, 2, seed=9 + s)) for s in range(networks)]
    indices = torch.arange(14)[1::2]
    labels = torch.ones(7, dtype=torch.int64)
    norms = torch.stack([oracle.gradients(v.features, v.logits, labels).norm(dim=1) for v in views]).mean(0)
    scores = norms * oracle.program_scale(14, 6)[indices]
    shown = Candidates(real, indices, labels, views)
    torch.testing.assert_close(GraNd(networks, "deepcore").priorities(shown), scores)
    torch.testing.assert_close(GraNd(networks).priorities(shown), norms)


# ------------------------------------------------------------------ AdaCore


@pytest.mark.parametrize("count", [1, 5, 14])
def test_the_adacore_of_the_program_keeps_the_first_images_where_features_are_0(count):
    z, logits, labels = sample(d=9)
    assert bool((z == 0).any(1).all())
    assert picks(AdaCore(variant="lcmat_program"), (z, logits, labels), count) == list(range(count))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_adacore_of_the_program_covers_its_distances_that_are_numbers(seed):
    z, logits, labels = sample(seed=seed)
    z = (z + 0.5) * 3
    z[[2, 5, 11], [0, 3, 4]] = 0
    distance = oracle.program_quotient_distances(z, logits, labels)
    assert int((distance.sum(1) == 0).sum()) == 3
    similarity = 10 - distance
    found = picks(AdaCore(variant="lcmat_program"), (z, logits, labels), 6)
    assert oracle.shortfall(oracle.facility_location(similarity), 14, found) < 1e-4 * 14


def test_the_adacore_of_the_program_takes_sure_predictions_of_one_class_for_not_a_number():
    z, logits, labels = sample()
    z, labels = z + 0.5, torch.zeros_like(labels)
    logits[3] = torch.tensor([-300.0, 300.0, 0.0])  # surely wrong
    method = AdaCore(variant="lcmat_program")
    distances = method._block(ProxyOutputs(nn.Identity(), z, logits), labels)(slice(0, 14))
    assert (distances[3] == 0).all()
    assert (distances[:, 3] == 0).all()
    assert float(distances[0, 1]) > 0


# ------------------------------------------------------------------ LCMat-S


@SIZES
@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["all near", "some uncovered"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_program_of_lcmat_covers_within_10_and_weighs_curvature_by_rho(seed, scale, n):
    z, logits, labels = sample(n=n, seed=seed)
    given = scale * z, logits, labels
    hessians = oracle.hessian_diagonals(*given[:2]) * oracle.program_scale(n, 6)[:, None]
    curvature = oracle.distances(hessians[:, oracle.widest(hessians, 4)], norm=1)
    similarity = 10 - (oracle.distances(scaled_gradients(given)) + 0.01 * curvature)
    assert (float(similarity.min()) < 0) == (scale > 1)
    found = picks(LCMatS(0.01, 4, variant="lcmat_program"), given, 6)
    assert oracle.shortfall(oracle.facility_location(similarity), n, found) < 1e-5 * float(similarity.abs().max())


# ------------------------------------------------------------------ GRAD-MATCH and GLISTER


@SIZES
@pytest.mark.parametrize("seed", SEEDS)
def test_the_gradmatch_of_deepcore_takes_scaled_gradients_and_starts_without_regularization(n, seed):
    given = sample(n=n, seed=seed)
    rows = scaled_gradients(given)
    method = GradMatch(variant="deepcore")
    wanted = oracle.matching_pursuit(rows, rows.mean(0), 5, 1.0, plain_start=True)
    assert picks(method, given, 5) == wanted
    assert choose(method, given, 1).weights.tolist() == [1]
    assert choose(GradMatch(), given, 1).weights.tolist() != [1]


def test_the_first_step_without_regularization_makes_another_second_pick():
    differ = 0
    for seed in range(20):
        given = sample(seed=seed)
        rows = scaled_gradients(given)
        found = picks(GradMatch(variant="deepcore"), given, 5)
        differ += found != oracle.matching_pursuit(rows, rows.mean(0), 5, 1.0)
    assert differ > 0


@SIZES
@pytest.mark.parametrize("seed", SEEDS)
def test_the_glister_of_deepcore_keeps_the_largest_products_with_the_mean_of_scaled_gradients(n, seed):
    given = sample(n=n, seed=seed)
    rows = scaled_gradients(given)
    products = rows @ rows.mean(0)
    assert picks(Glister(variant="deepcore"), given, 8) == products.argsort(descending=True)[:8].tolist()


@SIZES
@pytest.mark.parametrize("lr", [0.1, 50.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_mended_glister_of_deepcore_steps_by_the_learning_rate_along_scaled_gradients(n, seed, lr):
    z, weight, bias = layer(n=n, seed=seed)
    labels = torch.arange(n) % 3
    given = z.double(), z.double() @ weight.double().T + bias, labels
    scale = oracle.program_scale(n, 6)
    found = choose(Glister(variant="deepcore_mended"), given, 8, lr).positions.tolist()
    assert found == oracle.glister(z, weight, bias, labels, 8, lr, scale=scale)
