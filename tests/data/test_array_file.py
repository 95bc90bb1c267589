from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from lit_condense.data import PRESETS, ArrayFile
from lit_condense.errors import DataError, SettingsError
from tests.fake_data import random_pixels


def arrays(*image_shape, **changes):
    content = {}
    for seed, (split, count) in enumerate((("train", 6), ("test", 3))):
        content[f"{split}_images"] = random_pixels(count, *image_shape, seed=seed)
        content[f"{split}_labels"] = np.arange(count) % 3
    return {**content, **changes}


def write(path, content):
    if path.suffix == ".npz":
        np.savez(path, **content)
    else:
        save_file({key: np.ascontiguousarray(value) for key, value in content.items()}, path)
    return str(path)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("shape", "layout", "to_nchw"),
    [
        ((5, 4), "auto", lambda images: images[:, None]),
        ((5, 4, 3), "auto", lambda images: images.transpose(0, 3, 1, 2)),
        ((5, 4, 1), "auto", lambda images: images.transpose(0, 3, 1, 2)),
        ((3, 5, 4), "auto", lambda images: images),
        ((3, 5, 3), "NCHW", lambda images: images),
        ((3, 5, 3), "NHWC", lambda images: images.transpose(0, 3, 1, 2)),
        ((5, 6, 4), "NHWC", lambda images: images.transpose(0, 3, 1, 2)),
    ],
)
def test_images_come_channels_first_from_every_layout(tmp_path, ending, shape, layout, to_nchw):
    content = arrays(*shape)
    data = ArrayFile(write(tmp_path / f"set{ending}", content), layout=layout)
    assert np.array_equal(data.real.images.numpy(), to_nchw(content["train_images"]))
    assert np.array_equal(data.test.images.numpy(), to_nchw(content["test_images"]))
    assert data.real.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.class_names == ("0", "1", "2")


@pytest.mark.parametrize("shape", [(3, 5, 3), (1, 5, 3), (5, 6, 4)])
def test_an_ambiguous_layout_is_not_guessed(tmp_path, shape):
    with pytest.raises(DataError, match=r"train_images.*Set `layout`"):
        ArrayFile(write(tmp_path / "set.npz", arrays(*shape))).setup()


def test_float_images_columns_of_labels_and_other_entries_are_taken(tmp_path):
    content = arrays(5, 4)
    content = {key: value / 255 if "images" in key else value[:, None] for key, value in content.items()}
    data = ArrayFile(write(tmp_path / "set.npz", {**content, "val_images": np.zeros(3)}))
    assert data.real.images.dtype == torch.float32
    np.testing.assert_allclose(data.real.images[:, 0].numpy(), content["train_images"], rtol=1e-6)


@pytest.mark.parametrize("dtype", [">i4", "uint16", "uint8", "int64"])
def test_labels_of_any_whole_number_type_are_taken(tmp_path, dtype):
    content = arrays(5, 4)
    content["train_labels"] = content["train_labels"].astype(dtype)
    data = ArrayFile(write(tmp_path / "set.npz", content), classes=[2, 0])
    assert data.real.labels.tolist() == [1, 0, 1, 0]


def test_names_and_constants_can_be_given(tmp_path):
    path = write(tmp_path / "set.npz", arrays(3, 5, 4))
    data = ArrayFile(path, label_names=["ant", "bee", "cat"], name="cifar10", normalization="egm")
    assert data.class_names == ("ant", "bee", "cat")
    assert data.real.normalization == PRESETS["egm"]["cifar10"]
    assert ArrayFile(path).dataset_name == "set"
    with pytest.raises(DataError, match="labels from 0 to 1"):
        ArrayFile(path, label_names=["ant", "bee"]).setup()


class Trap:
    """Unpickling this raises an error that says so."""

    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


def test_pickled_objects_are_refused_without_running_them(tmp_path):
    path = write(tmp_path / "set.npz", arrays(5, 4, train_images=np.array([Trap()] * 6, dtype=object)))
    with pytest.raises(DataError, match="no Python objects"):
        ArrayFile(path).setup()


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_broken_or_missing_file_is_named(tmp_path, ending):
    path = tmp_path / f"set{ending}"
    with pytest.raises(DataError, match=f"There is no file .*set{ending}"):
        ArrayFile(str(path)).setup()
    path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match=f"Cannot read .*set{ending}"):
        ArrayFile(str(path)).setup()


def test_missing_entries_are_named(tmp_path):
    content = arrays(5, 4)
    del content["test_images"], content["train_labels"]
    content["y_train"] = np.arange(6)
    message = r"has no train_labels, test_images; it needs .*holds .*train_images \(6, .*y_train \(6,\)"
    for ending in (".npz", ".safetensors"):
        with pytest.raises(DataError, match=message):
            ArrayFile(write(tmp_path / f"set{ending}", content)).setup()


def test_an_archive_of_objects_is_listed_too_and_not_loaded(tmp_path):
    np.savez(tmp_path / "set.npz", things=np.array([print, 1], dtype=object))
    with pytest.raises(DataError, match=r"holds things \(2,\)"):
        ArrayFile(str(tmp_path / "set.npz")).setup()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((6, 5), np.uint8)}, "train_images"),
        ({"train_labels": np.zeros((6, 2), np.int64)}, "train_labels"),
        ({"train_labels": np.zeros(5, np.int64)}, "one label"),
        ({"train_labels": np.zeros(6)}, "whole numbers"),
        ({"train_images": np.full((6, 5, 4), np.nan)}, "not finite"),
        ({"train_images": np.full((6, 5, 4), 255.0)}, r"in \[0, 1\]"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        ArrayFile(write(tmp_path / "set.npz", arrays(5, 4, **changes))).setup()


def test_other_endings_and_layouts_are_refused_before_reading():
    with pytest.raises(SettingsError, match=r"\.npz or \.safetensors"):
        ArrayFile("set.pt")
    with pytest.raises(SettingsError, match="layout"):
        ArrayFile("set.npz", layout="CHWN")
