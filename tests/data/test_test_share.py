"""A folder without a test split is cut into two, class by class, in the same way for all runs."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from lit_condense.data import ImageFolder
from lit_condense.errors import DataError, SettingsError
from tests.fake_data import write_image

COUNTS = {"ant": 10, "bee": 4, "cat": 2}


def write(root, counts=COUNTS):
    """Grey images, each with one value of its own in a corner."""
    value = 0
    for name, count in counts.items():
        for number in range(count):
            write_image(root / name / f"{number:03d}.png", np.array([[value, 255], [255, 255]], np.uint8))
            value += 1
    return root


def values(split):
    return split.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("place", [".", "train"])
def test_each_image_is_in_one_split_and_classes_keep_their_shares(tmp_path, place):
    write(tmp_path / place)
    data = ImageFolder(str(tmp_path), test_share=0.3)
    assert data.real.class_sizes == [7, 3, 1]
    assert data.test.class_sizes == [3, 1, 1]
    assert sorted(values(data.real) + values(data.test)) == list(range(16))
    of_class = torch.tensor([0] * 10 + [1] * 4 + [2] * 2)
    for split in (data.real, data.test):
        assert split.labels.tolist() == of_class[values(split)].tolist()
    assert data.describe()["test_share"] == 0.3


def test_the_cut_is_drawn_and_the_same_for_every_seed_and_class_beside(tmp_path):
    write(tmp_path / "a", {"ant": 100})
    first = values(ImageFolder(str(tmp_path / "a"), test_share=0.2).test)
    assert first != list(range(20))
    assert first != list(range(0, 100, 5))
    torch.manual_seed(7)
    assert values(ImageFolder(str(tmp_path / "a"), test_share=0.2).test) == first
    write(tmp_path / "a", {"ant": 100, "bee": 10})
    assert values(ImageFolder(str(tmp_path / "a"), test_share=0.2).test)[:20] == first
    more = values(ImageFolder(str(tmp_path / "a"), test_share=0.4).test)[:40]
    assert set(first) < set(more), "a larger share holds the smaller one"


def test_without_a_share_nothing_changes_but_the_advice(tmp_path):
    write(tmp_path / "train")
    with pytest.raises(DataError, match="test_share"):
        ImageFolder(str(tmp_path)).setup()
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    assert ImageFolder(str(tmp_path)).describe()["test_share"] is None


def test_what_cannot_be_cut_is_refused(tmp_path):
    write(tmp_path / "train")
    with pytest.raises(DataError, match=r"images of bee .* 4 of its 4"):
        ImageFolder(str(tmp_path), test_share=0.9).setup()
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match=r"Expected no folder .*test with a `test_share`"):
        ImageFolder(str(tmp_path), test_share=0.2).setup()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(SettingsError, match="share between 0 and 1"):
        ImageFolder("anywhere", test_share=share)
