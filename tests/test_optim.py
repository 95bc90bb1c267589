"""Optimizers against the programs they stand for (Kim et al., ICML 2022; Du et al., CVPR 2023)."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import pytest
import torch

from lit_condense.errors import SettingsError
from lit_condense.optim import GSAM, SharedTensorSGD, rescaled_lr, steps_images
from tests.oracles import trajectory
from tests.oracles.methods import shared_tensor_steps

CLASSES, UPDATES = 10, 6
SHAPE = (CLASSES, 2, 3, 3)


def noise(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def constant(update, c, images):
    return noise(*SHAPE[1:], seed=c)


def changing(update, c, images):
    return noise(*SHAPE[1:], seed=100 * update + c)


def curved(update, c, images):
    """A gradient that depends on where it is taken: a wrong position would feed back."""
    return (c + 1) * images**3 / 10 + torch.sin(3 * images) + noise(*SHAPE[1:], seed=update)


def joint_steps(images, gradient_of, optimizer, updates):
    """Step all classes at once, as the synthetic set does."""
    images.requires_grad_()
    seen = []
    for update in range(updates):
        seen.append(images.detach().clone())
        images.grad = torch.stack([gradient_of(update, c, images.detach()[c]) for c in range(len(images))])
        optimizer.step()
    return seen


@pytest.mark.parametrize(
    ("gradient_of", "tolerance"), [(constant, 1e-15), (changing, 1e-15), (curved, 1e-13)], ids=lambda v: str(v)[:20]
)
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_at_each_gradient_it_is_where_stepping_class_by_class_would_be(momentum, gradient_of, tolerance):
    images, lr = noise(*SHAPE, seed=0), 0.05
    wanted = shared_tensor_steps(images, gradient_of, lr, momentum, UPDATES)
    images = images.clone()
    found = joint_steps(images, gradient_of, SharedTensorSGD([images], lr, momentum, CLASSES), UPDATES)
    scale = float(torch.stack(wanted).abs().max())
    for update, (a, b) in enumerate(zip(found, wanted, strict=True)):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * scale, msg=lambda m, u=update: f"{u}: {m}")
    assert (wanted[-1] - wanted[0]).abs().max() > 0.1


def test_in_exact_numbers_the_two_are_equal():
    lr, momentum, gradients = (
        Fraction(1, 20),
        Fraction(1, 2),
        [Fraction(k * k - 7, 3) for k in range(UPDATES * CLASSES)],
    )

    def steps_of_one_class(c):
        """Its positions at its gradients, when every class's step moves it by its velocity."""
        position, velocity, seen = Fraction(1), Fraction(0), []
        for update in range(UPDATES):
            for turn in range(CLASSES):
                if turn == c:
                    seen.append(position)
                velocity = momentum * velocity + (gradients[update * CLASSES + c] if turn == c else 0)
                position -= lr * velocity
        return seen

    rate, decay = lr * (1 - momentum**CLASSES) / (1 - momentum), momentum**CLASSES
    for c in (0, 4, 9):
        position, velocity, seen = Fraction(1), Fraction(0), []
        for update in range(UPDATES):
            seen.append(position)
            velocity = decay * velocity + gradients[update * CLASSES + c]
            position -= rate * velocity
        assert seen == steps_of_one_class(c)
    group = SharedTensorSGD([torch.zeros(1, requires_grad=True)], 0.05, 0.5, CLASSES).param_groups[0]
    assert (group["lr"], group["momentum"]) == (pytest.approx(float(rate), rel=1e-15), float(decay))


def test_a_gradient_moves_an_image_by_nearly_twice_the_rate():
    group = SharedTensorSGD([torch.zeros(1, requires_grad=True)], 1.0, 0.5, 10).param_groups[0]
    assert group["lr"] == pytest.approx(1.998, abs=5e-4)  # idc_dream.md, section 2.5
    assert group["momentum"] == pytest.approx(0.001, abs=5e-5)


def test_one_class_is_plain_sgd():
    images, plain = (noise(3, 2, seed=0).requires_grad_() for _ in range(2))
    optimizers = SharedTensorSGD([images], 0.3, 0.7, 1), torch.optim.SGD([plain], 0.3, 0.7)
    for update in range(4):
        for tensor, optimizer in zip((images, plain), optimizers, strict=True):
            tensor.grad = noise(3, 2, seed=update)
            optimizer.step()
    torch.testing.assert_close(images, plain, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("settings", [(0.1, 1.0, 10), (0.1, -0.1, 10), (0.1, 0.5, 0)], ids=str)
def test_settings_that_have_no_meaning_are_refused(settings):
    with pytest.raises(SettingsError, match=r"momentum in \[0, 1\)"):
        SharedTensorSGD([torch.zeros(1, requires_grad=True)], *settings)


IPC = (1, 10, 20, 50)
RATES = {
    # data set: rate for 10 images at the base size, side, base; published rates for the four sizes
    "CIFAR, SVHN": (5e-3, 32, 32, (5e-4, 5e-3, 1e-2, 2.5e-2)),
    "MNIST": (1e-4, 28, 28, (1e-5, 1e-4, 2e-4, 5e-4)),
    "FashionMNIST": (1e-4, 28, 32, (7.66e-6, 7.66e-5, 1.53e-4, 3.83e-4)),
    "ImageNet-10": (3e-3, 224, 224, (3e-4, 3e-3, 6e-3, 1.5e-2)),
    "TinyImageNet": (5e-3, 64, 32, (None, 2e-2, None, None)),
    "TinyImageNet, 50 images": (1e-6, 64, 32, (None, None, None, 2e-5)),
}


@pytest.mark.parametrize("name", RATES)
def test_the_published_rates(name):
    lr, side, base, published = RATES[name]
    for ipc, wanted in zip(IPC, published, strict=True):
        if wanted is not None:
            # the table is rounded to three digits
            assert rescaled_lr(lr, ipc, side, base) == pytest.approx(wanted, rel=2e-3)


def test_the_base_size_is_that_of_cifar():
    assert rescaled_lr(5e-3, 10, 32) == pytest.approx(5e-3, rel=1e-15)
    assert rescaled_lr(1e-4, 10, 28) / rescaled_lr(1e-4, 10, 28, 28) == pytest.approx(0.765625, rel=1e-15)


# ------------------------------------------------------------------------------------------------ GSAM

CURVATURE = torch.tensor([3.0, 1.0, 10.0], dtype=torch.float64)
GSAM_STEPS = {  # (rho, alpha) -> the weights after one step of the authors' program
    (0.5, 0.3): (0.755000790453, -1.604375968951, 0.028751725390),
    (0.5, 0.0): (0.754773298313, -1.609546596627, 0.024622163856),
    (0.01, 0.3): (0.799098631255, -1.698060617759, 0.098588815258),
    (0.01, 1.0): (0.799106016927, -1.697756551354, 0.098813683213),
}


def gsam(values, gradients_at, **settings):
    """One step on parameters of these values; ``gradients_at(values)`` gives their gradients. Returns them, and where
    gradients were taken."""
    parameters, seen = [torch.nn.Parameter(value.clone()) for value in values], []

    def closure():
        seen.append([p.detach().clone() for p in parameters])
        for parameter, gradient in zip(parameters, gradients_at(seen[-1]), strict=True):
            parameter.grad = gradient
        return torch.zeros(())

    GSAM(parameters, **settings).step(closure)
    return [p.detach() for p in parameters], seen


def quadratic(values):
    return [CURVATURE * values[0] - 1]


@pytest.mark.parametrize(("rho", "alpha"), GSAM_STEPS)
def test_gsam_takes_the_step_of_its_program(rho, alpha):
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (found,), seen = gsam([start], quadratic, lr=0.1, rho=rho, alpha=alpha)
    assert found.tolist() == pytest.approx(GSAM_STEPS[rho, alpha], abs=1e-11)
    assert torch.equal(seen[0][0], start)
    assert float(((seen[1][0] - start) / start).norm()) == pytest.approx(rho)


def test_gsam_of_several_parameters_is_that_of_the_definition():
    start = [noise(3, 4, seed=1), noise(5, seed=2), torch.zeros(2, dtype=torch.float64)]

    def gradients_at(values):
        return [torch.sin(3 * value) + value**3 + 1 for value in values]

    found, seen = gsam(start, gradients_at, lr=0.05, rho=0.2, alpha=0.7)
    wanted = trajectory.gsam_step(start, gradients_at, 0.05, 0.2, 0.7)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
    assert not bool((seen[1][2] - start[2]).any())  # what is exactly 0 is not perturbed


def test_gsam_without_perturbation_is_sgd():
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (found,), _ = gsam([start], quadratic, lr=0.1, rho=1e-9, alpha=0.0)
    torch.testing.assert_close(found, start - 0.1 * quadratic([start])[0], rtol=1e-7, atol=1e-9)


def test_gsam_cannot_step_images_and_says_why():
    with pytest.raises(SettingsError, match=r"GSAM, which evaluates the loss again"):
        steps_images(partial(GSAM, lr=0.1))


@pytest.mark.parametrize("setting", ["lr", "rho", "alpha"])
def test_gsam_refuses_what_is_below_nothing(setting):
    with pytest.raises(SettingsError, match=f"GSAM.{setting} to be 0 or more"):
        GSAM([torch.nn.Parameter(torch.zeros(1))], **{"lr": 0.1, setting: -1.0})


def test_idm_moves_images_twice_its_rate_in_an_update_but_for_two_to_the_minus_classes():
    # its sheet: with unit gradients class 0 has moved 1.998047 times its rate after one update, 3.998045 after two
    images = torch.zeros(SHAPE, dtype=torch.float64)
    one = lambda update, c, images: torch.ones(SHAPE[1:], dtype=torch.float64)  # noqa: E731
    found = joint_steps(images, one, SharedTensorSGD([images], 0.2, 0.5, CLASSES), 3)
    assert [-float(at[0, 0, 0, 0]) / 0.2 for at in found] == pytest.approx([0.0, 1.998047, 3.998045], abs=1e-6)
