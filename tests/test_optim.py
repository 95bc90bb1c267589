"""Optimizers of the images against the programs they stand for (Kim et al., ICML 2022)."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from lit_condense.errors import SettingsError
from lit_condense.optim import SharedTensorSGD, rescaled_lr
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
