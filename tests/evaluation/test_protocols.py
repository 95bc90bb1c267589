from __future__ import annotations

import json

import pytest

from lit_condense.augmentation import AlwaysOn, CropFlip, EvaluationAugmentation, NoAugmentation, OneOf
from lit_condense.data import CIFAR10, MNIST, SVHN, Digits, FashionMNIST
from lit_condense.errors import SettingsError
from lit_condense.evaluation import Evaluation, Evaluator
from lit_condense.evaluation.protocols import PROTOCOLS, describe, is_convnet_bn, recipe_for
from lit_condense.networks import VGG11, AlexNet, ConvNet, ResNet18
from lit_condense.rng import RandomKey
from tests.helpers import TinyData, tiny_convnet

COLOURED = ("cifar10", "cifar100", "fashion_mnist", "tiny_imagenet", "my own data")
LIKE_DC = [(p, d, b) for p in ("dc", "dsa", "idc", "egm") for d in ("mnist", "cifar10") for b in (False, True)]


def test_the_names_used_here_are_those_of_the_data_modules():
    names = [module.dataset_name for module in (MNIST(), FashionMNIST(), SVHN(), CIFAR10(), Digits())]
    assert names == ["mnist", "fashion_mnist", "svhn", "cifar10", "digits"]


@pytest.mark.parametrize(("protocol", "dataset", "convnet_bn"), LIKE_DC)
def test_every_protocol_of_condensation_uses_sgd_with_the_published_numbers(protocol, dataset, convnet_bn):
    recipe = recipe_for(protocol, dataset, convnet_bn)
    assert (recipe.lr, recipe.momentum, recipe.weight_decay) == (0.01, 0.9, 5e-4)
    assert recipe.batch_size == (64 if protocol == "idc" else 256)


@pytest.mark.parametrize("dataset", ["svhn", *COLOURED])
def test_dc_trains_301_passes_without_augmentation(dataset):
    recipe = recipe_for("dc", dataset, convnet_bn=False)
    assert isinstance(recipe.augmentation, NoAugmentation)
    # a tenth of the rate after the pass with index 151, in a new optimizer
    assert (recipe.passes, recipe.drops, recipe.drop_factor, recipe.restart) == (301, (152,), 0.1, True)
    assert recipe.cutmix == 0


def test_dc_on_mnist_crops_scales_or_rotates_for_1001_passes():
    recipe = recipe_for("dc", "mnist", convnet_bn=False)
    assert isinstance(recipe.augmentation, EvaluationAugmentation)
    assert set(recipe.augmentation.operations) == {"crop", "scale", "rotate"}
    assert (recipe.passes, recipe.drops, recipe.restart) == (1001, (502,), True)


@pytest.mark.parametrize("dataset", ["mnist", "svhn", *COLOURED])
def test_dc_crops_or_adds_noise_for_a_convnet_with_batch_norm_on_mnist_too(dataset):
    recipe = recipe_for("dc", dataset, convnet_bn=True)
    assert isinstance(recipe.augmentation, EvaluationAugmentation)
    assert set(recipe.augmentation.operations) == {"crop", "noise"}
    assert (recipe.passes, recipe.drops) == (1001, (502,))


@pytest.mark.parametrize(
    ("network", "augmented"),
    [
        (ConvNet(1, 32, 5, width=2, norm="batch"), True),
        (ConvNet(3, 32, 5, width=2, depth=2, norm="batch"), True),
        (ConvNet(3, 32, 5, width=2), False),
        (ConvNet(3, 32, 5, width=2, norm="none"), False),
        # the program's ConvNetASwishBN, AlexNetBN, VGG11BN and ResNet18BN
        (ConvNet(3, 32, 5, width=2, norm="batch", activation="swish"), False),
        (AlexNet(3, 32, 5, norm="batch"), False),
        (VGG11(3, 32, 5, norm="batch"), False),
        (ResNet18(3, 32, 5, norm="batch"), False),
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'norm', value)}",
)
def test_of_networks_with_batch_norm_dc_augments_the_convnet_only(network, augmented):
    assert is_convnet_bn(network) == augmented
    found = {}
    for dataset in ("cifar10", "mnist"):
        recipe = Evaluator(Evaluation(), TinyData().test, dataset, RandomKey(0), device="cpu").recipe(network)
        found[dataset] = (describe(recipe)["operations"], recipe.passes)
    if augmented:
        assert found == dict.fromkeys(("cifar10", "mnist"), (["crop", "noise"], 1001))
    else:
        assert found == {"cifar10": ([], 301), "mnist": (["crop", "scale", "rotate"], 1001)}


def test_egm_trains_300_passes_exactly_and_drops_the_rate_at_half_of_them():
    recipe = recipe_for("egm", "cifar10", convnet_bn=False)
    assert isinstance(recipe.augmentation, NoAugmentation)
    # the momentum is kept
    assert (recipe.passes, recipe.drops, recipe.drop_factor, recipe.restart) == (300, (150,), 0.1, False)
    rates = list(recipe.rates(batches_per_pass=1))
    assert rates[:150] == [(0.01, False)] * 150
    assert [rate for rate, _ in rates[150:]] == pytest.approx([0.001] * 150)
    assert not any(restart for _, restart in rates)


@pytest.mark.parametrize(
    ("dataset", "convnet_bn", "operations"),
    [
        ("mnist", False, ("crop", "scale", "rotate")),
        ("mnist", True, ("crop", "noise")),
        ("svhn", True, ("crop", "noise")),
    ],
)
def test_egm_augments_as_dc_does_for_1000_passes(dataset, convnet_bn, operations):
    recipe = recipe_for("egm", dataset, convnet_bn)
    assert recipe.augmentation.operations == operations
    assert (recipe.passes, recipe.drops) == (1000, (500,))


@pytest.mark.parametrize("convnet_bn", [False, True])
@pytest.mark.parametrize(
    ("dataset", "flips"), [("mnist", False), ("svhn", False), ("digits", False), *((d, True) for d in COLOURED)]
)
def test_dsa_trains_1001_passes_on_one_group_of_operations_a_batch(dataset, flips, convnet_bn):
    recipe = recipe_for("dsa", dataset, convnet_bn)
    assert isinstance(recipe.augmentation, OneOf)
    expected = {"color", "crop", "cutout", "scale", "rotate"} | ({"flip"} if flips else set())
    assert set(recipe.augmentation.operations) == expected
    assert (recipe.passes, recipe.drops, recipe.drop_factor, recipe.restart) == (1001, (502,), 0.1, True)
    assert recipe.cutmix == 0


@pytest.mark.parametrize(("dataset", "flips"), [("mnist", False), ("svhn", False), ("cifar10", True)])
def test_idc_trains_1000_passes_with_cutmix_on_half_of_the_batches(dataset, flips):
    recipe = recipe_for("idc", dataset, convnet_bn=False)
    assert isinstance(recipe.augmentation, AlwaysOn)
    # no cutout where CutMix is on
    assert set(recipe.augmentation.operations) == {"color", "crop", "scale", "rotate"} | ({"flip"} if flips else set())
    assert (recipe.passes, recipe.drops, recipe.drop_factor, recipe.restart) == (1000, (666, 833), 0.2, False)
    assert recipe.cutmix == 0.5


@pytest.mark.parametrize(
    ("protocol", "passes", "drops"),
    [
        ("dc", 13, (8,)),
        ("dsa", 13, (8,)),
        ("idc", 12, (8, 10)),
        ("egm", 12, (6,)),
        ("coreset", 12, ()),
        ("mtt", 13, (8,)),
    ],
)
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


@pytest.mark.parametrize(("protocol", "dataset", "convnet_bn"), [*LIKE_DC, ("coreset", "cifar10", True)])
def test_a_recipe_describes_itself_as_plain_data(protocol, dataset, convnet_bn):
    recipe = recipe_for(protocol, dataset, convnet_bn)
    plain = describe(recipe)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["passes"] == recipe.passes
    assert plain["augmentation"] == type(recipe.augmentation).__name__
    assert plain["operations"] == list(getattr(recipe.augmentation, "operations", []))


@pytest.mark.parametrize(("norm", "operations"), [("instance", []), ("batch", ["crop", "noise"])])
def test_the_network_decides_about_the_augmentation_of_dc(norm, operations):
    judge = Evaluator(Evaluation(), TinyData().test, "cifar10", RandomKey(0), device="cpu")
    network = tiny_convnet(norm)(in_channels=1, image_size=(8, 8), num_classes=5)
    assert describe(judge.recipe(network))["operations"] == operations


def test_an_unknown_protocol_is_refused():
    with pytest.raises(SettingsError, match="protocol"):
        recipe_for("dmm", "cifar10", False)


# ------------------------------------------------------------------ another augmentation


def recipe_of(dataset="cifar10", **settings):
    judge = Evaluator(Evaluation(**settings), TinyData().test, dataset, RandomKey(0), device="cpu")
    return judge.recipe(tiny_convnet()(in_channels=1, image_size=(8, 8), num_classes=5))


def test_idc_i_on_svhn_is_judged_as_its_program_does_at_one_image_a_class():
    operations = ("color", "crop", "cutout", "scale", "rotate")
    recipe = recipe_of("svhn", protocol="idc", cutmix=0.0, augmentation=AlwaysOn(operations))
    assert recipe.augmentation.operations == operations
    assert recipe.cutmix == 0
    assert (recipe.passes, recipe.drops, recipe.batch_size) == (1000, (666, 833), 64)
    draw = recipe.augmentation.draw(RandomKey(0), (32, 32), 7)
    # colour and cutout in every batch, with one of the three others; never a mirrored digit
    assert list(draw)[:3] == ["brightness", "saturation", "contrast"]
    assert list(draw)[-1] == "cutout"
    assert len(draw) == 5


def test_mtt_is_dsa_with_the_step_size_of_the_set():
    own, usual, dsa = (
        recipe_for(protocol, "cifar10", False, step_size=step)
        for protocol, step in (("mtt", 0.03), ("mtt", None), ("dsa", 0.03))
    )
    assert own.lr == 0.03
    assert (usual.lr, dsa.lr) == (0.01, 0.01)
    for recipe in (own, usual):
        assert (recipe.passes, recipe.drops, recipe.drop_factor, recipe.restart) == (1001, (502,), 0.1, True)
        assert (recipe.momentum, recipe.weight_decay, recipe.batch_size) == (0.9, 5e-4, 256)
        assert recipe.augmentation.operations == dsa.augmentation.operations


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_takes_another_augmentation(protocol):
    augmentation = CropFlip(padding=1, flip=0.25)
    recipe = recipe_of(protocol=protocol, augmentation=augmentation)
    assert recipe.augmentation is augmentation
    assert describe(recipe)["operations"] == ["reflected_crop", "flip"]
    same = recipe_of(protocol=protocol, augmentation=augmentation, epochs=6)
    assert (same.lr, same.batch_size, same.cutmix) == (recipe.lr, recipe.batch_size, recipe.cutmix)
    assert same.passes in (6, 7)


@pytest.mark.parametrize(("protocol", "short", "long"), [("dc", 301, 1001), ("egm", 300, 1000)])
def test_dc_and_egm_train_for_longer_with_an_augmentation_and_shorter_without(protocol, short, long):
    crop = EvaluationAugmentation(["crop"])
    assert recipe_of("cifar10", protocol=protocol).passes == short
    assert recipe_of("cifar10", protocol=protocol, augmentation=crop).passes == long
    assert recipe_of("mnist", protocol=protocol).passes == long
    assert recipe_of("mnist", protocol=protocol, augmentation=NoAugmentation()).passes == short


@pytest.mark.parametrize(
    "settings",
    [
        {"protocol": "dmm"},
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
