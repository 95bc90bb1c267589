from __future__ import annotations

import pytest
import torch

from lit_condense.functional import last_layer_geometry as module
from lit_condense.functional.last_layer_geometry import (
    OuterProducts,
    gradient_products,
    hessian_products,
    l1_distances,
    pairs,
    precise_softmax_error,
    preconditioned_gradient_products,
    widest_coordinates,
)
from tests.oracles import selection as oracle

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
CPU = torch.device("cpu")


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sample(n=11, d=4, classes=3, scale=2.0, seed=0):
    """Features (after a ReLU: some are 0), logits and labels."""
    z = noise(n, d, seed=seed).relu()
    return z, scale * noise(n, classes, seed=seed + 1), torch.arange(n) % classes


def flat(vectors):
    """The n x D matrix that is never made, coordinates in the order of ``(K, 1 + d)``."""
    return torch.stack(
        [
            torch.outer(a, torch.cat([a.new_ones(1), b])).flatten()
            for a, b in zip(vectors.left, vectors.right, strict=True)
        ]
    )


def sorted_rows(matrix):
    return matrix.sort(1).values


# ------------------------------------------------------------------ the vectors


def test_the_factors_are_those_of_gradients_and_hessian_diagonals():
    z, logits, labels = sample()
    # the same entries of a sample in another order
    gradients = flat(gradient_products(z, logits, labels))
    torch.testing.assert_close(sorted_rows(gradients), sorted_rows(oracle.gradients(z, logits, labels)), **CLOSE)
    hessians = flat(hessian_products(z, logits))
    torch.testing.assert_close(sorted_rows(hessians), sorted_rows(oracle.hessian_diagonals(z, logits)), **CLOSE)
    width = 1 + z.shape[1]
    torch.testing.assert_close(hessians[:, width], oracle.hessian_diagonals(z, logits)[:, 1], **CLOSE)


def test_the_error_of_a_sure_prediction_keeps_its_digits():
    logits = torch.tensor([[60.0, 0.0, 1.0], [0.0, 50.0, 0.0]])
    error = precise_softmax_error(logits, torch.tensor([0, 1]))
    small = torch.tensor([-60.0, -59.0], dtype=torch.float64).exp()
    torch.testing.assert_close(error[0], torch.stack([-small.sum(), *small]), rtol=1e-12, atol=0)
    assert float(error[1].sum()) == 0
    assert float(error[1, 1]) < 0


@pytest.mark.parametrize("name", ["inner_products", "distances", "squared_distances", "cosines"])
def test_every_pair_is_that_of_the_explicit_vectors(name):
    z, logits, labels = sample()
    dense = oracle.gradients(z, logits, labels)
    wanted = {
        "inner_products": dense @ dense.T,
        "distances": oracle.distances(dense),
        "squared_distances": oracle.distances(dense).square(),
        "cosines": 2 * oracle.cosine_kernel(dense) - 1,
    }[name]
    vectors = gradient_products(z, logits, labels)
    for rows in (slice(0, 11), slice(0, 1), slice(3, 8), slice(9, 11)):
        found = getattr(vectors, name)(rows)
        torch.testing.assert_close(found, wanted[rows], rtol=1e-9, atol=1e-7)


def test_inner_products_between_some_samples():
    z, logits, labels = sample()
    dense = oracle.gradients(z, logits, labels)
    one, other = torch.tensor([4, 0, 7]), torch.tensor([2, 4])
    found = gradient_products(z, logits, labels).inner_products(one, other)
    torch.testing.assert_close(found, dense[one] @ dense[other].T, **CLOSE)


def test_norms_and_sums_and_products_with_a_vector():
    vectors = gradient_products(*sample())
    dense = flat(vectors)
    torch.testing.assert_close(vectors.squared_norms, dense.square().sum(1), **CLOSE)
    torch.testing.assert_close(vectors.mean().flatten(), dense.mean(0), **CLOSE)
    weights, rows = noise(3, seed=8).double(), torch.tensor([5, 1, 9])
    torch.testing.assert_close(vectors.weighted_sum(weights, rows).flatten(), weights @ dense[rows], **CLOSE)
    vector = noise(3, 5, seed=9).double()
    torch.testing.assert_close(vectors.inner_products_with(vector), dense @ vector.flatten(), **CLOSE)


def test_a_sample_is_at_distance_0_from_itself_and_copies_are_close():
    z, logits, labels = sample()
    twice = torch.arange(22) % 11
    found = pairs(gradient_products(100 * z[twice], logits[twice], labels[twice]).distances, 22, CPU)
    assert (found.diagonal() == 0).all()
    assert float(found.diagonal(11).max()) < 1e-4 < float(found[0, 1])


def test_distances_far_from_the_origin_are_not_lost():
    # norms of 1e6 and distances of about 1: float32 products would leave nothing
    left = torch.ones(6, 2, dtype=torch.float64)
    right = 1e6 + noise(6, 3).double()
    torch.testing.assert_close(
        OuterProducts(left, right).distances(slice(0, 6)),
        oracle.distances(flat(OuterProducts(left, right))),
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_sample_without_gradient_has_cosine_0_with_all_and_no_nan():
    z, logits, labels = sample()
    logits[2] = torch.tensor([-1e4, -1e4, 1e4])
    vectors = gradient_products(z, logits, labels)
    assert float(vectors.squared_norms[2]) == 0
    cosines = vectors.cosines(slice(0, 11))
    assert cosines.isfinite().all()
    assert (cosines[2] == 0).all()
    assert (cosines[:, 2] == 0).all()
    torch.testing.assert_close(cosines.diagonal()[3:], torch.ones(8, dtype=torch.float64))


# ------------------------------------------------------------------ curvature


def test_variances_are_those_of_the_explicit_coordinates():
    z, logits, _ = sample(n=40)
    vectors = hessian_products(z, logits)
    torch.testing.assert_close(
        vectors.variances().flatten(), flat(vectors).var(0, unbiased=False), rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("count", [1, 4, 15, 100])
def test_the_widest_coordinates_and_their_l1_distance(count):
    z, logits, _ = sample()
    dense = oracle.hessian_diagonals(z, logits)
    chosen = oracle.widest(dense, count)
    vectors = hessian_products(z, logits)
    found = widest_coordinates(vectors, count)
    assert len(found) == min(count, 15)
    values = vectors.coordinates(found)
    torch.testing.assert_close(values.var(0, unbiased=False), dense[:, chosen].var(0, unbiased=False), **CLOSE)
    wanted = oracle.distances(dense[:, chosen], norm=1)
    for rows in (slice(0, 11), slice(4, 6)):
        torch.testing.assert_close(l1_distances(values, rows), wanted[rows], **CLOSE)


def test_equal_variances_go_to_the_lowest_coordinate():
    vectors = OuterProducts(
        torch.ones(3, 2, dtype=torch.float64), torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]).double()
    )
    assert widest_coordinates(vectors, 3).tolist() == [1, 2, 4]
    assert widest_coordinates(vectors, 6).tolist() == [1, 2, 4, 5, 0, 3]


def test_preconditioned_gradients_are_the_quotient_of_the_explicit_ones():
    z, logits, labels = sample()
    z = z + 0.1
    quotient = oracle.gradients(z, logits, labels) / oracle.hessian_diagonals(z, logits)
    vectors = preconditioned_gradient_products(z, logits, labels, damping=1e-14)
    torch.testing.assert_close(sorted_rows(flat(vectors)), sorted_rows(quotient), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(vectors.distances(slice(2, 9)), oracle.distances(quotient)[2:9], rtol=1e-7, atol=1e-5)


@pytest.mark.parametrize("damping", [1e-4, 0.3])
def test_damping_is_the_documented_one(damping):
    z, logits, labels = sample(scale=4)
    vectors = preconditioned_gradient_products(z, logits, labels, damping)
    p, mean_square = logits.double().softmax(1), float(z.double().square().mean())
    for i, y in enumerate(labels.tolist()):
        for c in range(3):
            wanted = -1 / max(float(p[i, c]), damping) if c == y else 1 / max(1 - float(p[i, c]), damping)
            assert float(vectors.left[i, c]) == pytest.approx(wanted, rel=1e-12)
        for j, value in enumerate(z[i].tolist()):
            assert float(vectors.right[i, j]) == pytest.approx(value / (value**2 + damping * mean_square), rel=1e-6)
    assert (vectors.right[z == 0] == 0).all()


def test_preconditioned_gradients_are_finite_without_gradient_curvature_or_features():
    z, logits, labels = sample()
    logits[0] = torch.tensor([1e4, -1e4, -1e4])  # surely right
    logits[1] = torch.tensor([1e4, -1e4, -1e4])  # surely wrong
    for features in (z, torch.zeros_like(z)):
        vectors = preconditioned_gradient_products(features, logits, labels, damping=1e-4)
        assert vectors.distances(slice(0, 11)).isfinite().all()
        assert vectors.left[0].tolist() == [-1, 1, 1]
        assert vectors.left[1].tolist() == pytest.approx([1e4, -1e4, 1])


# ------------------------------------------------------------------ blocks


@pytest.mark.parametrize("block", [1, 3, 7, 11, 50])
def test_the_matrix_of_pairs_does_not_depend_on_the_block(block, monkeypatch):
    z, logits, labels = sample()
    vectors = gradient_products(z, logits, labels)
    shown = []

    def distances(rows):
        shown.append(rows)
        return vectors.distances(rows)

    monkeypatch.setattr(module, "BLOCK", block)
    found = pairs(distances, 11, CPU)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.double(), oracle.distances(oracle.gradients(z, logits, labels)), rtol=1e-6, atol=1e-6
    )
    assert max(rows.stop - rows.start for rows in shown) == min(block, 11)
