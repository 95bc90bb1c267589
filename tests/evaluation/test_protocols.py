from __future__ import annotations

import json

import pytest

from lit_condense.augmentation import AlwaysOn, EvaluationAugmentation, NoAugmentation, OneOf
from lit_condense.data import CIFAR10, MNIST, SVHN, Digits, FashionMNIST
from lit_condense.errors import SettingsError
from lit_condense.evaluation import Evaluation, Judge
from lit_condense.evaluation.protocols import describe, recipe_for
from lit_condense.networks import ConvNet
from lit_condense.rng import RandomKey
from tests.helpers import TinyData, tiny_convnet

COLOURED = ("cifar10", "cifar100", "fashion_mnist", "tiny_imagenet", "my own data")
ALL_PROTOCOLS = [(p, d, b) for p in ("dc", "dsa", "idc") for d in ("mnist", "cifar10") for b in (False, True)]


def test_the_names_used_here_are_those_of_the_data_modules():
    names = [module.dataset_name for module in (MNIST(), FashionMNIST(), SVHN(), CIFAR10(), Digits())]
    assert names == ["mnist", "fashion_mnist", "svhn", "cifar10", "digits"]


@pytest.mark.parametrize(("protocol", "dataset", "batch_norm"), ALL_PROTOCOLS)
def test_every_protocol_uses_sgd_with_the_published_numbers(protocol, dataset, batch_norm):
    recipe = recipe_for(protocol, dataset, batch_norm)
    assert (recipe.lr, recipe.momentum, recipe.weight_decay) == (0.01, 0.9, 5e-4)
    assert recipe.batch_size == (64 if protocol == "idc" else 256)


@pytest.mark.parametrize("dataset", ["svhn", *COLOURED])
def test_dc_trains_301_passes_without_augmentation(dataset):
    recipe = recipe_for("dc", dataset, batch_norm=False)
    assert isinstance(recipe.augmentation, NoAugmentation)
    # a tenth of the rate after the pass with index 151, in a new optimizer
    assert (recipe.passes, recipe.drops, recipe.drop_factor, recipe.restart) == (301, (152,), 0.1, True)
    assert recipe.cutmix == 0


def test_dc_on_mnist_crops_scales_or_rotates_for_1001_passes():
    recipe = recipe_for("dc", "mnist", batch_norm=False)
    assert isinstance(recipe.augmentation, EvaluationAugmentation)
    assert set(recipe.augmentation.operations) == {"crop", "scale", "rotate"}
    assert (recipe.passes, recipe.drops, recipe.restart) == (1001, (502,), True)


@pytest.mark.parametrize("dataset", ["svhn", *COLOURED])
def test_dc_crops_or_adds_noise_for_networks_with_batch_norm(dataset):
    recipe = recipe_for("dc", dataset, batch_norm=True)
    assert isinstance(recipe.augmentation, EvaluationAugmentation)
    assert set(recipe.augmentation.operations) == {"crop", "noise"}
    assert (recipe.passes, recipe.drops) == (1001, (502,))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("dataset", "flips"), [("mnist", False), ("svhn", False), ("digits", False), *((d, True) for d in COLOURED)]
)
def test_dsa_trains_1001_passes_on_one_group_of_operations_a_batch(dataset, flips, batch_norm):
    recipe = recipe_for("dsa", dataset, batch_norm)
    assert isinstance(recipe.augmentation, OneOf)
    expected = {"color", "crop", "cutout", "scale", "rotate"} | ({"flip"} if flips else set())
    assert set(recipe.augmentation.operations) == expected
    assert (recipe.passes, recipe.drops, recipe.drop_factor, recipe.restart) == (1001, (502,), 0.1, True)
    assert recipe.cutmix == 0


@pytest.mark.parametrize(("dataset", "flips"), [("mnist", False), ("svhn", False), ("cifar10", True)])
def test_idc_trains_1000_passes_with_cutmix_on_half_of_the_batches(dataset, flips):
    recipe = recipe_for("idc", dataset, batch_norm=False)
    assert isinstance(recipe.augmentation, AlwaysOn)
    # no cutout where CutMix is on
    assert set(recipe.augmentation.operations) == {"color", "crop", "scale", "rotate"} | ({"flip"} if flips else set())
    assert (recipe.passes, recipe.drops, recipe.drop_factor, recipe.restart) == (1000, (666, 833), 0.2, False)
    assert recipe.cutmix == 0.5


@pytest.mark.parametrize(("protocol", "passes", "drops"), [("dc", 13, (8,)), ("dsa", 13, (8,)), ("idc", 12, (8, 10))])
def test_another_number_of_epochs_keeps_the_shape_of_the_schedule(protocol, passes, drops):
    recipe = recipe_for(protocol, "cifar10", False, epochs=12)
    assert (recipe.passes, recipe.drops) == (passes, drops)


@pytest.mark.parametrize(
    ("batches", "max_steps", "expected"),
    [
        (1, None, (301, (152,))),
        (3, None, (903, (456,))),
        (3, 903, (903, (456,))),
        (3, 5000, (903, (456,))),
        (3, 301, (301, (152,))),
        (196, 1000, (1000, (505,))),
        (1, 1, (1, (1,))),
    ],
)
def test_a_capped_schedule_shrinks_in_proportion(batches, max_steps, expected):
    assert recipe_for("dc", "cifar10", False).capped(batches, max_steps) == expected


@pytest.mark.parametrize(("protocol", "dataset", "batch_norm"), ALL_PROTOCOLS)
def test_a_recipe_describes_itself_as_plain_data(protocol, dataset, batch_norm):
    recipe = recipe_for(protocol, dataset, batch_norm)
    plain = describe(recipe)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["passes"] == recipe.passes
    assert plain["augmentation"] == type(recipe.augmentation).__name__
    assert plain["operations"] == list(getattr(recipe.augmentation, "operations", []))


@pytest.mark.parametrize(("norm", "operations"), [("instance", []), ("batch", ["crop", "noise"])])
def test_the_network_decides_about_the_augmentation_of_dc(norm, operations):
    judge = Judge(Evaluation(), TinyData().test, "cifar10", RandomKey(0), device="cpu")
    network = tiny_convnet(norm)(in_channels=1, image_size=(8, 8), num_classes=5)
    assert describe(judge.recipe(network))["operations"] == operations


def test_an_unknown_protocol_is_refused():
    with pytest.raises(SettingsError, match="protocol"):
        recipe_for("egm", "cifar10", False)


@pytest.mark.parametrize(
    "settings",
    [
        {"protocol": "egm"},
        {"repeats": 0},
        {"quick_repeats": 0},
        {"epochs": 0},
        {"full_data_steps": -1},
        {"full_data_steps": 1001},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        Evaluation(networks=[ConvNet], **settings)
