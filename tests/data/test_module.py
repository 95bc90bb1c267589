from __future__ import annotations

import inspect
import itertools
import json
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI

from lit_condense.data import (
    CIFAR10,
    CIFAR100,
    MNIST,
    SVHN,
    ArrayFile,
    CondenseDataModule,
    Digits,
    FashionMNIST,
    ImageFolder,
    Normalization,
    Splits,
)
from lit_condense.errors import DataError, SettingsError


class Made(CondenseDataModule):
    """Forty training and twelve test images of four classes, made of their own positions."""

    dataset_name = "mnist"
    loads = 0

    def load(self):
        self.loads += 1
        images = torch.arange(52, dtype=torch.uint8).view(52, 1, 1, 1).expand(52, 1, 2, 3).contiguous()
        labels = torch.arange(52) % 4
        return Splits(images[:40], labels[:40], images[40:], labels[40:], ("ant", "bee", "cat", "dog"))


class Recorder(LightningModule):
    """Steps one parameter an update and writes down the indices that the loaders yield."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.updates, self.networks, self.predictions = [], {"validate": [], "test": []}, []

    def evaluation_indices(self, stage):
        return range(1, 6, 2) if stage == "validate" else range(2)

    def training_step(self, update):
        self.updates.append(update)
        self.manual_backward(self.weight.sum())
        self.optimizers().step()

    def validation_step(self, network):
        self.networks["validate"].append(network)

    def test_step(self, network):
        self.networks["test"].append(network)

    def predict_step(self, index):
        self.predictions.append(index)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path, **settings):
    defaults = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(default_root_dir=tmp_path, num_sanity_val_steps=0, **{**defaults, **settings})


def test_data_are_loaded_once_however_often_setup_is_called():
    data = Made()
    assert data.loads == 0
    data.setup("fit")
    real = data.real
    data.setup("test")
    assert data.loads == 1
    assert data.real is real


def test_facts_are_known_without_an_explicit_setup():
    data = Made()
    assert (data.num_classes, data.image_shape, data.class_names) == (4, (1, 2, 3), ("ant", "bee", "cat", "dog"))
    assert (len(data.real), len(data.test)) == (40, 12)


def test_both_splits_share_the_training_splits_measured_values():
    data = Made(normalization="measured")
    pixels = torch.arange(40).double() / 255
    assert data.real.normalization.mean == pytest.approx([float(pixels.mean())], rel=1e-12)
    assert data.real.normalization.std == pytest.approx([float(pixels.std(correction=0))], rel=1e-12)
    assert data.test.normalization == data.real.normalization


def test_a_family_or_given_values_are_used_as_they_are():
    assert Made(normalization="egm").test.normalization == Normalization((0.1307,), (0.3081,))
    given = Normalization((0.25,), (0.5,))
    assert Made(normalization=given).real.normalization == given


def test_a_family_without_constants_for_the_dataset_is_refused_before_reading():
    class Photos(Made):
        dataset_name = "photos"

    with pytest.raises(SettingsError, match=r"'idc' has no constants for 'photos'.*normalization: measured"):
        Photos(normalization="idc")
    with pytest.raises(SettingsError, match="'dm'"):
        Made(normalization="dm")


def test_a_choice_of_classes_is_relabelled_in_the_order_given():
    data = Made(classes=[3, 1])
    assert data.class_names == ("dog", "bee")
    assert data.real.class_sizes == [10, 10]
    # pixel values are positions, and position modulo 4 is the class as loaded
    assert (data.real.images[:, 0, 0, 0] % 4).tolist() == [[3, 1][label] for label in data.real.labels]
    assert (data.test.images[:, 0, 0, 0] % 4).tolist() == [[3, 1][label] for label in data.test.labels]


@pytest.mark.filterwarnings("ignore:The brightest training pixel")
def test_the_limit_keeps_the_first_training_images_of_each_class_and_all_test_images():
    data = Made(train_limit_per_class=2)
    assert data.real.images[:, 0, 0, 0].tolist() == list(range(8))
    assert data.real.class_sizes == [2, 2, 2, 2]
    assert len(data.test) == 12


@pytest.mark.parametrize("classes", [[], [1, 1], [-1, 2]])
def test_an_impossible_choice_of_classes_is_refused_before_reading(classes):
    with pytest.raises(SettingsError, match="different class numbers"):
        Made(classes=classes)


def test_a_class_that_the_data_lack_is_refused():
    with pytest.raises(SettingsError, match="asks for class 4 but mnist has the classes 0 to 3"):
        Made(classes=[0, 4]).setup()


def test_a_limit_below_one_is_refused():
    with pytest.raises(SettingsError, match="train_limit_per_class"):
        Made(train_limit_per_class=0)


def test_the_held_out_share_of_each_class_takes_the_place_of_the_test_split():
    whole, data = Made(), Made(held_out=0.3)
    held, left = data.test.images[:, 0, 0, 0].tolist(), data.real.images[:, 0, 0, 0].tolist()
    assert sorted(held + left) == whole.real.images[:, 0, 0, 0].tolist()
    assert data.test.class_sizes == [round(0.3 * size) for size in whole.real.class_sizes]
    assert data.describe()["held_out"] == 0.3
    # evenly spaced over the class, not its end
    members = whole.real.images[whole.real.indices_of(0), 0, 0, 0].tolist()
    assert [members.index(pixel) for pixel in data.test.images[data.test.labels == 0, 0, 0, 0].tolist()] == [0, 3, 6]


def test_an_even_so_small_share_holds_an_image_of_every_class():
    assert Made(held_out=0.001).test.class_sizes == [1, 1, 1, 1]


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_an_impossible_share_is_refused_before_reading(share):
    with pytest.raises(SettingsError, match="held_out"):
        Made(held_out=share)


def test_a_share_that_leaves_no_training_image_is_refused():
    with pytest.raises(DataError, match="all of them"):
        Made(train_limit_per_class=1, held_out=0.5).setup()


def test_splits_of_different_image_shapes_are_refused():
    class Odd(Made):
        def load(self):
            splits = super().load()
            return Splits(splits.train_images, splits.train_labels, torch.zeros(12, 1, 5, 5), splits.test_labels, ())

    with pytest.raises(DataError, match=r"\(1, 2, 3\) and \(1, 5, 5\)"):
        Odd().setup()


def test_a_split_that_lacks_a_class_says_which_split():
    class Partial(Made):
        def load(self):
            splits = super().load()
            return Splits(
                splits.train_images,
                splits.train_labels,
                splits.test_images[:3],
                splits.test_labels[:3],
                splits.class_names,
            )

    with pytest.raises(DataError, match=r"Class 3 \(dog\) has no images in the test split"):
        Partial().setup()


def test_the_description_is_plain_data_and_identifies_both_splits():
    data = Made(normalization="dc", classes=[0, 2])
    card = json.loads(json.dumps(data.describe()))
    assert (card["dataset"], card["class_names"], card["image_shape"]) == ("mnist", ["ant", "cat"], [1, 2, 3])
    assert card["normalization"] == {"family": "dc", "mean": [0.1307], "std": [0.3081]}
    assert card["train"] == {"images": 20, "per_class": [10, 10], "sha256": data.real.fingerprint()}
    assert card["test"]["sha256"] == data.test.fingerprint() != card["train"]["sha256"]
    assert {"source", "licence", "citation"} <= card.keys()
    assert Made(normalization=Normalization((0,), (1,))).describe()["normalization"]["family"] == "given"


@pytest.mark.parametrize(
    ("dataset", "arguments"),
    [
        (Made, {}),
        (Digits, {}),
        (ArrayFile, {"path": "set.npz", "label_names": ["a"]}),
        (ImageFolder, {"root": "photos", "image_size": (3, 4), "name": "mine"}),
        *((dataset, {"root": "elsewhere"}) for dataset in (MNIST, FashionMNIST, SVHN, CIFAR10, CIFAR100)),
    ],
)
def test_every_argument_can_be_read_back_under_its_own_name(dataset, arguments):
    data = dataset(**arguments, classes=[1, 0], train_limit_per_class=5, held_out=0.5)
    given = {**arguments, "classes": [1, 0], "train_limit_per_class": 5, "held_out": 0.5}
    signature = inspect.signature(dataset.__init__).parameters
    defaults = {name: one.default for name, one in signature.items() if name not in ("self", *arguments)}
    assert {name: getattr(data, name) for name in signature if name != "self"} == {**defaults, **given}


def test_both_splits_move_together():
    data = Made()
    data.to("meta")
    assert {data.real.device.type, data.test.device.type} == {"meta"}


def test_a_run_sees_update_indices_from_0_and_a_resumed_run_goes_on_where_it_stopped(tmp_path):
    first = trainer(tmp_path, max_steps=3)
    model = Recorder()
    first.fit(model, datamodule=Made())
    first.save_checkpoint(tmp_path / "three.ckpt")
    assert model.updates == [0, 1, 2]
    resumed = Recorder()
    trainer(tmp_path, max_steps=7).fit(resumed, datamodule=Made(), ckpt_path=tmp_path / "three.ckpt")
    assert resumed.updates == [3, 4, 5, 6]


def test_evaluation_loops_see_the_networks_that_the_model_asks_for(tmp_path):
    model, data = Recorder(), Made()
    trainer(tmp_path, max_steps=4, val_check_interval=2, check_val_every_n_epoch=None).fit(model, datamodule=data)
    assert model.networks["validate"] == [1, 3, 5, 1, 3, 5]
    assert model.updates == [0, 1, 2, 3]
    trainer(tmp_path).test(model, datamodule=data)
    assert model.networks["test"] == [0, 1]
    trainer(tmp_path, limit_val_batches=2).validate(model, datamodule=data)
    assert model.networks["validate"][6:] == [1, 3]
    trainer(tmp_path).predict(model, datamodule=data)
    assert model.predictions == [0]


def test_the_loaders_cause_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.trainer.connectors.data_connector.suggested_max_num_workers", lambda _: 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run = trainer(tmp_path, max_steps=2, val_check_interval=1, check_val_every_n_epoch=None)
        run.fit(Recorder(), datamodule=Made())
    assert run.global_step == 2


def test_iterating_the_loaders_leaves_the_global_generator_alone(tmp_path):
    data = Made()
    data.trainer = trainer(tmp_path)
    state = torch.get_rng_state()
    assert list(itertools.islice(data.train_dataloader(), 3)) == [0, 1, 2]
    assert list(data.predict_dataloader()) == [0]
    assert torch.equal(torch.get_rng_state(), state)


def test_loaders_without_a_trainer_or_with_a_foreign_model_say_what_is_missing(tmp_path):
    data = Made()
    with pytest.raises(SettingsError, match="give this data module to a Trainer"):
        iter(data.train_dataloader())
    data.trainer = trainer(tmp_path)
    data.trainer.strategy._lightning_module = LightningModule()
    with pytest.raises(SettingsError, match=r"evaluation_indices\(stage\).*LightningModule"):
        iter(data.val_dataloader())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data.normalization=egm"], "egm"),
        (["--data.normalization=zca"], "zca"),
        (["--data.normalization={mean: [0.5], std: [0.25]}"], Normalization((0.5,), (0.25,))),
        ([], "measured"),
    ],
)
def test_the_command_line_takes_a_family_or_values_and_a_saved_config_gives_them_back(
    tmp_path, monkeypatch, arguments, expected
):
    monkeypatch.setattr("sys.argv", ["lit-condense"])

    def command(arguments):
        # no seed: it would be left in the environment and the global generators
        settings = {"subclass_mode_data": True, "run": False, "seed_everything_default": False}
        return LightningCLI(Recorder, CondenseDataModule, args=arguments, save_config_callback=None, **settings)

    first = command([f"--data={__name__}.Made", *arguments])
    assert first.datamodule.normalization == expected
    (tmp_path / "saved.yaml").write_text(first.parser.dump(first.config))
    assert command([f"--config={tmp_path / 'saved.yaml'}"]).datamodule.normalization == expected
