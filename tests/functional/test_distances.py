from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_condense.functional import distances
from tests.oracles import dc as oracle

NAMES = list(oracle.DISTANCES)
SHAPES = {"conv": (3, 2, 3, 3), "conv bias": (3,), "layer norm": (3, 4, 4), "linear": (5, 12), "linear bias": (5,)}


def compute(name, real, synthetic):
    return getattr(distances, name)(real, synthetic)


def blocks(**rows):
    """One class block of given gradients."""
    return {name: torch.tensor(values, dtype=torch.float64).unsqueeze(0) for name, values in rows.items()}


def conv(*filters):
    """Filters of one input channel."""
    return [[f] for f in filters]


def drawn(k, seed, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(k, *shape, generator=generator, dtype=torch.float64) for n, shape in shapes.items()}


LINEAR, BIAS = [[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0]
CONV = conv([[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 0.0]])
OTHER_LINEAR, OTHER_BIAS = [[2.0, 1.0], [0.0, 1.0]], [5.0, -3.0]
OTHER_CONV = conv([[0.0, 1.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("name", "expected", "digits"),
    [("row_cosine", 1.9, 1e-5), ("squared_l2", 60.0, 0), ("global_cosine", 0.712981, 1e-6)],
)
def test_the_published_dc_example_is_reproduced(name, expected, digits):
    # the sheet rounds; the epsilon moves 1.9 by some 1e-7
    real = blocks(linear=LINEAR, bias=BIAS, conv=CONV)
    synthetic = blocks(linear=OTHER_LINEAR, bias=OTHER_BIAS, conv=OTHER_CONV)
    assert compute(name, real, synthetic).item() == pytest.approx(expected, abs=digits, rel=0)


@pytest.mark.parametrize(
    ("name", "expected"), [("squared_l2", 8.0), ("l1", 8.0), ("l1_mean", 2.0), ("row_cosine", 1.5)]
)
def test_the_published_idc_example_is_reproduced(name, expected):
    value = compute(name, blocks(conv=CONV), blocks(conv=OTHER_CONV)).item()
    assert value == pytest.approx(expected, abs=1e-6 if name == "row_cosine" else 0, rel=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NAMES)
def test_random_gradients_give_the_literal_distance_of_each_block(name, seed):
    real, synthetic = drawn(4, seed), drawn(4, 100 + seed)
    values = compute(name, real, synthetic)
    assert values.shape == (4,)
    for c in range(4):
        literal = oracle.DISTANCES[name]([t[c] for t in real.values()], [t[c] for t in synthetic.values()])
        assert values[c].item() == pytest.approx(float(literal), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_derivative_in_the_synthetic_side_is_the_literal_one(name):
    real, synthetic = drawn(2, 1), {n: t.requires_grad_() for n, t in drawn(2, 2).items()}
    derivatives = torch.autograd.grad(
        compute(name, real, synthetic).sum(), list(synthetic.values()), materialize_grads=True, allow_unused=True
    )
    literal = oracle.sum_of(
        oracle.DISTANCES[name]([t[c] for t in real.values()], [t[c] for t in synthetic.values()]) for c in range(2)
    )
    expected = torch.autograd.grad(literal, list(synthetic.values()), materialize_grads=True, allow_unused=True)
    for derivative, wanted in zip(derivatives, expected, strict=True):
        torch.testing.assert_close(derivative, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["row_cosine", "row_cosine_clamped", "row_cosine_norm"])
def test_row_distances_skip_biases_and_norm_scales(name):
    real, synthetic = drawn(2, 1), drawn(2, 2)
    changed = {n: t + 7 if t.ndim == 2 else t for n, t in synthetic.items()}
    assert torch.equal(compute(name, real, synthetic), compute(name, real, changed))


@pytest.mark.parametrize("name", ["squared_l2", "l1", "l1_mean", "global_cosine"])
def test_the_other_distances_read_biases(name):
    real, synthetic = drawn(2, 1), drawn(2, 2)
    changed = {n: t + 7 if t.ndim == 2 else t for n, t in synthetic.items()}
    assert not torch.isclose(compute(name, real, synthetic), compute(name, real, changed)).any()


@pytest.mark.parametrize("zero_side", ["real", "synthetic", "both"])
@pytest.mark.parametrize("name", NAMES)
def test_zero_rows_give_finite_values_and_derivatives(name, zero_side):
    real, synthetic = drawn(2, 1), drawn(2, 2)
    for n in SHAPES:
        if zero_side != "synthetic":
            real[n][:, 0] = 0
        if zero_side != "real":
            synthetic[n][:, 0] = 0
    leaves = [t.requires_grad_() for t in synthetic.values()]
    value = compute(name, real, synthetic)
    derivatives = torch.autograd.grad(value.sum(), leaves, materialize_grads=True, allow_unused=True)
    assert value.isfinite().all()
    assert all(d.isfinite().all() for d in derivatives)


@pytest.mark.parametrize("name", NAMES)
def test_everything_zero_on_both_sides_is_finite(name):
    real = {n: torch.zeros(2, *shape, dtype=torch.float64) for n, shape in SHAPES.items()}
    synthetic = {n: t.clone().requires_grad_() for n, t in real.items()}
    value = compute(name, real, synthetic)
    derivatives = torch.autograd.grad(value.sum(), list(synthetic.values()), materialize_grads=True, allow_unused=True)
    assert value.isfinite().all()
    assert all(d.isfinite().all() for d in derivatives)


@pytest.mark.parametrize("name", NAMES)
def test_equal_gradients_have_no_distance_and_a_finite_derivative(name):
    real = drawn(3, 1)
    synthetic = {n: t.clone().requires_grad_() for n, t in real.items()}
    value = compute(name, real, synthetic)
    derivatives = torch.autograd.grad(value.sum(), list(synthetic.values()), materialize_grads=True, allow_unused=True)
    # DC's epsilon of 1e-6 leaves about that much for each of the 11 rows
    assert value.abs().max() < (1e-4 if name in ("row_cosine", "global_cosine") else 1e-12)
    assert all(d.isfinite().all() for d in derivatives)


@pytest.mark.parametrize("name", NAMES)
def test_no_distance_is_ever_negative_and_row_cosine_is_at_most_two_a_row(name):
    opposite = {n: -t for n, t in drawn(3, 1).items()}
    value = compute(name, drawn(3, 1), opposite)
    assert (value > 0).all()
    if name == "row_cosine":
        assert torch.allclose(value, torch.tensor(2.0 * 11, dtype=torch.float64), rtol=1e-5)
        assert (value <= 22).all()
    if name == "global_cosine":
        assert (value <= 2).all()


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.05, 20), seed=st.integers(0, 1000))
def test_egm_pays_only_for_length_when_a_gradient_is_scaled(factor, seed):
    # egm.md, section 7: D_base(a g, g) = 0 and D_impr(a g, g) = |a - 1| sum of |g_r|, for a > 0
    real = drawn(2, seed)
    scaled = {n: factor * t for n, t in real.items()}
    for c in range(2):
        lengths = sum(float(row.norm()) for t in real.values() for row in oracle.rows(t[c]))
        value = compute("row_cosine_norm", real, scaled)[c].item()
        assert value == pytest.approx(abs(factor - 1) * lengths, rel=1e-10, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.05, 20), seed=st.integers(0, 1000))
def test_cosines_do_not_see_a_positive_scale(factor, seed):
    real, synthetic = drawn(2, seed), drawn(2, seed + 5000)
    scaled = {n: factor * t for n, t in synthetic.items()}
    # up to the epsilon of 1e-6 beside norms of about 1
    for name in ("row_cosine", "global_cosine"):
        torch.testing.assert_close(compute(name, real, scaled), compute(name, real, synthetic), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l1_mean", 1), ("squared_l2", 2)])
def test_differences_grow_with_their_power(name, power):
    real, synthetic = drawn(2, 1), drawn(2, 2)
    tripled = compute(name, {n: 3 * t for n, t in real.items()}, {n: 3 * t for n, t in synthetic.items()})
    torch.testing.assert_close(tripled, 3**power * compute(name, real, synthetic), rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_parameters_on_the_synthetic_side_does_not_matter(name):
    real, synthetic = drawn(2, 1), drawn(2, 2)
    turned = dict(reversed(synthetic.items()))
    torch.testing.assert_close(compute(name, real, turned), compute(name, real, synthetic), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_sides_with_different_parameters_are_refused(name):
    real = drawn(2, 1)
    with pytest.raises(KeyError, match="same parameter names"):
        compute(name, real, {n: t for n, t in real.items() if n != "conv"})


@pytest.mark.parametrize("name", ["row_cosine", "row_cosine_clamped", "row_cosine_norm"])
def test_row_distances_refuse_gradients_without_rows(name):
    only_biases = drawn(2, 1, {"bias": (3,)})
    with pytest.raises(ValueError, match="two or more dimensions"):
        compute(name, only_biases, only_biases)


@pytest.mark.parametrize("name", NAMES)
def test_a_scalar_parameter_counts_as_one_entry(name):
    shapes = {**SHAPES, "temperature": ()}
    real, synthetic = drawn(2, 1, shapes), drawn(2, 2, shapes)
    values = compute(name, real, synthetic)
    for c in range(2):
        literal = oracle.DISTANCES[name]([t[c] for t in real.values()], [t[c] for t in synthetic.values()])
        assert values[c].item() == pytest.approx(float(literal), rel=1e-12)


def test_only_the_clamped_cosine_sees_the_angle_of_tiny_gradients():
    # norms of about 1e-5: DC's epsilon is larger than their product
    real, synthetic = ({n: 1e-6 * t for n, t in drawn(2, seed).items()} for seed in (1, 2))
    large, other = drawn(2, 1), drawn(2, 2)
    torch.testing.assert_close(
        compute("row_cosine_clamped", real, synthetic), compute("row_cosine_clamped", large, other), rtol=1e-10, atol=0
    )
    torch.testing.assert_close(
        compute("row_cosine", real, synthetic), torch.full((2,), 11.0, dtype=torch.float64), rtol=1e-3, atol=0
    )
