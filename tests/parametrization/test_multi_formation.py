from __future__ import annotations

import pytest
import torch

from lit_condense.data import Normalization
from lit_condense.errors import SettingsError
from lit_condense.init import Noise, RandomReal
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.rng import RandomKey
from tests.helpers import TinyData, fitted, tiny_convnet
from tests.oracles import multi_formation

NORMALIZATION = Normalization((0.4, 0.6), (0.2, 0.3))
MEAN, STD = (torch.tensor(v, dtype=torch.float64) for v in ([0.4, 0.6], [0.2, 0.3]))
GREY = torch.full((2,), 0.5, dtype=torch.float64)
SPACES = ("pixel", "normalized")
SIZES = [((8, 8), 2), ((9, 9), 2), ((8, 10), 3), ((7, 12), 3), ((5, 4), 4), ((6, 6), 1)]


def pixels(count, size, seed=0):
    return torch.rand(count, 2, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normalised(images):
    return (images - MEAN[:, None, None]) / STD[:, None, None]


# ------------------------------------------------------------------ decode


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("size", "factor"), SIZES, ids=str)
def test_decoding_is_the_literal_loop_over_pixels(size, factor, space):
    stored = pixels(3, size)
    found = MultiFormation(factor, space).decode(stored, NORMALIZATION)
    if space == "pixel":
        wanted = normalised(multi_formation.decode(stored, factor, GREY))
    else:
        wanted = multi_formation.decode(stored, factor, (GREY - MEAN) / STD)
    assert found.shape == (3 * factor**2, 2, *size)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("size", "factor"), SIZES[:4], ids=str)
def test_the_gradient_through_decoding_is_the_literal_one(size, factor, space):
    storage, gradients = MultiFormation(factor, space), []
    weights = pixels(2 * factor**2, size, seed=1)
    fill = GREY if space == "pixel" else (GREY - MEAN) / STD
    for decode in (
        lambda images: storage.decode(images, NORMALIZATION),
        lambda images: (normalised if space == "pixel" else torch.clone)(multi_formation.decode(images, factor, fill)),
    ):
        stored = pixels(2, size).requires_grad_()
        # squared, so that where the gradient is taken matters
        gradients.append(torch.autograd.grad((weights * decode(stored).square()).sum(), stored)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-11, atol=1e-12)
    assert (gradients[0] != 0).all()  # every stored pixel is used


# stored side, factor -> side of what is cut out; 28 and 32 pixels and 224 (ImageNet) are IDC's settings
CROPS = [(32, 2, 16), (28, 2, 14), (64, 2, 32), (32, 3, 11), (224, 3, 75)]


@pytest.mark.parametrize(("side", "factor", "crop"), CROPS)
def test_each_cell_is_a_crop_of_the_published_size(side, factor, crop):
    # one lit stored pixel lights the decoded image of its cell and no other
    storage = MultiFormation(factor, "normalized")
    for index in range(factor):
        # first and last stored row of the cell; the last cell's padding comes after the stored rows
        for row in {index * crop, min((index + 1) * crop, side) - 1}:
            stored = torch.zeros(1, 2, side, side, dtype=torch.float64)
            stored[0, :, row, 0] = 1.0
            decoded = storage.decode(stored, Normalization((0.5, 0.5), (1.0, 1.0)))
            lit = decoded.abs().sum((1, 2, 3)).nonzero().flatten().tolist()
            assert lit == [index * factor]
            assert decoded.shape == (factor**2, 2, side, side)


def test_padding_is_grey_to_the_right_and_below():
    # a white image of 8 = 3 + 3 + 2 pixels a side: the last row and column of cells end in grey
    decoded = MultiFormation(3).decode(torch.ones(1, 1, 8, 8, dtype=torch.float64), Normalization((0.0,), (1.0,)))[:, 0]
    white = torch.ones(8, 8, dtype=torch.float64)
    for k, image in enumerate(decoded):
        below, right = k // 3 == 2, k % 3 == 2
        assert torch.equal(image, white) == (not below and not right)
        assert image[-1, 0].item() == pytest.approx(0.5 if below else 1.0)
        assert image[0, -1].item() == pytest.approx(0.5 if right else 1.0)


def test_the_order_is_first_cells_of_all_images_and_then_the_next_cells():
    stored = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    for n in range(2):
        for k, (y, x) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
            stored[n, :, y : y + 2, x : x + 2] = 10 * k + n
    decoded = MultiFormation(2).decode(stored, Normalization((0.0,), (1.0,)))
    assert [image.unique().tolist() for image in decoded] == [[0], [1], [10], [11], [20], [21], [30], [31]]


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_labels_follow_the_order_of_decoded_images(factor):
    storage, labels = MultiFormation(factor, "pixel"), torch.tensor([0, 0, 1, 4])
    stored = labels.double()[:, None, None, None].expand(-1, 2, 6, 6)
    decoded = storage.decode(stored, Normalization((0.0, 0.0), (1.0, 1.0)))
    repeated = storage.decode_labels(labels)
    assert repeated.dtype == torch.int64
    assert torch.equal(decoded[:, 0, 0, 0].long(), repeated)
    assert len(repeated) == 4 * factor**2


def test_factor_one_is_plain_pixels():
    stored = pixels(3, (5, 7))
    for space in SPACES:
        one, plain = MultiFormation(1, space), Pixels(space)
        torch.testing.assert_close(one.decode(stored, NORMALIZATION), plain.decode(stored, NORMALIZATION))
        assert torch.equal(one.encode(stored, NORMALIZATION), plain.encode(stored, NORMALIZATION))


def test_a_float32_image_stays_float32():
    for size in ((8, 8), (7, 9)):
        decoded = MultiFormation(2).decode(pixels(1, size).float(), NORMALIZATION)
        assert decoded.dtype == torch.float32


def test_decoding_leaves_the_stored_images_alone():
    for size in ((8, 8), (7, 9)):
        stored = pixels(2, size)
        MultiFormation(2).decode(stored, NORMALIZATION).zero_()
        assert torch.equal(stored, pixels(2, size))


# ------------------------------------------------------------------ encode


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("size", "factor"), SIZES, ids=str)
def test_encoding_is_the_literal_loop_over_pixels(size, factor, space):
    images = pixels(2 * factor**2, size)
    found = MultiFormation(factor, space).encode(images, NORMALIZATION)
    packed = multi_formation.encode(images, factor)
    torch.testing.assert_close(found, packed if space == "pixel" else normalised(packed), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("side", "factor", "cells"), [(32, 2, [16, 16]), (28, 2, [14, 14]), (32, 3, [11, 11, 10])])
def test_cells_share_out_the_side_the_first_ones_larger(side, factor, cells):
    # image k of one stored image is constant: k fills cell k
    images = torch.arange(factor**2, dtype=torch.float64)[:, None, None, None].expand(-1, 2, side, side)
    stored = MultiFormation(factor).encode(images, NORMALIZATION)[0, 0]
    edges = [sum(cells[:i]) for i in range(factor + 1)]
    for k in range(factor**2):
        i, j = divmod(k, factor)
        cell = stored[edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
        assert (cell == k).all()
    assert edges[-1] == side


@pytest.mark.parametrize("factor", [2, 3])
def test_constant_images_come_back_as_they_were_packed(factor):
    side = 4 * factor  # no padding
    images = torch.rand(2 * factor**2, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    images = images.expand(-1, -1, side, side)
    storage = MultiFormation(factor)
    decoded = storage.decode(storage.encode(images, NORMALIZATION), NORMALIZATION)
    torch.testing.assert_close(decoded, normalised(images), rtol=1e-12, atol=1e-13)


def test_encoding_copies():
    source = pixels(4, (8, 8))
    MultiFormation(2).encode(source, NORMALIZATION).zero_()
    assert torch.equal(source, pixels(4, (8, 8)))


# ------------------------------------------------------------------ settings, and in a run


def test_the_defaults_are_those_of_idc():
    storage = MultiFormation()
    assert (storage.factor, storage.space, storage.clamp) == (2, "pixel", "every_network")


@pytest.mark.parametrize("factor", [0, -1])
def test_a_factor_below_one_is_refused(factor):
    with pytest.raises(SettingsError, match=f"MultiFormation.factor to be 1 or more, got {factor}"):
        MultiFormation(factor)


REAL = TinyData((9, 8, 12)).real


@pytest.mark.parametrize("space", SPACES)
def test_a_real_start_packs_different_images_of_one_class(space):
    storage, ipc = MultiFormation(2, space), (2, 1, 3)
    start = RandomReal().start(storage, REAL, ipc, tiny_convnet(), RandomKey(0))
    assert start.shape == (6, 1, 8, 8)
    # nearest neighbour takes every second pixel; look for each cell among the real images
    shrunk = REAL.pixels_at(torch.arange(len(REAL)))[:, :, ::2, ::2]
    if space == "normalized":
        shrunk = REAL.normalization.normalize(shrunk)
    seen = []
    for image, label in zip(start, torch.repeat_interleave(torch.arange(3), torch.tensor(ipc)), strict=True):
        for y in (0, 4):
            for x in (0, 4):
                found = (shrunk - image[:, y : y + 4, x : x + 4]).abs().amax((1, 2, 3))
                assert found.min() < 1e-6
                assert REAL.labels[found.argmin()] == label
                seen.append(int(found.argmin()))
    assert len(set(seen)) == 24


def test_too_few_real_images_for_all_cells_name_the_class():
    with pytest.raises(SettingsError, match=r"8 distinct real images to start class 1 .*has 7"):
        RandomReal().start(MultiFormation(2), TinyData((9, 7)).real, (2, 2), tiny_convnet(), RandomKey(0))


def test_noise_starts_at_the_stored_size():
    assert Noise().start(MultiFormation(3), REAL, (1, 2, 1), tiny_convnet(), RandomKey(0)).shape == (4, 1, 8, 8)


def test_networks_are_trained_on_all_decoded_images_with_their_labels():
    module = fitted(ipc=[1, 2, 1], parametrization=MultiFormation(2), data=TinyData((9, 9, 9)), max_steps=2)
    current = module.training_set()
    images, labels = current.images, current.labels
    assert labels.tolist() == [0, 1, 1, 2] * 4
    wanted = multi_formation.decode(module.images.detach().double(), 2, GREY[:1])
    used = module.data.real.normalization
    wanted = (wanted - used.mean[0]) / used.std[0]
    torch.testing.assert_close(images, wanted.float(), rtol=1e-5, atol=1e-5)
