from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lit_condense.data import PRESETS, Normalization, measured, preset
from lit_condense.errors import DataError, SettingsError

# typed from the method sheets, independently of the table in the package
SHEETS = {
    ("dc", "mnist"): ([0.1307], [0.3081]),
    ("dc", "fashion_mnist"): ([0.2861], [0.3530]),
    ("dc", "svhn"): ([0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]),
    ("dc", "cifar10"): ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    ("dc", "cifar100"): ([0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762]),
    ("dc", "tiny_imagenet"): ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ("egm", "mnist"): ([0.1307], [0.3081]),
    ("egm", "fashion_mnist"): ([0.2861], [0.3530]),
    ("egm", "svhn"): ([0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]),
    ("egm", "cifar10"): ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    ("egm", "cifar100"): ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
    ("idc", "mnist"): ([0.1307], [0.3081]),
    ("idc", "fashion_mnist"): ([0.2861], [0.3530]),
    ("idc", "svhn"): ([0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]),
    ("idc", "cifar10"): ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    ("idc", "cifar100"): ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    ("idc", "imagenet"): ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ("mtt", "cifar10"): ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    ("mtt", "cifar100"): ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    ("mtt", "tiny_imagenet"): ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


def test_every_preset_is_the_one_of_the_method_sheets():
    table = {(family, name): value for family, sets in PRESETS.items() for name, value in sets.items()}
    assert {key: (list(value.mean), list(value.std)) for key, value in table.items()} == SHEETS


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5), (2, 7, 3, 4, 5)])
def test_normalize_works_on_each_channel_under_any_leading_dimensions(shape):
    values = Normalization((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    images = torch.rand(shape, dtype=torch.float64)
    normalized = values.normalize(images)
    for channel, (mean, std) in enumerate(zip(values.mean, values.std, strict=True)):
        torch.testing.assert_close(normalized.select(-3, channel), (images.select(-3, channel) - mean) / std)


def test_denormalize_undoes_normalize_without_clamping():
    values = PRESETS["dc"]["cifar10"]
    images = 3 * torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(values.denormalize(values.normalize(images)), images)


def test_normalize_lets_gradients_through_and_leaves_its_input_alone():
    images = torch.rand(1, 1, 2, 2, requires_grad=True)
    before = images.detach().clone()
    Normalization((0.5,), (0.25,)).normalize(images).sum().backward()
    torch.testing.assert_close(images.grad, torch.full((1, 1, 2, 2), 4.0))
    assert torch.equal(images.detach(), before)


def test_normalize_refuses_another_number_of_channels():
    with pytest.raises(DataError, match=r"3 channel\(s\).*\(2, 1, 8, 8\)"):
        PRESETS["dc"]["cifar10"].normalize(torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize(
    ("mean", "std"),
    [((), ()), ((0.1,), (0.1, 0.2)), ((0.1,), (0.0,)), ((0.1,), (-1.0,)), ((float("nan"),), (1.0,))],
)
def test_values_that_cannot_normalise_are_refused(mean, std):
    with pytest.raises(SettingsError, match="mean"):
        Normalization(mean, std)


def test_lists_become_tuples_and_the_values_cannot_change():
    values = Normalization([0, 1], [1, 2])
    assert (values.mean, values.std) == ((0.0, 1.0), (1.0, 2.0))
    assert hash(values) == hash(Normalization((0.0, 1.0), (1.0, 2.0)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        values.mean = (0.0, 0.0)


def test_measured_is_the_population_mean_and_std_over_all_pixels(monkeypatch):
    monkeypatch.setattr("lit_condense.data.normalization.MEASURED_PIXELS", 500)  # several parts, the last one smaller
    images = torch.randint(0, 256, (17, 3, 7, 9), dtype=torch.uint8)
    pixels = images.numpy().astype(np.float64) / 255
    found = measured(images)
    np.testing.assert_allclose(found.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(axis=(0, 2, 3), ddof=0), rtol=1e-12)


def test_measured_takes_float_images_as_they_are():
    images = torch.rand(5, 1, 4, 4)
    found = measured(images)
    np.testing.assert_allclose(found.mean, [images.double().mean()], rtol=1e-12)
    np.testing.assert_allclose(found.std, [images.double().std(correction=0)], rtol=1e-12)


def test_a_constant_channel_normalises_to_zero():
    images = torch.rand(50, 2, 3, 3)
    images[:, 1] = 0.3
    found = measured(images)
    assert found.std[1] == 1
    assert found.normalize(images)[:, 1].abs().max() < 1e-6


@pytest.mark.parametrize(("family", "dataset"), [("dcc", "mnist"), ("egm", "tiny_imagenet"), ("dc", "my_photos")])
def test_a_missing_preset_is_an_error_that_names_it(family, dataset):
    with pytest.raises(SettingsError, match=f"{family if family == 'dcc' else dataset}"):
        preset(family, dataset)
