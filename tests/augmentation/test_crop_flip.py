from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lit_condense.augmentation import CropFlip
from lit_condense.errors import SettingsError
from lit_condense.rng import RandomKey

IMAGES = torch.randn(40, 3, 9, 7, generator=torch.Generator().manual_seed(0))
KEY = RandomKey(1)


def literal(image, top, left, mirrored, padding):
    """Pad, cut and mirror one image with torch's own functions."""
    padded = F.pad(image.unsqueeze(0), (padding,) * 4, mode="reflect")[0]
    window = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
    return window.flip(2) if mirrored else window


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_every_image_is_a_window_of_its_reflected_self_maybe_mirrored(padding):
    augmentation = CropFlip(padding)
    draw = augmentation.draw(KEY, (9, 7), 40)
    found = augmentation.apply(IMAGES, draw)
    (shift_y, shift_x), (mirrored,) = draw["reflected_crop"], draw["flip"]
    for i in range(40):
        top, left = int(shift_y[i]) + padding, int(shift_x[i]) + padding
        assert torch.equal(found[i], literal(IMAGES[i], top, left, bool(mirrored[i]), padding))


def test_all_windows_and_both_sides_are_drawn_alike():
    draw = CropFlip(4).draw(KEY, (32, 32), 9000)
    for shifts in draw["reflected_crop"]:
        counts = torch.bincount(shifts + 4, minlength=9)
        assert len(counts) == 9
        assert counts.min() > 850
    assert 0.47 < draw["flip"][0].float().mean() < 0.53
    assert not torch.equal(*draw["reflected_crop"])


def test_without_flip_nothing_is_mirrored():
    augmentation = CropFlip(padding=0, flip=0.0)
    assert augmentation.operations == ("reflected_crop",)
    assert torch.equal(augmentation.apply(IMAGES, augmentation.draw(KEY, (9, 7), 40)), IMAGES)


def test_an_image_smaller_than_the_padding_is_mirrored_again_and_again():
    images = torch.arange(3.0).view(1, 1, 1, 3)
    found = CropFlip(7).apply(images, {"reflected_crop": (torch.tensor([0]), torch.tensor([6]))})
    assert found.flatten().tolist() == [2.0, 1.0, 0.0]  # columns 6, 7, 8 of 0 1 2 1 0 1 2 1 0 ...


@pytest.mark.parametrize("settings", [{"padding": -1}, {"flip": 1.1}, {"flip": -0.1}], ids=str)
def test_strengths_out_of_range_are_refused(settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        CropFlip(**settings)
