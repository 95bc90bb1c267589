from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tests.oracles import trajectory as oracle

PRINTED = 6e-13
"""The fixtures have twelve decimals."""
EXACT = {"rtol": 0.0, "atol": 1e-12}
METHODS = {
    "full": oracle.full,
    "constant_memory": oracle.constant_memory,
    "constant_memory_by_autograd": oracle.constant_memory_by_autograd,
}
CONSTANT_MEMORY = ["constant_memory", "constant_memory_by_autograd"]


def vector(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def noise(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------ one parameter


START, TARGET, STEP_SIZE = 0.5, 1.5, 0.4
INPUTS = (2.0, -1.0)


def one_weight(weights, x):
    """Logits (0, w x)."""
    return torch.stack([torch.zeros_like(x), weights["w"] * x], dim=1)


def one_weight_case(steps, inputs=INPUTS):
    x = vector(*inputs).requires_grad_()
    batches = [(x, torch.ones(len(inputs), dtype=torch.long))] * steps
    return one_weight, {"w": vector(START)}, {"w": vector(TARGET)}, batches, STEP_SIZE, [x]


# steps: reached, loss, dL/dx and dL/dalpha through all steps, dL/dx and dL/dalpha step by step
FIXTURES = {
    1: (
        0.483084702308,
        1.034116722681,
        ((-0.029421185181, -0.300991140427), 0.086007124942),
        ((-0.029421185181, -0.300991140427), 0.086007124942),
    ),
    2: (
        0.469647370526,
        1.061626541063,
        ((-0.057739936729, -0.543742419428), 0.138337415927),
        ((-0.063908344172, -0.606847830692), 0.156369557948),
    ),
    3: (
        0.459004441907,
        1.083671751970,
        ((-0.084141563821, -0.737050090659), 0.165953161948),
        ((-0.102565248972, -0.915616427710), 0.213380969384),
    ),
}


@pytest.mark.parametrize("steps", FIXTURES)
def test_the_one_parameter_student_arrives_where_the_sheet_says(steps):
    path = oracle.student(*one_weight_case(steps)[:2], *one_weight_case(steps)[3:5])
    assert len(path) == steps + 1
    assert path[0]["w"].item() == START
    assert path[-1]["w"].item() == pytest.approx(FIXTURES[steps][0], abs=PRINTED, rel=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", FIXTURES)
def test_loss_and_gradients_of_the_one_parameter_student_are_those_of_the_sheet(steps, method):
    _, wanted_loss, through_all, step_by_step = FIXTURES[steps]
    wanted, wanted_slope = through_all if method == "full" else step_by_step
    loss, (gradient,), slope = METHODS[method](*one_weight_case(steps))
    assert loss == pytest.approx(wanted_loss, abs=PRINTED, rel=0)
    assert gradient.tolist() == pytest.approx(list(wanted), abs=PRINTED, rel=0)
    assert slope == pytest.approx(wanted_slope, abs=PRINTED, rel=0)


def test_the_released_program_of_tesla_has_half_the_image_gradient():
    _, (gradient,), _ = oracle.constant_memory(*one_weight_case(3))
    assert (gradient / 2).tolist() == pytest.approx([-0.051282624486, -0.457808213855], abs=PRINTED, rel=0)


def sigmoid(number):
    return 1 / (1 + math.exp(-number))


def slope_of_loss(w):
    """The derivative in w of the mean of log(1 + exp(-w x))."""
    return sum(-x * sigmoid(-w * x) for x in INPUTS) / len(INPUTS)


def curvature_of_loss(w):
    return sum(x * x * sigmoid(w * x) * sigmoid(-w * x) for x in INPUTS) / len(INPUTS)


def slope_in_inputs(w):
    """The derivative of ``slope_of_loss`` in each input."""
    return [(-sigmoid(-w * x) + w * x * sigmoid(w * x) * sigmoid(-w * x)) / len(INPUTS) for x in INPUTS]


def test_one_step_by_hand():
    loss, (gradient,), slope = oracle.full(*one_weight_case(1))
    left = START - STEP_SIZE * slope_of_loss(START) - TARGET
    distance = (TARGET - START) ** 2
    assert loss == pytest.approx(left**2 / distance, rel=1e-13)
    by_hand = [2 / distance * left * -STEP_SIZE * d for d in slope_in_inputs(START)]
    assert gradient.tolist() == pytest.approx(by_hand, rel=1e-12)
    assert slope == pytest.approx(2 / distance * left * -slope_of_loss(START), rel=1e-12)


def test_two_steps_differ_by_the_cross_term_of_the_first_image_gradient_and_the_second_curvature():
    _, (through_all,), full_slope = oracle.full(*one_weight_case(2))
    _, (step_by_step,), slope = oracle.constant_memory(*one_weight_case(2))
    first = slope_of_loss(START)
    between = START - STEP_SIZE * first
    left = between - STEP_SIZE * slope_of_loss(between) - TARGET
    distance = (TARGET - START) ** 2
    # d th_2 / dx gains -alpha g'(th_1) times d th_1 / dx = -alpha d g(th_0) / dx; likewise d th_1 / dalpha = -g(th_0)
    curvature = curvature_of_loss(between)
    cross_terms = [2 / distance * left * STEP_SIZE**2 * curvature * d for d in slope_in_inputs(START)]
    assert all(abs(term) > 1e-3 for term in cross_terms)
    assert (through_all - step_by_step).tolist() == pytest.approx(cross_terms, rel=1e-11)
    assert full_slope - slope == pytest.approx(2 / distance * left * STEP_SIZE * curvature * first, rel=1e-11)


# ------------------------------------------------------------------ a small network

CLASSES = 3
SHAPES = {"conv": (2, 1, 3, 3), "shift": (2,), "linear": (CLASSES, 18), "bias": (CLASSES,)}


def network(weights, images):
    maps = torch.tanh(F.conv2d(images, weights["conv"], weights["shift"]))
    return maps.flatten(1) @ weights["linear"].T + weights["bias"]


def case(steps=4, step_size=0.3, images=None, soft=True):
    """Mini-batches of unequal size that share images, each seen through its own small augmentation."""
    start = {name: noise(*shape, seed=i) / 3 for i, (name, shape) in enumerate(SHAPES.items())}
    target = {name: tensor + noise(*tensor.shape, seed=10 + i) / 5 for i, (name, tensor) in enumerate(start.items())}
    stored = (noise(5, 1, 5, 5, seed=20) if images is None else images).clone().requires_grad_()
    label_logits = (2 * noise(5, CLASSES, seed=21)).requires_grad_()
    labels = torch.softmax(label_logits, 1) if soft else torch.tensor([0, 1, 2, 0, 1])
    batches = []
    for step, rows in enumerate([[4], [2, 3], [0, 1], [1, 4, 3]][:steps]):
        seen = torch.roll(stored[rows], step, 3) * (1 + step / 10)
        batches.append((seen, labels[rows]))
    return network, start, target, batches, step_size, [stored, label_logits]


@pytest.mark.parametrize("soft", [True, False], ids=["soft", "hard"])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_two_ways_to_write_the_constant_memory_gradient_agree(steps, soft):
    a, b = (METHODS[method](*case(steps, soft=soft)) for method in CONSTANT_MEMORY)
    assert a[0] == pytest.approx(b[0], abs=1e-12, rel=0)
    assert a[2] == pytest.approx(b[2], abs=1e-12, rel=0)
    for left, right in zip(a[1], b[1], strict=True):
        torch.testing.assert_close(left, right, **EXACT)
    assert a[1][0].abs().max() > 1e-3
    assert bool(a[1][1].abs().max() > 1e-3) == soft


def test_all_ways_agree_after_one_step():
    wanted_loss, wanted, wanted_slope = oracle.full(*case(1))
    for method in CONSTANT_MEMORY:
        loss, gradients, slope = METHODS[method](*case(1))
        assert loss == pytest.approx(wanted_loss, abs=1e-12, rel=0)
        assert slope == pytest.approx(wanted_slope, abs=1e-12, rel=0)
        for left, right in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(left, right, **EXACT)


@pytest.mark.parametrize("method", CONSTANT_MEMORY)
@pytest.mark.parametrize("steps", [2, 4])
def test_after_more_steps_only_the_loss_agrees(steps, method):
    wanted_loss, wanted, wanted_slope = oracle.full(*case(steps))
    loss, gradients, slope = METHODS[method](*case(steps))
    assert loss == pytest.approx(wanted_loss, abs=1e-12, rel=0)
    assert abs(slope - wanted_slope) > 1e-3
    assert all((left - right).abs().max() > 1e-5 for left, right in zip(gradients, wanted, strict=True))


def test_what_the_last_step_alone_saw_has_the_same_gradient_in_both():
    (_, through_all, _), (_, step_by_step, _) = oracle.full(*case(3)), oracle.constant_memory(*case(3))
    for a, b in zip(through_all, step_by_step, strict=True):  # images 0 and 1 are used in step 2 only
        torch.testing.assert_close(a[:2], b[:2], **EXACT)
        assert (a[2:] - b[2:]).abs().max() > 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_an_image_that_no_batch_uses_has_gradient_zero(method):
    _, (images, logits), _ = METHODS[method](*case(2))  # rows 4, then 2 and 3
    for gradient in (images, logits):
        assert not gradient[:2].any()
        assert gradient[2:].flatten(1).any(dim=1).all()


def central(function, at, width=1e-5):
    return (function(at + width) - function(at - width)) / (2 * width)


def test_the_full_slope_in_the_step_size_is_a_difference_of_losses():
    _, _, slope = oracle.full(*case())
    difference = central(lambda step_size: oracle.full(*case(step_size=step_size))[0], 0.3)
    assert slope == pytest.approx(difference, rel=1e-7)


@pytest.mark.parametrize("method", CONSTANT_MEMORY)
def test_the_constant_memory_slope_in_the_step_size_is_a_difference_of_losses_with_frozen_gradients(method):
    forward, start, target, batches, step_size, _ = case()
    frozen = oracle.step_gradients(forward, oracle.student_points(forward, start, batches, step_size), batches)
    difference = central(lambda alpha: oracle.frozen_loss(start, target, frozen, alpha).item(), step_size)
    assert METHODS[method](*case())[2] == pytest.approx(difference, rel=1e-7)


def with_pixel(images, pixel, value):
    changed = images.clone()
    changed[pixel] = value
    return changed


@pytest.mark.parametrize("pixel", [(0, 0, 2, 3), (3, 0, 0, 0), (4, 0, 1, 4)], ids=str)
def test_the_full_gradient_in_a_pixel_is_a_difference_of_losses(pixel):
    images = noise(5, 1, 5, 5, seed=20)
    _, (gradient, _), _ = oracle.full(*case(images=images))

    def loss(value):
        return oracle.full(*case(images=with_pixel(images, pixel, value)))[0]

    assert gradient[pixel].item() == pytest.approx(central(loss, images[pixel].item()), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("method", CONSTANT_MEMORY)
@pytest.mark.parametrize("pixel", [(0, 0, 2, 3), (3, 0, 0, 0), (4, 0, 1, 4)], ids=str)
def test_the_constant_memory_gradient_in_a_pixel_is_a_difference_of_losses_at_frozen_points(pixel, method):
    images = noise(5, 1, 5, 5, seed=20)
    forward, start, target, batches, step_size, _ = case(images=images)
    points = oracle.student_points(forward, start, batches, step_size)
    _, (gradient, _), _ = METHODS[method](*case(images=images))

    def loss(value):
        changed = case(images=with_pixel(images, pixel, value))[3]
        return oracle.frozen_loss(start, target, oracle.step_gradients(forward, points, changed), step_size).item()

    assert gradient[pixel].item() == pytest.approx(central(loss, images[pixel].item()), rel=1e-6, abs=1e-9)


# ------------------------------------------------------------------ the loss


@pytest.mark.parametrize("method", METHODS)
def test_zero_gradients_leave_a_loss_of_exactly_one(method):
    loss, _, slope = METHODS[method](*one_weight_case(3, inputs=(0.0, 0.0)))
    assert loss == 1.0
    assert slope == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_a_step_size_of_zero_leaves_a_loss_of_exactly_one_that_no_image_changes(method):
    loss, gradients, slope = METHODS[method](*case(step_size=0.0))
    assert loss == 1.0
    assert not any(gradient.any() for gradient in gradients)
    assert slope != 0.0


def test_a_weight_that_the_loss_does_not_depend_on_stays():
    _, start, _, batches, step_size, _ = case(2)
    start = {**start, "idle": vector(7.0)}
    for weights in oracle.student(network, start, batches, step_size):
        assert weights["idle"].item() == 7.0


def test_the_distance_is_over_all_parameters_and_normalised_by_the_whole_way():
    start = {"a": vector(0.0, 0.0), "b": vector(0.0)}
    target = {"a": vector(3.0, 0.0), "b": vector(4.0)}
    assert oracle.normalised_distance(start, start, target).item() == 1.0
    assert oracle.normalised_distance(target, start, target).item() == 0.0
    reached = {"a": vector(3.0, 1.0), "b": vector(2.0)}
    assert oracle.normalised_distance(reached, start, target).item() == pytest.approx((1 + 4) / 25, rel=1e-15)


def test_soft_cross_entropy_is_torchs():
    logits, targets = noise(6, 4, seed=1), torch.softmax(noise(6, 4, seed=2), 1)
    torch.testing.assert_close(oracle.soft_cross_entropy(logits, targets), F.cross_entropy(logits, targets), **EXACT)


def test_probabilities_of_zero_and_one_are_class_indices():
    *others, batches, step_size, _ = case(soft=False)
    certain = [(images, F.one_hot(labels, CLASSES).double()) for images, labels in batches]
    a, b = (oracle.student(others[0], others[1], steps, step_size)[-1] for steps in (batches, certain))
    for name in SHAPES:
        torch.testing.assert_close(a[name], b[name], **EXACT)


# ------------------------------------------------------------------ flat experts

W, H = vector(1.0, -2.0, 0.5), vector(3.0, 1.0, 10.0)


def quadratic(parameters):
    """The gradient of 0.5 sum H w^2 - sum w."""
    return [H * parameters[0] - 1]


@pytest.mark.parametrize(
    ("rho", "alpha", "wanted"),
    [
        (0.5, 0.3, (0.755000790453, -1.604375968951, 0.028751725390)),
        (0.5, 0.0, (0.754773298313, -1.609546596627, 0.024622163856)),
        (0.01, 0.3, (0.799098631255, -1.698060617759, 0.098588815258)),
        (0.01, 1.0, (0.799106016927, -1.697756551354, 0.098813683213)),
    ],
)
def test_a_step_of_gsam_is_that_of_the_program(rho, alpha, wanted):
    (found,) = oracle.gsam_step([W], quadratic, lr=0.1, rho=rho, alpha=alpha)
    assert found.tolist() == pytest.approx(list(wanted), abs=PRINTED, rel=0)


def test_norms_of_gsam_are_over_all_parameters_together():
    def in_parts(parameters):
        return list(quadratic([torch.cat(parameters)])[0].split([1, 2]))

    (whole,) = oracle.gsam_step([W], quadratic, lr=0.1, rho=0.5, alpha=0.3)
    parts = oracle.gsam_step([W[:1], W[1:]], in_parts, lr=0.1, rho=0.5, alpha=0.3)
    torch.testing.assert_close(torch.cat(parts), whole, **EXACT)


@pytest.mark.parametrize("rho", [0.5, 0.01])
def test_the_perturbation_in_units_of_the_parameters_is_rho_long(rho):
    (uphill,) = oracle.gsam_perturbation([W], quadratic([W]), rho)
    assert (uphill / W.abs()).norm().item() == pytest.approx(rho, rel=1e-11)


def test_a_parameter_of_zero_is_not_perturbed():
    parameters = vector(1.0, 0.0, 0.5)
    (uphill,) = oracle.gsam_perturbation([parameters], quadratic([parameters]), 0.5)
    assert uphill[1] == 0
    assert uphill[0] != 0


@pytest.mark.parametrize("rho", [1e-4, 1e-7, 0.0])
def test_gsam_without_alpha_tends_to_plain_descent(rho):
    (found,) = oracle.gsam_step([W], quadratic, lr=0.1, rho=rho, alpha=0.0)
    torch.testing.assert_close(found, W - 0.1 * quadratic([W])[0], rtol=0.0, atol=2 * rho + 1e-15)


# ------------------------------------------------------------------ bookkeeping


@pytest.mark.parametrize(("update", "wanted"), [(0, 10), (99, 10), (100, 11), (999, 19), (1000, 20), (10_000, 20)])
def test_the_upper_end_of_the_start_epochs_grows(update, wanted):
    assert oracle.upper_start_epoch(update, first=10, last=20, expansion=1000) == wanted


def test_the_upper_end_is_the_formula_of_the_program():
    for first, last, expansion in [(10, 20, 1000), (20, 40, 2000), (30, 50, 2000), (15, 20, 2000), (3, 3, 7)]:
        for update in range(2 * expansion):
            wanted = min(first + int((last - first) * update / expansion), last)
            assert oracle.upper_start_epoch(update, first, last, expansion) == wanted


def test_a_shorter_chunk_is_used_first():
    assert oracle.chunks([3, 0, 4, 1, 2], 2) == [[2], [4, 1], [3, 0]]
    assert oracle.chunks([3, 0, 4, 1], 2) == [[4, 1], [3, 0]]
    assert oracle.chunks([3, 0, 4, 1, 2], 9) == [[3, 0, 4, 1, 2]]


@pytest.mark.parametrize("decay", [0.9, 0.5])
def test_the_average_of_images_that_move_evenly_lags_behind(decay):
    start, step = noise(2, 3, seed=1), noise(2, 3, seed=2)
    averages = oracle.exponential_average(start, [start + k * step for k in range(1, 21)], decay)
    assert len(averages) == 21
    for k, average in enumerate(averages):
        wanted = start + step * (k - decay * (1 - decay**k) / (1 - decay))
        torch.testing.assert_close(average, wanted, rtol=0.0, atol=1e-13 * 20)


@pytest.mark.parametrize(("decay", "wanted"), [(0.9999, 0.607), (0.9995, 0.082), (0.999, 0.0067)])
def test_the_first_images_keep_a_weight_for_long(decay, wanted):
    zero = vector(0.0)
    last = oracle.exponential_average(vector(1.0), [zero] * 5000, decay)[-1].item()
    assert last == pytest.approx(wanted, rel=6e-3)
