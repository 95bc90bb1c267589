from __future__ import annotations

import pytest
import torch

from lit_condense.data import Normalization
from lit_condense.errors import SettingsError
from lit_condense.parametrization import Pixels
from lit_condense.rng import RandomKey

NORMALIZATION = Normalization((0.4, 0.6), (0.2, 0.3))
MEAN, STD = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in ([0.4, 0.6], [0.2, 0.3]))
SPACES = ("normalized", "pixel")


def pixels(seed=0):
    return torch.rand(4, 2, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("space", SPACES)
def test_what_is_encoded_decodes_to_the_normalised_image(space):
    storage = Pixels(space)
    decoded = storage.decode(storage.encode(pixels(), NORMALIZATION), NORMALIZATION)
    torch.testing.assert_close(decoded, (pixels() - MEAN) / STD, rtol=1e-13, atol=1e-13)


def test_normalised_space_stores_what_networks_see():
    stored = pixels()
    torch.testing.assert_close(Pixels().encode(stored, NORMALIZATION), (stored - MEAN) / STD)
    assert torch.equal(Pixels().decode(stored, NORMALIZATION), stored)


def test_pixel_space_stores_pixels():
    assert torch.equal(Pixels("pixel").encode(pixels(), NORMALIZATION), pixels())


@pytest.mark.parametrize("space", SPACES)
def test_encoding_copies(space):
    source = pixels()
    Pixels(space).encode(source, NORMALIZATION).zero_()
    assert torch.equal(source, pixels())


@pytest.mark.parametrize(("space", "slope"), [("normalized", torch.ones(2, 1, 1)), ("pixel", 1 / STD)])
def test_decoding_is_differentiable(space, slope):
    stored = pixels().requires_grad_()
    Pixels(space).decode(stored, NORMALIZATION).sum().backward()
    torch.testing.assert_close(stored.grad, slope.double().expand_as(stored))


def test_one_stored_image_is_one_training_image():
    labels = torch.tensor([0, 0, 2])
    assert Pixels.factor == 1
    assert torch.equal(Pixels().decode_labels(labels), labels)
    assert len(Pixels("pixel").decode(pixels(), NORMALIZATION)) == len(pixels())


def test_noise_in_normalised_space_is_standard_normal():
    noise = Pixels().noise((50, 2, 20, 20), RandomKey(0).generator())
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert abs(noise.pow(4).mean() - 3) < 0.2


def test_noise_in_pixel_space_is_normal_around_grey_and_cut_to_real_pixels():
    noise = Pixels("pixel").noise((50, 2, 20, 20), RandomKey(0).generator())
    assert noise.min() == 0
    assert noise.max() == 1
    # the share of N(0.5, 0.25) that lies at or below 0, and that lies in one standard deviation
    assert abs((noise == 0).double().mean() - 0.02275) < 0.004
    assert abs(((noise - 0.5).abs() < 0.25).double().mean() - 0.6827) < 0.01


def test_noise_follows_from_the_generator():
    first, again, other = (Pixels().noise((2, 2, 3, 3), RandomKey(s).generator()) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("space", "low", "high"), [("normalized", -MEAN / STD, (1 - MEAN) / STD), ("pixel", 0, 1)])
def test_projection_cuts_to_the_range_of_real_pixels_in_place(space, low, high):
    stored = 10 * (pixels() - 0.5)
    expected = torch.max(torch.min(stored, torch.as_tensor(high)), torch.as_tensor(low)).double()
    assert not torch.equal(stored, expected)
    same = stored
    Pixels(space).project_(stored, NORMALIZATION)
    assert same is stored
    torch.testing.assert_close(stored, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("space", SPACES)
def test_real_images_are_not_changed_by_projection(space):
    storage = Pixels(space)
    stored = storage.encode(pixels(), NORMALIZATION)
    before = stored.clone()
    storage.project_(stored, NORMALIZATION)
    assert torch.equal(stored, before)


@pytest.mark.parametrize("settings", [{"space": "rgb"}, {"clamp": "always"}])
def test_unknown_settings_are_refused(settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        Pixels(**settings)
