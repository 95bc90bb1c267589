"""Each layout is written as its program writes it and read back to the same pixels, and networks train on them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lit_condense.data.normalization import PRESETS
from lit_condense.errors import ExportError, SettingsError
from lit_condense.evaluation import Evaluation
from lit_condense.export import CondensedSet
from lit_condense.interchange import FORMATS, Answers, read_set, write_set
from lit_condense.interchange.writing import lost
from lit_condense.sets.given_set import GivenSet
from tests.helpers import TinyData, tiny_convnet

NAMES = ("ant", "bee", "cat", "dog", "elk")
ANSWERS = {
    "vico": Answers(factor=1),
    "mtt": Answers(space="mtt", inner_lr=0.02),
    "datm": Answers(space="mtt"),
    "idc": Answers(factor=1),
    "npz": Answers(space="pixel"),
}


class TinyCifar(TinyData):
    """Five classes of small colour images, filed under CIFAR-10's name for its constants."""

    dataset_name = "cifar10"

    def __init__(self, normalization="dc"):
        super().__init__(channels=3, normalization=normalization)

    def load(self):
        return dataclasses.replace(super().load(), class_names=NAMES)


def condensed(**changes):
    """Two images a class, mixed, with values outside [0, 1]."""
    images = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    labels = torch.tensor([4, 0, 1, 2, 3, 0, 1, 2, 3, 4])
    card = {
        "data": {"dataset": "cifar10", "class_names": list(NAMES), "image_shape": [3, 8, 8]},
        "method": {
            "model": {"network": {"class_path": "lit_condense.networks.ConvNet"}},
            "matching": {"FeatureMatching": {}},
        },
        "evaluation": {"condensed": [{"network": "ConvNet", "accuracies": [0.5, 0.25]}]},
    }
    return dataclasses.replace(CondensedSet(images, labels, card), **changes)


def soft():
    return torch.rand(10, 5, generator=torch.Generator().manual_seed(1)).softmax(1)


def trained_on(given, data):
    """The score of one network after one pass, which reads all that a set consists of."""
    evaluation = Evaluation(
        given.found.protocol or "dc", repeats=1, epochs=1, full_data_steps=0, baselines=[], start=False
    )
    module = GivenSet(given, tiny_convnet(), evaluation=evaluation, seed=0)
    data.setup()
    module.fit_to(data)
    return module, module.evaluate(data)


@pytest.mark.parametrize("format", ANSWERS)
def test_a_set_comes_back_from_every_layout(tmp_path, format):
    wanted = condensed(inner_lr=0.02, soft_labels=soft() if format == "datm" else None)
    write_set(wanted, format, tmp_path / format)
    data = TinyCifar("mtt" if format in ("mtt", "datm") else "dc")
    module, report = trained_on(read_set(tmp_path / format, ANSWERS[format]), data)
    assert 0 <= report.condensed[0].mean <= 1
    order = torch.arange(10) if format in ("datm", "npz") else torch.sort(wanted.labels, stable=True).indices
    torch.testing.assert_close(module.pixels(), wanted.images[order], atol=1e-6, rtol=0)
    found = module.training_set()
    if format == "npz":
        assert found.step_size == pytest.approx(0.02)
    if format == "datm":
        torch.testing.assert_close(found.soft_labels, wanted.soft_labels)
        assert torch.equal(found.labels, wanted.soft_labels.argmax(1))
    else:
        assert torch.equal(found.labels, wanted.labels[order])
    if format in ("mtt", "datm"):
        assert report.condensed[0].recipe["lr"] == pytest.approx(0.02)


def test_a_folder_of_images_comes_back_to_its_bits_and_its_names(tmp_path):
    wanted = condensed(images=condensed().images.clamp(0, 1))
    write_set(wanted, "image_folder", tmp_path / "out")
    given = read_set(tmp_path / "out")
    module, _ = trained_on(given, TinyCifar())
    order = torch.sort(wanted.labels, stable=True).indices
    torch.testing.assert_close(module.pixels(), wanted.images[order], atol=1 / 510 + 1e-6, rtol=0)
    assert torch.equal(module.training_set().labels, wanted.labels[order])


def test_the_file_of_results_is_named_and_filled_as_dcs_program_does(tmp_path):
    (path,) = write_set(condensed(), "vico", tmp_path)
    assert path.name == "res_DM_CIFAR10_ConvNet_2ipc.pt"
    content = torch.load(path, weights_only=True)  # plain numbers: it loads everywhere
    assert content["accs_all_exps"] == {"ConvNet": [0.5, 0.25]}
    ((images, labels),) = content["data"]
    assert labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010])  # its utils.py
    by_hand = (condensed().images[1] - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(images[0], by_hand)


@pytest.mark.parametrize(
    ("loss", "augmentation", "name"),
    [
        ("GradientMatching", None, "DC"),
        ("GradientMatching", "lit_condense.augmentation.NoAugmentation", "DC"),
        ("GradientMatching", "lit_condense.augmentation.OneOf", "DSA"),
        ("FeatureMatching", "lit_condense.augmentation.OneOf", "DM"),
        ("Curvature_Matching", None, "CurvatureMatching"),
    ],
)
def test_the_file_of_results_says_the_method_that_decides_how_it_is_evaluated(tmp_path, loss, augmentation, name):
    given = condensed()
    given.card["method"]["matching"] = {loss: {}}
    given.card["method"]["model"]["augmentation"] = augmentation and {"class_path": augmentation, "init_args": {}}
    (path,) = write_set(given, "vico", tmp_path)
    assert path.name == f"res_{name}_CIFAR10_ConvNet_2ipc.pt"


def test_whitened_images_are_written_as_they_were_learned(tmp_path):
    whitened = condensed(stored=torch.randn(10, 3, 8, 8))
    whitened.card["data"]["normalization"] = {"family": "zca", "eps": 0.1}
    write_set(whitened, "mtt", tmp_path)
    read = read_set(tmp_path, Answers(space="zca", inner_lr=0.01))
    assert torch.equal(read.images, whitened.stored[torch.sort(whitened.labels, stable=True).indices])
    with pytest.raises(ExportError, match="whitened images in the file"):
        write_set(dataclasses.replace(whitened, stored=None), "mtt", tmp_path / "other")


def test_the_challenge_takes_ten_images_a_class_of_its_data(tmp_path):
    labels = torch.arange(100).repeat(10)
    card = {"data": {"dataset": "cifar100"}}
    wanted = CondensedSet(torch.rand(1000, 3, 32, 32), labels, card)
    (path,) = write_set(wanted, "challenge", tmp_path)
    assert path.name == "cifar100.pt"
    given = read_set(path)
    pixels = PRESETS["dc"]["cifar100"].denormalize(given.images)
    torch.testing.assert_close(pixels, wanted.images[torch.sort(labels, stable=True).indices], atol=1e-6, rtol=0)
    with pytest.raises(ExportError, match="10 images for each class"):
        write_set(condensed(), "challenge", tmp_path / "b")


def test_what_a_layout_cannot_hold_is_named():
    whole = condensed(soft_labels=soft(), inner_lr=0.1, weights=torch.ones(10), averaged=torch.zeros(10, 3, 8, 8))
    assert lost(whole, "vico") == ["soft labels", "the step size", "weights of images", "the averaged images"]
    assert lost(whole, "datm") == ["weights of images", "the averaged images"]
    assert lost(whole, "npz") == ["the averaged images"]
    assert lost(condensed(), "image_folder") == []


def test_nothing_is_replaced_and_nothing_unknown_is_written(tmp_path):
    write_set(condensed(), "idc", tmp_path)
    with pytest.raises(ExportError, match=r"no file at .*data\.pt"):
        write_set(condensed(), "idc", tmp_path)
    with pytest.raises(SettingsError, match=f"one of {', '.join(FORMATS)}|a format of"):
        write_set(condensed(), "gif", tmp_path)
    with pytest.raises(ExportError, match="with soft labels"):
        write_set(condensed(), "datm", tmp_path / "b")
    strange = condensed()
    strange.card["data"]["dataset"] = "mine"
    with pytest.raises(ExportError, match="idc, npz or image_folder"):
        write_set(strange, "vico", tmp_path / "c")
