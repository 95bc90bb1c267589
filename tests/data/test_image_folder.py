from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from lit_condense.data import PRESETS, ImageFolder
from lit_condense.errors import DataError, SettingsError
from tests.fake_data import random_pixels, write_image, write_image_folder

COUNTS = {"zebra": 2, "ant": 4, "10": 1, "9": 3}


@pytest.mark.parametrize("ending", [".png", ".webp", ".bmp"])
def test_classes_order_and_pixels_are_those_of_torchvision(tmp_path, ending):
    write_image_folder(tmp_path, COUNTS, ending=ending)
    data = ImageFolder(str(tmp_path))
    for split, store in (("train", data.real), ("test", data.test)):
        expected = torchvision.datasets.ImageFolder(tmp_path / split)
        assert data.class_names == tuple(expected.classes) == ("10", "9", "ant", "zebra")
        assert store.labels.tolist() == expected.targets
        pixels = np.stack([np.asarray(image) for image, _ in expected]).transpose(0, 3, 1, 2)
        assert np.array_equal(store.images.numpy(), pixels)
    assert (data.image_shape, data.real.class_sizes) == ((3, 6, 8), [1, 3, 4, 2])


def test_many_files_over_several_threads_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_condense.data.image_files.FILES_PER_TASK", 2)
    monkeypatch.setattr("lit_condense.data.image_files.THREADS", 8)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    for index in range(41):
        write_image(tmp_path / "train" / "a" / f"{index:03d}.png", np.full((2, 2), index, np.uint8))
    write_image(tmp_path / "test" / "a" / "0.png", np.zeros((2, 2), np.uint8))
    assert ImageFolder(str(tmp_path)).real.images[:, 0, 0, 0].tolist() == list(range(41))


def test_grey_images_keep_one_channel_only_if_all_of_both_splits_are_grey(tmp_path):
    write_image_folder(tmp_path, {"a": 2, "b": 2}, channels=1)
    assert ImageFolder(str(tmp_path)).image_shape == (1, 6, 8)
    assert ImageFolder(str(tmp_path), channels="rgb").image_shape == (3, 6, 8)
    write_image(tmp_path / "test" / "b" / "colour.png", random_pixels(6, 8, 3))
    data = ImageFolder(str(tmp_path))
    assert data.image_shape == (3, 6, 8)
    assert (data.real.images[:, 0] == data.real.images[:, 2]).all()


def test_colour_becomes_grey_when_asked_for(tmp_path):
    write_image_folder(tmp_path, {"a": 1, "b": 1})
    data = ImageFolder(str(tmp_path), channels="grey")
    red, green, blue = random_pixels(6, 8, 3, seed=0).astype(float).transpose(2, 0, 1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R 601, Pillow's rule
    assert np.abs(data.real.images[0, 0].numpy() - luma).max() <= 1


@pytest.mark.filterwarnings("ignore:The brightest training pixel", "ignore:A look at the image files")
def test_palette_alpha_and_1_bit_images_are_converted(tmp_path):
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[:2] = (255, 0, 0)
    write_image(tmp_path / "train" / "a" / "palette.png", colour, "P")
    write_image(tmp_path / "train" / "a" / "plain.png", colour)
    Image.fromarray(np.dstack([colour, np.full((4, 4), 7, np.uint8)])).save(tmp_path / "train" / "a" / "rgba.png")
    write_image(tmp_path / "test" / "a" / "bit.png", np.where(colour[..., 0] > 0, 255, 0).astype(np.uint8), "1")
    data = ImageFolder(str(tmp_path))
    for image in data.real.images:
        assert np.array_equal(image.numpy(), colour.transpose(2, 0, 1))
    assert data.test.images.unique().tolist() == [0, 255]


def test_images_of_32_bit_values_are_refused(tmp_path):
    write_image_folder(tmp_path, {"a": 1}, channels=1)
    write_image(tmp_path / "train" / "a" / "deep.tiff", np.zeros((6, 8), np.float32))
    with pytest.raises(DataError, match=r"deep\.tiff holds 32-bit values"):
        ImageFolder(str(tmp_path)).setup()


def test_different_sizes_need_an_image_size_and_two_files_are_named(tmp_path):
    write_image_folder(tmp_path, {"a": 2, "b": 1})
    write_image(tmp_path / "test" / "b" / "large.png", random_pixels(9, 8, 3))
    with pytest.raises(DataError, match=r"a.000\.png is 6x8 and .*b.large\.png is 9x8.*`image_size`"):
        ImageFolder(str(tmp_path)).setup()
    assert ImageFolder(str(tmp_path), image_size=6).image_shape == (3, 6, 6)


@pytest.mark.parametrize("size", [(40, 61), (61, 40), (33, 33), (7, 9)])
def test_a_square_is_torchvisions_resize_of_the_shorter_side_and_centre_crop(tmp_path, size):
    pixels = random_pixels(*size, 3)
    write_image_folder(tmp_path, {"a": 1})
    write_image(tmp_path / "train" / "a" / "odd.png", pixels)
    resized = torchvision.transforms.functional.resize(Image.fromarray(pixels), 16)  # bilinear, antialiased
    expected = np.asarray(torchvision.transforms.functional.center_crop(resized, 16)).transpose(2, 0, 1)
    found = ImageFolder(str(tmp_path), image_size=16).real.images[1].numpy()
    odd = (max(resized.size) - 16) % 2  # where the centre is between two pixels, rounding may differ
    if odd:
        assert found.shape == expected.shape
    else:
        assert np.array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:The brightest training pixel")
def test_a_rectangle_is_covered_and_cropped_in_the_middle(tmp_path):
    stripes = np.repeat(np.arange(12, dtype=np.uint8)[None], 6, axis=0)  # column number as grey value, 6 x 12
    for split in ("train", "test"):
        write_image(tmp_path / split / "a" / "stripes.png", stripes)
    data = ImageFolder(str(tmp_path), image_size=(6, 4))
    assert data.real.images[0, 0].tolist() == [[4, 5, 6, 7]] * 6


def test_an_image_size_equal_to_the_files_changes_no_pixel(tmp_path):
    write_image_folder(tmp_path, {"a": 2, "b": 1})
    plain, sized = ImageFolder(str(tmp_path)), ImageFolder(str(tmp_path), image_size=(6, 8))
    assert torch.equal(plain.real.images, sized.real.images)
    assert plain.real.fingerprint() == sized.real.fingerprint()


def test_hidden_and_foreign_files_are_skipped_and_nested_ones_found(tmp_path):
    write_image_folder(tmp_path, {"a": 2, "b": 1})
    (tmp_path / "train" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "a" / "._000.png").write_bytes(b"resource fork")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "readme.md").write_text("no class")
    write_image(tmp_path / "train" / "b" / "deeper" / "more.PNG", random_pixels(6, 8, 3))
    data = ImageFolder(str(tmp_path))
    assert (data.class_names, data.real.class_sizes) == (("a", "b"), [2, 2])


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("kept", [0, 10, -60])
def test_an_unreadable_file_is_named(tmp_path, ending, kept):
    write_image_folder(tmp_path, {"a": 2, "b": 1}, size=(32, 32), ending=ending)
    broken = tmp_path / "train" / "a" / f"001{ending}"
    broken.write_bytes(broken.read_bytes()[:kept])
    with pytest.raises(DataError, match=f"Cannot read the image .*001{ending}"):
        ImageFolder(str(tmp_path)).setup()


def test_missing_folders_are_reported_with_the_expected_layout(tmp_path):
    with pytest.raises(DataError, match=r"There is no folder .*nowhere.*<root>/<train_folder>/<class>"):
        ImageFolder(str(tmp_path / "nowhere")).setup()
    write_image_folder(tmp_path, {"a": 1})
    (tmp_path / "test").rename(tmp_path / "val")
    with pytest.raises(DataError, match=r"There is no folder .*test; expected .*<test_folder>"):
        ImageFolder(str(tmp_path)).setup()
    assert len(ImageFolder(str(tmp_path), test_folder="val").test) == 1


def test_a_split_without_class_folders_is_reported(tmp_path):
    write_image(tmp_path / "train" / "loose.png", random_pixels(2, 2))
    with pytest.raises(DataError, match="has no class folders; expected"):
        ImageFolder(str(tmp_path)).setup()


def test_an_empty_class_folder_is_named(tmp_path):
    write_image_folder(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "train" / "b" / "000.png").rename(tmp_path / "train" / "b" / "000.txt")
    with pytest.raises(DataError, match=r"class folder .*train.b has no images"):
        ImageFolder(str(tmp_path)).setup()


def test_classes_of_the_splits_must_match(tmp_path):
    write_image_folder(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "test" / "b").rename(tmp_path / "test" / "c")
    with pytest.raises(DataError, match=r"'train' alone has \['b'\] and 'test' alone has \['c'\]"):
        ImageFolder(str(tmp_path)).setup()


def test_published_constants_are_found_by_name(tmp_path):
    write_image_folder(tmp_path / "photos", {"a": 1, "b": 1})
    data = ImageFolder(str(tmp_path / "photos"), name="cifar10", normalization="dc")
    assert data.real.normalization == PRESETS["dc"]["cifar10"]
    assert ImageFolder(str(tmp_path / "photos")).dataset_name == "photos"
    with pytest.raises(SettingsError, match="'dc' has no constants for 'photos'"):
        ImageFolder(str(tmp_path / "photos"), normalization="dc")


def test_constants_of_another_number_of_channels_are_refused(tmp_path):
    write_image_folder(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"3 channel\(s\) but the normalisation has 1"):
        ImageFolder(str(tmp_path), name="mnist", normalization="dc").setup()


@pytest.mark.parametrize("settings", [{"image_size": 0}, {"image_size": (8, 0)}, {"channels": "blue"}])
def test_impossible_settings_are_refused_before_reading(settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        ImageFolder("nowhere", **settings)


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.filterwarnings("ignore:The brightest training pixel", "ignore:A look at the image files")
def test_names_are_one_whichever_form_the_file_system_keeps_them_in(tmp_path):
    for split, name in (("train", DECOMPOSED), ("test", COMPOSED)):
        for position, folder in enumerate((name, "cafz", "caf")):
            write_image(tmp_path / split / folder / "0.png", np.full((2, 2), position, np.uint8))
    data = ImageFolder(str(tmp_path))
    assert data.class_names == ("caf", "cafz", COMPOSED)
    for store in (data.real, data.test):
        assert store.labels.tolist() == [0, 1, 2]
        assert store.images[:, 0, 0, 0].tolist() == [2, 1, 0]


def test_two_folders_of_one_name_are_refused(tmp_path):
    for split in ("train", "test"):
        for name in (COMPOSED, DECOMPOSED):
            write_image(tmp_path / split / name / "0.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match=f"got {COMPOSED} twice"):
        ImageFolder(str(tmp_path)).setup()
