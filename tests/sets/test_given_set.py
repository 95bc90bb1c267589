"""A set from a file means what its program meant: spaces, cells, classes; an own one scores as it did before."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from lit_condense import load_condensed
from lit_condense.data.normalization import PRESETS, Normalization
from lit_condense.errors import ExportError
from lit_condense.evaluation import Evaluation
from lit_condense.interchange import Answers, Found, Given, Packing, read_set
from lit_condense.interchange.given import NORMALIZED
from lit_condense.matching import GradientMatching
from lit_condense.networks import ConvNet
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.sets.given_set import GivenSet
from tests.helpers import TinyData, fitted, tiny_convnet
from tests.interchange.test_writing import NAMES, TinyCifar

LABELS = torch.arange(5)
FILE = Path("theirs.pt")
CORNERS = {"row": [(0, 0), (0, 4), (4, 0), (4, 4)], "column": [(0, 0), (4, 0), (0, 4), (4, 4)]}
"""Upper left corner of each cell (row, column), in the order in which a program counts them."""


def found(images, labels=LABELS, **changes):
    return Found("theirs", images, labels, (FILE,), **changes)


def stored(count=5, size=8, channels=3):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def bound(given, normalization="dc", data=None):
    module = GivenSet(given, tiny_convnet())
    module._data = data or TinyCifar(normalization)
    module._data.setup()
    module.fit_to(module._data)
    return module


@pytest.mark.parametrize("family", ["dc", "egm", "idc", "mtt"])
@pytest.mark.parametrize("of_data", ["dc", "egm"])
def test_normalised_values_keep_their_pixels_under_any_constants(family, of_data):
    values = stored() * 4 - 2
    module = bound(Given(found(values), family, Packing()), of_data)
    theirs, ours = (PRESETS[name]["cifar10"] for name in (family, of_data))
    pixels = values * torch.tensor(theirs.std)[:, None, None] + torch.tensor(theirs.mean)[:, None, None]
    seen = (pixels - torch.tensor(ours.mean)[:, None, None]) / torch.tensor(ours.std)[:, None, None]
    torch.testing.assert_close(module.pixels(), pixels, atol=1e-6, rtol=0)
    torch.testing.assert_close(module.training_set().images, seen, atol=1e-5, rtol=0)
    if theirs == ours:
        assert torch.equal(module.training_set().images, values), "not even rounded"


def test_pixels_are_normalised_as_the_data_are():
    module = bound(Given(found(stored()), "pixel", Packing()))
    assert torch.equal(module.training_set().images, PRESETS["dc"]["cifar10"].normalize(stored()))


@pytest.mark.parametrize("space", ["pixel", "dc"])
@pytest.mark.parametrize("order", CORNERS)
def test_cells_are_cut_and_enlarged_as_their_program_does(space, order):
    module = bound(Given(found(stored()), space, Packing(2, order)))
    by_hand = [
        F.interpolate(stored()[:, :, y : y + 4, x : x + 4], size=(8, 8), mode="bilinear") for y, x in CORNERS[order]
    ]
    seen = torch.cat(by_hand)
    constants = PRESETS["dc"]["cifar10"]
    seen = constants.normalize(seen) if space == "pixel" else seen
    torch.testing.assert_close(module.training_set().images, seen, atol=1e-5, rtol=1e-5)
    assert module.training_set().labels.tolist() == list(range(5)) * 4
    assert module.counts == [1] * 5
    assert sum(module.baselines.budget.images) == 20, "as many real images as fit into the same room"


def test_soft_labels_and_weights_follow_the_cells():
    soft, weights = torch.rand(5, 5).softmax(1), torch.arange(5.0)
    given = Given(found(stored(), soft_labels=soft, weights=weights, inner_lr=0.3), "pixel", Packing(2))
    seen = bound(given).training_set()
    assert torch.equal(seen.soft_labels, soft.repeat(4, 1))
    assert torch.equal(seen.weights, weights.repeat(4))
    assert seen.step_size == 0.3


def test_classes_are_matched_by_name_not_by_place():
    given = Given(found(stored(3), torch.tensor([0, 1, 2]), class_names=("elk", "ant", "dog")), "pixel", Packing())
    assert bound(given).training_set().labels.tolist() == [NAMES.index(name) for name in ("elk", "ant", "dog")]
    strange = Given(found(stored(1), torch.tensor([0]), class_names=("gnu",)), "pixel", Packing())
    with pytest.raises(ExportError, match=r"ant, bee, cat, dog, elk.*gnu"):
        bound(strange).training_set()


def test_soft_labels_go_with_the_names_of_their_classes():
    soft = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    names = ("elk", "ant", "dog")
    given = Given(found(stored(2), soft.argmax(1), class_names=names, soft_labels=soft), "pixel", Packing())
    module = GivenSet(given, tiny_convnet())
    module._data = TinyCifar()
    seen = module.training_set()
    assert torch.equal(seen.soft_labels[:, [NAMES.index(name) for name in names]], soft)
    assert torch.equal(seen.soft_labels.argmax(1), seen.labels)


def test_what_was_evaluated_can_be_evaluated_again(tmp_path):
    given = Given(found(stored() * 4 - 2), "dc", Packing(2, "column"))
    first = bound(given)
    first.save(tmp_path / "first")
    second = bound(read_set(tmp_path / "first"))
    assert second.given.packing == Packing(2, "column")
    assert torch.equal(second.training_set().images, first.training_set().images)
    assert second.counts == first.counts


def test_images_without_labels_stand_class_by_class():
    given = Given(found(stored(10), None), "pixel", Packing())
    assert bound(given).training_set().labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    with pytest.raises(ExportError, match=r"no multiple of the 5 classes.*--labels"):
        bound(Given(found(stored(7), None), "pixel", Packing())).training_set()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Given(found(stored(size=9)), "pixel", Packing()), r"\(3, 8, 8\).*got \(3, 9, 9\)"),
        (Given(found(stored(), LABELS + 1), "pixel", Packing()), "below 5.*up to 5"),
        (Given(found(stored(), soft_labels=torch.ones(5, 7) / 7), "pixel", Packing()), "soft labels of 5.*got 7"),
        (Given(found(stored()), "zca", Packing()), r"zca for whitened values.*are whitened"),
    ],
)
def test_data_that_a_set_cannot_be_of_are_refused(given, said):
    with pytest.raises(ExportError, match=said):
        bound(given)


def test_a_whitened_set_needs_whitened_data_and_is_read_as_it_is():
    data = TinyData(sizes=(20,) * 5, channels=1, normalization="zca")
    given = Given(found(stored(channels=1)), "zca", Packing())
    module = bound(given, data=data)
    assert torch.equal(module.training_set().images, stored(channels=1))
    torch.testing.assert_close(module.pixels(), data.real.normalization.denormalize(stored(channels=1)))
    constants = Normalization((0.5,), (0.5,))
    with pytest.raises(ExportError, match="are normalised"):
        bound(Given(found(stored(channels=1), constants=constants), NORMALIZED, Packing()), data=data)
    pixels = bound(Given(found(stored(channels=1)), "pixel", Packing()), data=data).training_set().images
    assert torch.equal(pixels, data.real.normalization.normalize(stored(channels=1))), "whitened by the data"


def test_another_data_set_in_the_name_is_warned_of():
    with pytest.warns(UserWarning, match="a set of svhn, and is evaluated on cifar10"):
        bound(Given(found(stored(), told={"dataset": "svhn"}), "pixel", Packing()))


STORAGES = {
    "normalised pixels": Pixels(),
    "pixels": Pixels("pixel"),
    "cells": MultiFormation(2),
    "cells by column": MultiFormation(2, order="column"),
    "at every factor": MultiFormation(2, decoding="multi"),
    "normalised cells": MultiFormation(2, "normalized", clamp="never"),
}


@pytest.mark.parametrize("normalization", ["measured", "zca"])
@pytest.mark.parametrize("name", STORAGES)
def test_an_own_set_scores_as_it_did_to_the_last_digit(tmp_path, name, normalization):
    if normalization == "zca" and name == "normalised cells":
        pytest.skip("cells of whitened images are refused")
    data = TinyData(sizes=(20,) * 5, normalization=normalization)
    evaluation = Evaluation(epochs=8, repeats=3, full_data_steps=0, start=False)
    module = fitted(GradientMatching(), parametrization=STORAGES[name], data=data, evaluation=evaluation)
    before = module.evaluate()
    module.save(tmp_path, before)
    given = read_set(tmp_path, Answers())
    network = partial(ConvNet, width=4, depth=2, norm="instance")
    again = GivenSet(given, network, evaluation=evaluation, seed=3)
    report = again.evaluate(TinyData(sizes=(20,) * 5, normalization=normalization))
    assert torch.equal(again.training_set().images, module.training_set().images), "to the bit"
    assert report.condensed[0].accuracies == before.condensed[0].accuracies
    assert report.baselines["random"].accuracies == before.baselines["random"].accuracies


@pytest.mark.parametrize("name", ["normalised pixels", "cells"])
def test_a_card_says_what_a_set_takes_to_keep(tmp_path, name):
    module = fitted(GradientMatching(), parametrization=STORAGES[name], data=TinyData(sizes=(20,) * 5))
    module.save(tmp_path)
    kept = load_condensed(tmp_path).card["bytes"]
    images = 10 * 1 * 8 * 8 * 4  # two stored images a class, one channel, float32
    assert kept == {"images": images, "labels": 10 * 8, "step_size": 0, "all": images + 80}
    soft = Given(found(stored(), soft_labels=torch.ones(5, 5) / 5, inner_lr=0.1), "pixel", Packing(2))
    bound(soft).save(tmp_path / "soft")
    kept = load_condensed(tmp_path / "soft").card["bytes"]
    assert kept == {"images": 5 * 3 * 64 * 4, "labels": 5 * 5 * 4, "step_size": 4, "all": 5 * 3 * 64 * 4 + 100 + 4}
