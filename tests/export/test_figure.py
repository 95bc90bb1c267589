"""The pages of a set: sizes that can be looked at, names where they belong, every image where its class is."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from lit_condense.errors import ExportError
from lit_condense.export import image_pages, write_grid
from lit_condense.export.figure import CAPTION, GAP, LARGEST_PAGE


def flat_images(values, size=32, channels=3):
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, channels, size, size)


def tile_at(page, row, column, size=64):
    """The image in a place, by the geometry that the page is documented to have."""
    top, left = GAP + row * (size + GAP + CAPTION) + CAPTION, GAP + column * (size + GAP)
    return page[:, top : top + size, left : left + size]


def caption_at(page, row, column, width, size=64):
    top, left = GAP + row * (size + GAP + CAPTION), GAP + column * (size + GAP)
    return page[:, top : top + CAPTION - 2, left : left + width]


def assert_shown(found, wanted):
    """A picture holds 8 bits."""
    torch.testing.assert_close(found, wanted, atol=1 / 510 + 1e-6, rtol=0)


def has_ink(part):
    return bool((part < 0.5).any())


@pytest.mark.parametrize(
    ("classes", "ipc", "size", "places"),
    [
        (10, 1, 32, [(0, c) for c in range(10)]),  # one image a class: ten classes a row
        (12, 1, 32, [(c // 10, c % 10) for c in range(12)]),
        (5, 3, 32, [(c // 3, 3 * (c % 3)) for c in range(5)]),
        (4, 10, 8, [(c, 0) for c in range(4)]),
    ],
)
def test_classes_stand_in_their_places_under_their_names(classes, ipc, size, places):
    labels = torch.arange(classes).repeat(ipc)
    values = (labels + 1) / (classes + 1)
    (page,) = image_pages(flat_images(values.tolist(), size), labels, [f"name {c}" for c in range(classes)])
    for c, (row, column) in enumerate(places):
        for i in range(ipc):
            shown = tile_at(page, row, column + i)
            assert_shown(shown, torch.full((3, 64, 64), (c + 1) / (classes + 1)))
        assert has_ink(caption_at(page, row, column, 40))
    assert page.shape[1:] == (
        GAP + (places[-1][0] + 1) * (64 + GAP + CAPTION),
        GAP + min(10 // ipc, classes) * ipc * (64 + GAP),
    )


@pytest.mark.parametrize(("side", "shown"), [(8, 64), (28, 84), (32, 64), (64, 64), (96, 96), (224, 224)])
def test_an_image_is_at_least_64_pixels_and_its_pixels_are_squares(side, shown):
    images = torch.rand(1, 1, side, side)
    (page,) = image_pages(images, torch.tensor([0]))
    tile = tile_at(page, 0, 0, shown)
    assert tile.shape[1:] == (shown, shown)
    by_hand = images[0].repeat_interleave(shown // side, 1).repeat_interleave(shown // side, 2).expand(3, -1, -1)
    assert_shown(tile, by_hand)


def test_many_classes_go_on_pages_of_at_most_2000_pixels():
    classes = 200
    labels = torch.arange(classes).repeat_interleave(10)
    pages = image_pages(flat_images((labels / classes).tolist(), 64), labels)
    assert len(pages) > 1
    assert all(page.shape[1] <= LARGEST_PAGE for page in pages)
    rows = [(page, row) for page in pages for row in range(page.shape[1] // (64 + GAP + CAPTION))]
    assert_shown(torch.stack([tile_at(page, row, 0)[0, 0, 0] for page, row in rows]), torch.arange(classes) / classes)


def test_a_class_with_more_than_ten_images_says_how_many():
    images = flat_images([0.5] * 25)
    (page,) = image_pages(images, torch.zeros(25, dtype=torch.long), ["cat"])
    (ten,) = image_pages(images[:10], torch.zeros(10, dtype=torch.long), ["cat"])
    assert page.shape == ten.shape
    assert not torch.equal(caption_at(page, 0, 0, 200), caption_at(ten, 0, 0, 200))


def test_a_long_name_stays_with_its_class():
    (page,) = image_pages(flat_images([0.5, 0.5]), torch.tensor([0, 1]), ["a name of many letters " * 9, ""])
    assert has_ink(caption_at(page, 0, 0, 64))
    assert not has_ink(caption_at(page, 0, 1, 64)), "the second class has no name"


@pytest.mark.parametrize("value", [-2.0, 2.0])
def test_one_fixed_scale_for_all_images_clamped(value):
    (page,) = image_pages(flat_images([value, 0.5]), torch.tensor([0, 1]))
    assert torch.equal(tile_at(page, 0, 0), torch.full((3, 64, 64), float(value > 0)))
    assert_shown(tile_at(page, 0, 1), torch.full((3, 64, 64), 0.5))


@pytest.mark.parametrize("channels", [2, 5])
def test_other_channels_are_shown_as_their_mean(channels):
    images = torch.zeros(1, channels, 32, 32)
    images[0, 0] = 1
    (page,) = image_pages(images, torch.tensor([0]))
    assert_shown(tile_at(page, 0, 0), torch.full((3, 64, 64), 1 / channels))


def test_a_class_without_images_keeps_its_place():
    (page,) = image_pages(flat_images([0.25, 0.75]), torch.tensor([0, 2]), ["a", "b", "c"])
    assert torch.equal(tile_at(page, 0, 1), torch.ones(3, 64, 64))
    assert float(tile_at(page, 0, 2).mean()) == pytest.approx(0.75, abs=1 / 510)


def test_pages_are_files_and_old_ones_go(tmp_path):
    labels = torch.arange(60).repeat_interleave(10)
    paths = write_grid(tmp_path / "grid.png", flat_images([0.5] * 600), labels)
    assert [path.name for path in paths] == ["grid.png", "grid_2.png", "grid_3.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.height <= LARGEST_PAGE
            assert picture.getextrema() != ((255, 255),) * 3, "not blank"
    assert write_grid(tmp_path / "grid.png", flat_images([0.5]), torch.tensor([0])) == [tmp_path / "grid.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_a_page_of_the_user_is_not_replaced(tmp_path):
    theirs = tmp_path / "grid_2.png"
    Image.new("RGB", (4, 4)).save(theirs)
    labels = torch.arange(60).repeat_interleave(10)
    with pytest.raises(ExportError, match="grid_2"):
        write_grid(tmp_path / "grid.png", flat_images([0.5] * 600), labels)
    assert not (tmp_path / "grid.png").exists(), "nothing was written"
    write_grid(tmp_path / "grid.png", flat_images([0.5]), torch.tensor([0]))
    assert theirs.exists()
