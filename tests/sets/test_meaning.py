"""A set decoded, numbered or normalised under foreign settings is another set: it is refused at every stage."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_condense import SelectedSet, SyntheticSet, load_condensed
from lit_condense.data import ZCA, Normalization
from lit_condense.errors import CheckpointError, DataError
from lit_condense.evaluation import Evaluation
from lit_condense.matching import GradientMatching
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.selection import RandomSubset
from lit_condense.settings import differences
from tests.cli_helpers import card_of, cli, refusal, write_config
from tests.helpers import TINY_SIZES, TinyData, fitted, quiet_trainer, tiny_convnet

STAGES = ("validate", "test", "predict")
PACKED = {"class_path": "lit_condense.parametrization.MultiFormation", "init_args": {"factor": 2}}
QUICK = {"epochs": 2, "repeats": 1, "quick_repeats": 1}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A finished run of a multi-formation set of two of the digits' classes: its folder, its arguments and changes."""
    folder = tmp_path_factory.mktemp("packed")
    args = [*write_config(folder, parametrization=PACKED), "--data.classes", "[3,8]"]
    cli("fit", *args, "--trainer.max_steps", "1")
    plain = [*write_config(folder, "plain"), "--data.classes", "[3,8]"]
    return folder / "tiny", args, plain


def last(folder):
    return ["--ckpt_path", folder / "checkpoints" / "last.ckpt"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_config_without_the_parametrization_is_refused(packed, capsys, stage):
    folder, _, plain = packed
    message = refusal(capsys, stage, *plain, *last(folder))
    assert "MultiFormation' then, 'lit_condense.parametrization.Pixels' now" in message
    assert "parametrization.init_args.factor: 2 then, '(absent)' now" in message
    assert not (folder.parent / "plain" / "condensed.safetensors").exists()


CHANGES = {
    "class_names: ['3', '8'] then, ['8', '3'] now": ["--data.classes", "[8,3]"],
    "class_names: ['3', '8'] then, ['3', '9'] now": ["--data.classes", "[3,9]"],
    "normalization.mean: [0.": ["--data.normalization", '{"mean": [0.5], "std": [0.5]}'],
    "normalization.family: '(absent)' then, 'zca' now": ["--data.normalization", "zca"],
    "init_args.factor: 2 then, 3 now": ["--model.parametrization.init_args.factor", "3"],
    "init_args.space: 'pixel' then, 'normalized' now": ["--model.parametrization.init_args.space", "normalized"],
    "init_args.decoding: 'uniform' then, 'multi' now": ["--model.parametrization.init_args.decoding", "multi"],
    "train.images: 20 then, 18 now": ["--data.train_limit_per_class", "9"],
}


@pytest.mark.parametrize(
    ("stage", "said"), [*((stage, said) for stage in STAGES for said in CHANGES), ("fit", next(iter(CHANGES)))]
)
def test_whatever_decides_the_meaning_is_refused_with_both_values(packed, capsys, stage, said):
    folder, args, _ = packed
    before = (folder / "condensed.safetensors").read_bytes()
    message = refusal(capsys, stage, *args, *CHANGES[said], *last(folder))
    assert said in message
    assert (folder / "condensed.safetensors").read_bytes() == before


def test_what_matters_to_updates_only_may_change(packed):
    folder, args, _ = packed
    changes = ["--model.parametrization.init_args.clamp", "never", "--model.parametrization.init_args.bound", "7"]
    score = card_of(folder)["evaluation"]["condensed"][0]
    tested = cli("test", *args, *changes, "--model.optimizer.lr", "9", *last(folder)).trainer.callback_metrics
    assert float(tested["test/acc"]) == pytest.approx(score["accuracy_mean"])
    cli("validate", *args, *changes, "--model.parametrization.init_args.decoding", "bound", *last(folder))


def test_a_prediction_under_another_method_keeps_the_card_of_the_run(packed, tmp_path):
    folder = packed[0]
    elsewhere = [*write_config(tmp_path, "elsewhere", parametrization=PACKED), "--data.classes", "[3,8]"]
    cli("predict", *elsewhere, "--model.optimizer.lr", "9", "--model.seed", "5", *last(folder))
    assert torch.equal(load_condensed(tmp_path / "elsewhere").images, load_condensed(folder).images)
    first, second = card_of(folder), card_of(tmp_path / "elsewhere")
    assert (second["method"], second["seed"], second["update"]) == (first["method"], first["seed"], 1)


# ------------------------------------------------------------------ in Python

GIVEN = Normalization((0.4,), (0.3,))


def made(**settings):
    return fitted(max_steps=2, data=TinyData(normalization=GIVEN), **settings)


class Renamed(TinyData):
    """The same images under other names, or the same names in another form."""

    names = ("a", "b", "c", "d", "e")

    def load(self):
        splits = super().load()
        return type(splits)(
            splits.train_images, splits.train_labels, splits.test_images, splits.test_labels, self.names
        )


class OtherTest(TinyData):
    """Other test images of the same classes."""

    def load(self):
        splits = super().load()
        return type(splits)(
            splits.train_images, splits.train_labels, 255 - splits.test_images, splits.test_labels, splits.class_names
        )


FOREIGN = {
    "class_names": Renamed(normalization=GIVEN),
    "normalization.std": TinyData(normalization=Normalization((0.4,), (0.2,))),
    "train.sha256": TinyData((9, 7, 9, 4, 8), normalization=GIVEN),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("stage", STAGES)
def test_a_set_in_memory_is_refused_under_foreign_data(name, stage):
    module = made(evaluation=Evaluation(**QUICK))
    with pytest.raises(CheckpointError, match=name):
        getattr(quiet_trainer(limit_val_batches=1), stage)(module, datamodule=FOREIGN[name])


def test_a_loaded_set_is_refused_under_foreign_data_and_a_fit_of_it_too(tmp_path):
    trainer = {"enable_checkpointing": True}
    fitted(GradientMatching(), ModelCheckpoint(tmp_path, save_last=True), max_steps=2, trainer=trainer)
    loaded = SyntheticSet.load_from_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="class_names"):
        quiet_trainer().test(loaded, datamodule=Renamed())
    with pytest.raises(CheckpointError, match="class_names"):
        quiet_trainer(GradientMatching()).fit(loaded, datamodule=Renamed())
    with pytest.raises(DataError, match="images"):
        quiet_trainer().test(loaded, datamodule=TinyData(image_size=(9, 9)))
    assert loaded.updates_done == 2
    quiet_trainer(GradientMatching()).fit(loaded, datamodule=TinyData())
    assert loaded.updates_done == 4


def test_the_test_split_may_be_another_and_on_purpose_the_training_split():
    for data, purpose in ((OtherTest(normalization=GIVEN), False), (FOREIGN["train.sha256"], True)):
        module = made(evaluation=Evaluation(**QUICK, other_data=purpose))
        quiet_trainer().test(module, datamodule=data, verbose=False)
    with pytest.raises(CheckpointError, match=r"train\.sha256"):  # its card would say that they made it
        quiet_trainer().predict(module, datamodule=FOREIGN["train.sha256"])
    with pytest.raises(CheckpointError, match="class_names") as refused:
        quiet_trainer().test(module, datamodule=Renamed(normalization=GIVEN))
    assert "other_data" not in str(refused.value)
    with pytest.raises(CheckpointError, match=r"set model\.evaluation\.other_data: true"):
        quiet_trainer().test(made(evaluation=Evaluation(**QUICK)), datamodule=FOREIGN["train.sha256"])


def test_a_selection_points_into_its_own_training_split_whatever_is_wished():
    evaluation = Evaluation("coreset", **QUICK, other_data=True)
    module = SelectedSet(RandomSubset(), ipc=1, network=tiny_convnet(), evaluation=evaluation, seed=3)
    quiet_trainer(max_steps=-1).fit(module, datamodule=TinyData(normalization=GIVEN))
    assert module.counts == [1] * len(TINY_SIZES)
    with pytest.raises(CheckpointError, match=r"train\.sha256") as refused:
        quiet_trainer().test(module, datamodule=FOREIGN["train.sha256"])
    assert "other_data" not in str(refused.value)


def test_names_are_compared_in_one_unicode_form():
    one, other = Renamed(normalization=GIVEN), Renamed(normalization=GIVEN)
    one.names, other.names = ("\u00e9t\u00e9", "b", "c", "d", "e"), ("e\u0301te\u0301", "b", "c", "d", "e")
    module = fitted(max_steps=2, data=one)
    assert one.class_names == other.class_names
    quiet_trainer().predict(module, datamodule=other)


class OtherWhitening(TinyData):
    """The same training images, whitened by another eps."""

    def stores(self):
        train, test = super().stores()
        train.normalization = test.normalization = ZCA(train.images, eps=0.5, fitted_on=train.fingerprint())
        return train, test


WHITENED = {
    "made under": (
        TinyData(normalization="zca"),
        TinyData(normalization=GIVEN),
        r"family: 'zca' then, '\(absent\)' now",
    ),
    "made without": (
        TinyData(normalization=GIVEN),
        TinyData(normalization="zca"),
        r"mean: \[0\.4\] then, '\(absent\)' now",
    ),
    "fitted to others": (
        TinyData(normalization="zca"),
        TinyData((9, 7, 9, 4, 8), normalization="zca"),
        r"normalization\.fitted_on: '\w{64}' then",
    ),
    "another eps": (TinyData(normalization="zca"), OtherWhitening(), r"normalization\.eps: 0\.1 then, 0\.5 now"),
}


@pytest.mark.parametrize("case", WHITENED)
def test_another_whitening_is_refused_even_on_purpose(tmp_path, case):
    own, other, said = WHITENED[case]
    module = fitted(max_steps=2, data=own, evaluation=Evaluation(**QUICK, other_data=True))
    module.trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=said) as refused:
        module.evaluate(other)
    for stage in STAGES:
        with pytest.raises(CheckpointError, match=said):
            getattr(quiet_trainer(limit_val_batches=1), stage)(module, datamodule=other)
    if "eps" not in said:
        assert "other_data does not change that" in str(refused.value)
        assert "other_data: true" not in str(refused.value)
    with pytest.raises(CheckpointError, match="normalization"):  # nor does a run go on under it
        fitted(data=other, evaluation=Evaluation(**QUICK, other_data=True), path=tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Pixels(), Pixels(clamp="every_update", most_matched=3), True),
        (Pixels(), Pixels("pixel"), False),
        (MultiFormation(2), MultiFormation(2, clamp="never", most_matched=3, bound=5), True),
        (MultiFormation(2), MultiFormation(2, decoding="bound"), True),
        (MultiFormation(2), MultiFormation(2, decoding="multi"), False),
        (MultiFormation(2), MultiFormation(3), False),
        (MultiFormation(2), MultiFormation(2, space="normalized"), False),
    ],
)
def test_parametrizations_mean_the_same_where_they_decode_alike_for_training(one, other, same):
    assert (differences(one.meaning, other.meaning) == []) is same
    stored, values = torch.rand(3, 1, 8, 8), Normalization((0.3,), (0.4,))
    decoded = [each.for_training.decode(stored, values) for each in (one, other)]
    assert (decoded[0].shape == decoded[1].shape and torch.equal(*decoded)) is same


def test_measured_values_may_differ_by_the_rounding_of_their_sums_and_by_no_more():
    assert differences({"mean": [0.1, 0.3]}, {"mean": [0.1 * (1 + 1e-15), 0.3]}) == []
    assert len(differences({"mean": [0.1, 0.3]}, {"mean": [0.1 * (1 + 1e-9), 0.3]})) == 1
