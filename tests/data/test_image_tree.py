"""What a tree of image files can hold beside plain files, against torchvision on the same tree."""

from __future__ import annotations

import os
import shutil
import warnings
from collections import Counter

import numpy as np
import pytest
import torchvision
from PIL import Image

from lit_condense.data import ImageFolder
from lit_condense.errors import DataError
from tests.fake_data import random_pixels, write_image, write_image_folder


@pytest.fixture
def root(tmp_path):
    """Two classes of two and three training images, and one test image each."""
    return write_image_folder(tmp_path / "data", {"ant": 2, "bee": 3})


def said(root, **settings):
    """Load without a word, or return the one warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = ImageFolder(str(root), **settings)
        data.setup()
    words = [str(w.message) for w in caught if "image files" in str(w.message)]
    assert len(words) <= 1
    return data, words[0] if words else ""


def same_as_torchvision(root, **settings):
    """Compare each split's classes and, class by class, the images with torchvision's, whose order may differ."""
    data, words = said(root, **settings)
    for split, store in (("train", data.real), ("test", data.test)):
        expected = torchvision.datasets.ImageFolder(root / split)
        assert list(data.class_names) == expected.classes
        wanted = Counter((np.asarray(image).transpose(2, 0, 1).tobytes(), label) for image, label in expected)
        found = Counter(zip((i.numpy().tobytes() for i in store.images), store.labels.tolist(), strict=True))
        assert found == wanted
    return data, words


def test_a_plain_tree_is_read_without_a_word(root):
    assert same_as_torchvision(root)[1] == ""


def test_links_to_folders_and_files_are_followed_as_torchvision_follows_them(root, tmp_path):
    store = tmp_path / "elsewhere"
    for index in range(13):
        write_image(store / "batch" / f"{index}.png", random_pixels(6, 8, 3, seed=100 + index))
    write_image(store / "one.png", random_pixels(6, 8, 3, seed=99))
    write_image(store / "cow" / "deep" / "0.png", random_pixels(6, 8, 3, seed=98))
    (root / "train" / "ant" / "more").symlink_to(store / "batch")
    (root / "train" / "ant" / "one.png").symlink_to(store / "one.png")
    for split in ("train", "test"):
        (root / split / "cow").symlink_to(store / "cow")  # a class that is a link
    data, words = same_as_torchvision(root)
    assert data.real.class_sizes == [2 + 13 + 1, 3, 1]
    assert "1 image(s) are files of" in words  # cow's one image is in both splits
    moved = tmp_path / "moved"
    (root / "train").rename(moved)
    (root / "train").symlink_to(moved)  # a split that is a link
    assert same_as_torchvision(root)[0].real.class_sizes == [16, 3, 1]


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "/"])
def test_links_that_lead_back_end_and_do_not_bring_other_classes_in(root, target):
    (root / "train" / "ant" / "deep").mkdir()
    (root / "train" / "ant" / "deep" / "back").symlink_to(target)
    data, words = said(root)
    assert data.real.class_sizes == [2, 3]
    assert "1 link(s) that lead back to a folder above them" in words
    assert "deep/back" in words


def test_a_class_that_is_a_link_to_a_folder_above_is_refused(root):
    (root / "train" / "zoo").symlink_to(root)
    with pytest.raises(DataError, match=r"zoo is a link to a folder above it"):
        ImageFolder(str(root)).setup()


def test_links_to_themselves_are_named(root):
    (root / "train" / "ant" / "x.png").symlink_to("x.png")
    with pytest.raises(DataError, match=r"ant/x\.png leads to nothing"):
        ImageFolder(str(root)).setup()


@pytest.mark.parametrize("name", ["train/ant/002.png", "train/ant/batch", "test/bee/x.JPG", "train/cow"])
def test_a_broken_link_to_images_is_refused(root, name):
    (root / name).symlink_to("/nowhere/at/all")
    with pytest.raises(DataError, match=rf"{name} leads to nothing \(/nowhere/at/all\)"):
        ImageFolder(str(root)).setup()


def test_a_broken_link_to_something_else_is_only_mentioned(root):
    (root / "train" / "ant" / "notes.txt").symlink_to("/nowhere")
    assert "1 link(s) lead to nothing" in said(root)[1]


def test_a_folder_called_like_an_image_is_a_folder(root):
    write_image(root / "train" / "ant" / "x.png" / "inside.png", random_pixels(6, 8, 3, seed=7))
    assert same_as_torchvision(root)[0].real.class_sizes == [3, 3]


def test_endings_in_any_case_are_read(root):
    for index, ending in enumerate((".PNG", ".Jpg", ".JPEG", ".BMP", ".Webp", ".PPM", ".TIFF", ".tif")):
        write_image(root / "train" / "ant" / f"x{index}{ending}", random_pixels(6, 8, 3, seed=index))
    assert same_as_torchvision(root)[0].real.class_sizes == [10, 3]


def test_images_with_endings_that_are_not_read_are_counted(root):
    for index, name in enumerate(["a.gif", "b.GIF", "c.jp2", "deep/d.avif"]):
        path = root / "train" / "ant" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"image" * index)
    _, words = same_as_torchvision(root)
    assert "4 image(s) of other kinds are not read (1 .avif, 2 .gif, 1 .jp2" in words
    for file in (root / "test" / "bee").iterdir():
        file.rename(file.with_suffix(".gif"))
    with pytest.raises(DataError, match=r"bee has no images .*1 image\(s\) of other kinds are not read \(1 \.gif"):
        ImageFolder(str(root)).setup()


def test_hidden_images_and_loose_ones_are_left_out_and_counted(root):
    image = root / "train" / "ant" / "000.png"
    for name in ("ant/.hidden.png", "ant/.old/1.png", ".cow/1.png", "loose.png"):
        (root / "train" / name).parent.mkdir(exist_ok=True)
        shutil.copy(image, root / "train" / name)
    (root / "train" / "ant" / "._000.png").write_bytes(b"what macOS keeps beside a file")
    data, words = said(root)
    assert data.real.class_sizes == [2, 3]
    assert "3 hidden image(s)" in words
    assert "1 image(s) stand beside the class folders" in words


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_called_like_an_image_is_not_opened(root):
    os.mkfifo(root / "train" / "ant" / "x.png")
    data, words = said(root)
    assert data.real.class_sizes == [2, 3]
    assert "1 entries with an image's ending are no files" in words


def test_images_that_count_twice_are_named(root):
    train = root / "train"
    (train / "ant" / "again").symlink_to(train / "bee")  # bee's three images are ants too
    (train / "bee" / "twice.png").symlink_to(train / "bee" / "000.png")
    os.link(train / "bee" / "001.png", root / "test" / "bee" / "leaked.png")
    data, words = same_as_torchvision(root)
    assert data.real.class_sizes == [2 + 4, 4]
    assert "8 image(s) are files that stand in several classes" in words
    assert "2 image(s) are links to others of their class" in words
    assert f"1 image(s) are files of {train} too, for instance {root / 'test' / 'bee' / 'leaked.png'}" in words


def test_a_split_inside_a_class_is_mentioned(root):
    write_image(root / "train" / "ant" / "test" / "0.png", random_pixels(6, 8, 3))
    assert "1 sub-folder(s) are called like a split" in same_as_torchvision(root)[1]


def test_a_folder_or_file_without_permission_is_named(root, monkeypatch):
    locked = root / "train" / "ant" / "locked"
    locked.mkdir()
    real = os.scandir

    def scandir(path):
        if str(path) == str(locked):  # the superuser may look everywhere, so that chmod proves nothing
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"Cannot read the folder .*locked.*Permission denied"):
        ImageFolder(str(root)).setup()
    locked.rmdir()
    original = Image.open

    def refuse(path, *args, **kwargs):
        if str(path).endswith("001.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(DataError, match=r"Cannot read the image .*001\.png.*Permission denied"):
        ImageFolder(str(root)).setup()


@pytest.mark.parametrize("name", [" lead", "trail ", "a.b", "ünï cödé 猫", "100% #1 & [x]", "-rf", "new\nline", "CON"])
def test_class_names_with_odd_letters_are_kept(tmp_path, name):
    write_image_folder(tmp_path, {name: 1, "b": 2})
    assert name in same_as_torchvision(tmp_path)[0].class_names


def test_colour_models_and_animations_are_read_as_torchvision_reads_them(tmp_path):
    pixels = random_pixels(6, 8, 3)
    frames = [Image.fromarray(random_pixels(6, 8, 3, seed=seed)) for seed in (1, 2)]
    write_image_folder(tmp_path, {"a": 1})
    folder = tmp_path / "train" / "a"
    Image.fromarray(pixels).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(pixels).convert("P").save(folder / "palette.png", transparency=3)
    Image.fromarray(np.dstack([pixels, pixels[..., 0] // 2 + 9])).save(folder / "alpha.webp", lossless=True)
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "pages.tiff", save_all=True, append_images=frames[1:])
    _, words = same_as_torchvision(tmp_path)
    assert "3 image(s) have several frames or pages" in words
    assert "2 image(s) have transparency" in words


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_a_mark_that_an_image_is_turned_is_not_followed_but_told(tmp_path, ending):
    write_image_folder(tmp_path, {"a": 1})
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(random_pixels(6, 8, 3, seed=5))
    image.save(tmp_path / "train" / "a" / f"x{ending}", exif=exif, lossless=True)
    assert "1 image(s) are marked as turned or mirrored" in same_as_torchvision(tmp_path)[1]
    exif[0x0112] = 1
    image.save(tmp_path / "train" / "a" / f"x{ending}", exif=exif, lossless=True)
    assert same_as_torchvision(tmp_path)[1] == ""
