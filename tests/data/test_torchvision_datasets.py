from __future__ import annotations

import numpy as np
import pytest
import scipy.io
import torch
import torchvision

from lit_condense.data import CIFAR10, CIFAR100, MNIST, PRESETS, SVHN, FashionMNIST
from lit_condense.errors import DataError, SettingsError
from tests.fake_data import random_pixels, write_mnist, write_pickle


@pytest.mark.parametrize(("dataset", "folder"), [(MNIST, "MNIST"), (FashionMNIST, "FashionMNIST")])
def test_idx_files_are_read_with_a_channel_axis(tmp_path, dataset, folder):
    written = write_mnist(tmp_path / folder / "raw")
    data = dataset(root=str(tmp_path))
    assert (data.real.image_shape, len(data.real), len(data.test)) == ((1, 28, 28), 20, 10)
    assert np.array_equal(data.real.images[:, 0].numpy(), written["train_images"])
    assert np.array_equal(data.test.images[:, 0].numpy(), written["t10k_images"])
    assert np.array_equal(data.test.labels.numpy(), written["t10k_labels"])
    assert data.real.normalization == PRESETS["dc"][data.dataset_name]


def cifar_file(count: int, seed: int, names: str) -> dict[str, object]:
    return {"data": random_pixels(count, 3072, seed=seed), names: [index % 10 for index in range(count)]}


def test_cifar10_pickles_are_read_channels_first_after_their_hashes_were_compared(tmp_path, monkeypatch):
    folder, reader = tmp_path / CIFAR10.folder, torchvision.datasets.CIFAR10
    train, test = cifar_file(20, 0, "labels"), cifar_file(10, 1, "labels")
    names = [f"thing {index}" for index in range(10)]
    monkeypatch.setattr(reader, "train_list", [["data_batch_1", write_pickle(folder / "data_batch_1", train)]])
    monkeypatch.setattr(reader, "test_list", [["test_batch", write_pickle(folder / "test_batch", test)]])
    monkeypatch.setitem(reader.meta, "md5", write_pickle(folder / "batches.meta", {"label_names": names}))
    data = CIFAR10(root=str(tmp_path), normalization="egm")
    assert data.class_names == tuple(names)
    # the archive keeps a row as 1024 red, 1024 green, 1024 blue
    assert np.array_equal(data.real.images.numpy(), train["data"].reshape(20, 3, 32, 32))
    assert np.array_equal(data.test.images.numpy(), test["data"].reshape(10, 3, 32, 32))
    assert data.real.labels.tolist() == train["labels"]
    assert data.real.normalization == PRESETS["egm"]["cifar10"]
    (folder / "data_batch_1").write_bytes(b"not what was published")
    with pytest.raises(DataError, match="corrupted"):
        CIFAR10(root=str(tmp_path)).setup()


def test_cifar100_takes_the_fine_labels(tmp_path, monkeypatch):
    folder, reader = tmp_path / CIFAR100.folder, torchvision.datasets.CIFAR100
    names = [f"thing {index}" for index in range(100)]
    hashes = {}
    for seed, split in enumerate(("train", "test")):
        content = {"data": random_pixels(200, 3072, seed=seed), "fine_labels": [index % 100 for index in range(200)]}
        hashes[split] = write_pickle(folder / split, content)
    monkeypatch.setattr(reader, "train_list", [["train", hashes["train"]]])
    monkeypatch.setattr(reader, "test_list", [["test", hashes["test"]]])
    monkeypatch.setitem(reader.meta, "md5", write_pickle(folder / "meta", {"fine_label_names": names}))
    data = CIFAR100(root=str(tmp_path), normalization="idc", classes=[7, 99])
    assert data.class_names == ("thing 7", "thing 99")
    assert data.real.class_sizes == [2, 2]
    assert np.array_equal(data.real.images[0].numpy().reshape(-1), random_pixels(200, 3072, seed=0)[7])
    assert data.real.normalization == PRESETS["idc"]["cifar10"]


def test_svhn_mat_files_are_read_with_label_10_as_digit_0(tmp_path, monkeypatch):
    import hashlib

    pixels = {split: random_pixels(32, 32, 3, 20, seed=seed) for seed, split in enumerate(("train", "test"))}
    for split, array in pixels.items():
        path = tmp_path / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": array, "y": (np.arange(20) % 10 + 1).reshape(-1, 1).astype(np.uint8)})
        entry = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
        monkeypatch.setitem(torchvision.datasets.SVHN.split_list, split, entry)
    data = SVHN(root=str(tmp_path))
    assert data.real.labels.tolist() == [*range(1, 10), 0] * 2
    assert np.array_equal(data.real.images[4].numpy(), pixels["train"][..., 4].transpose(2, 0, 1))
    assert np.array_equal(data.test.images[4].numpy(), pixels["test"][..., 4].transpose(2, 0, 1))


@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST, SVHN, CIFAR10, CIFAR100])
def test_missing_files_are_reported_with_the_folder_and_the_way_out(tmp_path, dataset):
    with pytest.raises(DataError) as caught:
        dataset(root=str(tmp_path)).setup()
    message = str(caught.value)
    assert str(tmp_path / dataset.folder) in message
    assert dataset.files in message
    assert "download: true" in message


def test_broken_files_are_reported_with_the_folder(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(b"\x00\x00\x08")
    with pytest.raises(DataError, match="Cannot read mnist from"):
        MNIST(root=str(tmp_path)).setup()


@pytest.mark.parametrize(
    ("dataset", "shape", "count"),
    [
        (MNIST, (1, 28, 28), 10),
        (FashionMNIST, (1, 28, 28), 10),
        (SVHN, (3, 32, 32), 10),
        (CIFAR10, (3, 32, 32), 10),
        (CIFAR100, (3, 32, 32), 100),
    ],
)
def test_shape_and_number_of_classes_are_known_without_the_data(tmp_path, dataset, shape, count):
    data = dataset(root=str(tmp_path))
    assert (data.image_shape, data.num_classes) == (shape, count)
    assert dataset(root=str(tmp_path), classes=[1, 2, 3]).num_classes == 3
    with pytest.raises(SettingsError, match=f"the classes 0 to {count - 1}"):
        dataset(root=str(tmp_path), classes=[count])


def test_nothing_is_fetched_unless_asked_for(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda self: calls.append(self.root))
    MNIST(root=str(tmp_path)).prepare_data()
    assert calls == []
    write_mnist(tmp_path / "MNIST" / "raw")
    MNIST(root=str(tmp_path), download=True).prepare_data()
    assert calls == [str(tmp_path)] * 2


def test_labels_are_int64_and_images_uint8(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    data = MNIST(root=str(tmp_path))
    assert (data.real.labels.dtype, data.real.images.dtype) == (torch.int64, torch.uint8)
