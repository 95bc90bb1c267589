"""A checkpoint alone gives the set as it was made, and can make nothing but the parts of a set."""

from __future__ import annotations

import copy
import io
from functools import partial

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lit_condense import SelectedSet, SyntheticSet
from lit_condense.augmentation import AlwaysOn
from lit_condense.engine import Engine
from lit_condense.errors import CheckpointError, SettingsError
from lit_condense.evaluation import Evaluation
from lit_condense.init import RandomReal
from lit_condense.inner import TrainOnReal
from lit_condense.matching import GradientMatching
from lit_condense.networks import MLP, ConvNet
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.sampling import Representative
from lit_condense.selection import GraNd, Herding, ProxyTraining, RandomSubset
from lit_condense.sets.rebuilding import arguments_of, rebuilt
from lit_condense.settings import settings_of
from tests.cli_helpers import made
from tests.helpers import TinyData, fitted, quiet_trainer, tiny_convnet

QUICK = {"epochs": 2, "repeats": 2, "quick_repeats": 1}


class OwnNetwork(nn.Module):
    """A network of the user."""

    def __init__(self, in_channels, image_size, num_classes, width=4):
        super().__init__()
        pixels = in_channels * image_size[0] * image_size[1]
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, images):
        return self.layers(images)


class OwnStart(RandomReal):
    """A start of the user."""

    def __init__(self, what="images"):
        self.what = what


class Forgetful(RandomReal):
    """A start that does not keep its argument."""

    def __init__(self, what="images"):
        pass


def own_factory(in_channels, image_size, num_classes):
    return OwnNetwork(in_channels, image_size, num_classes)


EVERYTHING = {
    "ipc": [2, 1, 2, 1, 1],
    "network": partial(OwnNetwork, width=6),
    "inner": TrainOnReal(2, images=12, batch_size=6, augmentation=AlwaysOn(operations=("flip", "color"))),
    "sampling": Representative(4, interval=2, subset=8),
    "parametrization": MultiFormation(2, clamp="never"),
    "init": OwnStart("others"),
    "augmentation": AlwaysOn(),
    "optimizer": partial(torch.optim.Adam, lr=0.01, betas=(0.5, 0.9)),
    "engine": Engine("exact", classes_per_block=2),
    "evaluation": Evaluation(networks=[partial(ConvNet, width=4, depth=1), MLP], baselines=[Herding()], **QUICK),
    "seed": 5,
    "non_finite": "skip",
}


def checkpoint(folder, **settings):
    """Write a checkpoint of a run and return the set with its path."""
    saving = ModelCheckpoint(folder, save_last=True)
    module = fitted(GradientMatching(), saving, max_steps=2, trainer={"enable_checkpointing": True}, **settings)
    return module, folder / "last.ckpt"


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("everything"), **EVERYTHING)


def test_the_path_alone_gives_the_set_as_it_was_made(everything):
    module, path = everything
    loaded = SyntheticSet.load_from_checkpoint(path)
    assert settings_of(loaded) == settings_of(module)
    assert torch.equal(loaded.images, module.images)
    assert (loaded.counts, loaded.updates_done, loaded.seed) == (EVERYTHING["ipc"], 2, 5)
    assert loaded.raw().device.type == "cpu"
    scores = []
    for one in (module, loaded):
        trainer = quiet_trainer()
        trainer.test(one, datamodule=TinyData(), verbose=False)
        scores.append({name: float(value) for name, value in trainer.callback_metrics.items() if "acc" in name})
    assert scores[0] == scores[1]
    assert len(scores[0]) == 4  # of two architectures


def test_arguments_that_are_given_win_unless_they_would_change_the_images(everything):
    _, path = everything
    loaded = SyntheticSet.load_from_checkpoint(path, evaluation=Evaluation("dsa"), network=MLP, seed=9)
    assert (loaded.evaluation.protocol, loaded.network, loaded.seed) == ("dsa", MLP, 9)
    assert loaded.parametrization.factor == 2
    assert SyntheticSet.load_from_checkpoint(path, parametrization=MultiFormation(2)).parametrization.clamp != "never"
    with pytest.raises(CheckpointError, match="factor: 2 then, 3 now"):
        SyntheticSet.load_from_checkpoint(path, parametrization=MultiFormation(3))
    with pytest.raises(CheckpointError, match=r"MultiFormation' then, .*Pixels' now"):
        SyntheticSet.load_from_checkpoint(path, parametrization=Pixels("pixel"))
    with pytest.raises(SettingsError, match="got parametrisation"):
        SyntheticSet.load_from_checkpoint(path, parametrisation=Pixels())


def test_a_selection_is_rebuilt_too(tmp_path):
    settings = {"fraction": 0.3, "balanced": False, "network": tiny_convnet(), "seed": 3}
    proxy = ProxyTraining(epochs=1, batch_size=16, cache=str(tmp_path / "cache"))
    module = SelectedSet(GraNd(networks=1), **settings, proxy=proxy, evaluation=Evaluation("dsa", **QUICK))
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, save_last=True)
    quiet_trainer(saving, max_steps=-1, enable_checkpointing=True).fit(module, datamodule=TinyData())
    loaded = SelectedSet.load_from_checkpoint(tmp_path / "last.ckpt")
    assert settings_of(loaded) == settings_of(module)
    assert torch.equal(loaded.indices, module.indices)
    assert (loaded.counts, loaded.updates_done) == (module.counts, 3)
    with pytest.raises(CheckpointError, match="finished selection"):
        SelectedSet.load_from_checkpoint(tmp_path / "epoch=0-step=1.ckpt")
    with pytest.raises(CheckpointError, match="synthetic set"):
        SyntheticSet.load_from_checkpoint(tmp_path / "last.ckpt")


def test_a_run_in_double_precision_is_loaded_and_goes_on_without_rounding(tmp_path):
    saving, double = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1), {"precision": "64-true"}
    straight = fitted(GradientMatching(), saving, trainer={"enable_checkpointing": True, **double})
    assert straight.images.dtype == torch.float64
    loaded = SyntheticSet.load_from_checkpoint(tmp_path / "epoch=0-step=4.ckpt")
    assert torch.equal(loaded.images, straight.images)
    again = SyntheticSet.load_from_checkpoint(tmp_path / "epoch=0-step=4.ckpt", ipc=2)
    again.images.data = torch.zeros_like(again.images, dtype=torch.float32)  # as a new set's are before the run
    trainer = quiet_trainer(GradientMatching(), max_steps=4, **double)
    trainer.fit(again, datamodule=TinyData(), ckpt_path=tmp_path / "epoch=0-step=2.ckpt")
    assert torch.equal(again.images, straight.images)


@pytest.mark.parametrize("config", ["dream/cifar10_ipc10", "egm/cifar10_ipc10_mda", "selection/craig_cifar10"])
def test_what_a_config_makes_can_be_made_again(config):
    model = made("--config", config, "--data.root", "none").model
    plain = settings_of(model)
    again = type(model)(**arguments_of(type(model), plain, ()))
    assert settings_of(again) == plain


# ------------------------------------------------------------------ what a checkpoint cannot make


def altered(path, **arguments):
    """The checkpoint with other arguments, as an open file."""
    content = copy.deepcopy(torch.load(path, weights_only=True))
    content["lit_condense"]["arguments"]["init_args"].update(arguments)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return buffer


def named(class_path, **init_args):
    return {"class_path": class_path, "init_args": init_args}


NETWORK, START = f"{__name__}.OwnNetwork", f"{__name__}.OwnStart"
REFUSED = {
    "a function": ("network", named("os.system", command="touch owned"), "not the name of a class"),
    "a function that makes networks": ("network", named("torch.hub.load", repo_or_dir="."), "not the name of a class"),
    "a foreign class": ("init", named("subprocess.Popen", args=["touch", "owned"]), "is no Initialization"),
    "a foreign class as network": ("network", named("subprocess.Popen", args="x"), "is no Module or Optimizer"),
    "of the package, elsewhere": ("init", named("lit_condense.parametrization.pixels.Pixels"), "is no Initialization"),
    "an object as network": ("network", named(START, what="x"), "is no Module or Optimizer"),
    "a network as object": ("init", named(NETWORK), "is no Initialization"),
    "not imported": ("init", named("antigravity.Start"), "import it first"),
    "made in a function": ("network", named("tests.helpers.made.<locals>.Net"), "not the name of a class"),
    "unknown": ("init", named("lit_condense.parametrization.nothing.Nothing"), "not the name of a class"),
    "other arguments": ("init", named(START, what="x", more=1), "does not take"),
    "arguments that were not kept": ("init", named(f"{__name__}.Forgetful"), "does not keep its what"),
    "deeper": (
        "evaluation",
        named("lit_condense.evaluation.Evaluation", networks=[named("os.system")]),
        "not the name",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_nothing_but_the_parts_of_a_set_is_made(everything, kind, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name, plain, said = REFUSED[kind]
    with pytest.raises(CheckpointError, match=said) as refused:
        SyntheticSet.load_from_checkpoint(altered(everything[1], **{name: plain}))
    assert f"load_from_checkpoint(path, {name}=...)" in str(refused.value)
    assert list(tmp_path.iterdir()) == []
    given = {"network": MLP, "init": RandomReal(), "evaluation": Evaluation()}[name]
    loaded = SyntheticSet.load_from_checkpoint(altered(everything[1], **{name: plain}), **{name: given})
    assert getattr(loaded, name) is given


def test_a_factory_that_is_a_function_is_to_be_given(tmp_path):
    _, path = checkpoint(tmp_path, network=own_factory)
    with pytest.raises(CheckpointError, match=r"own_factory is not the name of a class.*network=\.\.\."):
        SyntheticSet.load_from_checkpoint(path)
    assert SyntheticSet.load_from_checkpoint(path, network=own_factory).network is own_factory


def test_arguments_without_annotations_are_told_apart_by_their_class():
    class Own(RandomReal):
        def __init__(self, network, selection, number):
            self.network, self.selection, self.number = network, selection, number

    plain = settings_of(Own(partial(OwnNetwork, width=3), RandomSubset(), 2))
    built = arguments_of(Own, plain, ())
    assert built["network"](1, (8, 8), 2).layers[1].out_features == 3
    assert type(built["selection"]) is RandomSubset
    assert built["number"] == 2
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain


def test_a_class_whose_file_has_moved_is_found_by_the_name_it_was_saved_under():
    with pytest.warns(FutureWarning, match=r"lit_condense\.init\.RandomReal"):
        start = rebuilt({"class_path": "lit_condense.parametrization.initial.RandomReal", "init_args": {}}, RandomReal)
    assert type(start) is RandomReal
