from __future__ import annotations

import copy
import functools
import importlib
import inspect
import json
import sys
from pathlib import Path

import pytest
import torch

from lit_condense import SyntheticSet
from lit_condense.augmentation import AlwaysOn, CutMix, EvaluationAugmentation, NoAugmentation, OneOf
from lit_condense.callbacks import Dashboard, FinalReport
from lit_condense.data import ArrayFile, Digits, ImageFolder, Normalization
from lit_condense.engine import Engine
from lit_condense.errors import SettingsError, check_least
from lit_condense.evaluation import Evaluation
from lit_condense.init import Noise, RandomReal
from lit_condense.inner import TrainOnSynthetic
from lit_condense.matching import GradientMatching
from lit_condense.networks import MLP, ConvNet
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.sampling import RandomSampling
from lit_condense.settings import canonical, differences, flat, settings_of, with_new_defaults

CONFIGURABLE = [
    AlwaysOn,
    CutMix,
    Dashboard,
    Digits,
    Engine,
    Evaluation,
    EvaluationAugmentation,
    FinalReport,
    GradientMatching,
    NoAugmentation,
    Noise,
    OneOf,
    Pixels,
    RandomReal,
    RandomSampling,
    SyntheticSet,
    TrainOnSynthetic,
    functools.partial(ArrayFile, "images.npz"),
    functools.partial(ImageFolder, "images"),
]


def class_of(factory):
    return factory.func if isinstance(factory, functools.partial) else factory


@pytest.mark.parametrize("factory", CONFIGURABLE, ids=lambda f: class_of(f).__name__)
def test_every_constructor_argument_can_be_read_back(factory):
    cls = class_of(factory)
    settings = settings_of(factory())
    names = [] if cls.__init__ is object.__init__ else list(inspect.signature(cls).parameters)
    module, _, name = settings["class_path"].rpartition(".")
    assert getattr(importlib.import_module(module), name) is cls
    assert module.count(".") <= 1, "a class of the library is named as its room exports it"
    assert sorted(settings["init_args"]) == sorted(names)
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "dc"])
def test_plain_values_stay_as_they_are(value):
    assert settings_of(value) is value


def test_containers_become_lists_and_dictionaries_with_text_keys():
    assert settings_of({1: (2, [3.0, None]), "path": Path("a") / "b"}) == {"1": [2, [3.0, None]], "path": "a/b"}


def test_data_classes_become_their_fields():
    assert settings_of(Normalization((0.5,), (0.25,))) == {"mean": [0.5], "std": [0.25]}


def test_arguments_are_read_from_the_object():
    settings = settings_of(TrainOnSynthetic(updates=3, lr=0.5))
    assert settings["class_path"] == "lit_condense.inner.TrainOnSynthetic"
    assert settings["init_args"]["updates"] == 3
    assert settings["init_args"]["lr"] == 0.5
    assert settings["init_args"]["epochs"] is None


def test_a_default_written_out_is_no_difference():
    assert settings_of(ConvNet) == settings_of(functools.partial(ConvNet, width=128, depth=3))
    assert settings_of(ConvNet) != settings_of(functools.partial(ConvNet, width=64))
    assert settings_of(ConvNet)["init_args"]["norm"] == "instance"
    optimizer = functools.partial(torch.optim.SGD, lr=0.1)
    assert settings_of(optimizer) == settings_of(functools.partial(torch.optim.SGD, lr=0.1, momentum=0))


def test_nested_objects_are_read_through():
    settings = settings_of(Evaluation(networks=[MLP, functools.partial(ConvNet, norm="batch")]))
    assert [n["class_path"] for n in settings["init_args"]["networks"]] == [
        "lit_condense.networks.MLP",
        "lit_condense.networks.ConvNet",
    ]


def test_flat_names_every_leaf_by_its_path():
    plain = {"a": {"b": 1, "c": {"d": [2, 3]}}, "e": None, "f": {}}
    assert dict(flat(plain)) == {"a.b": 1, "a.c.d": [2, 3], "e": None, "f": {}}


def test_equal_settings_have_no_differences():
    assert differences({"a": {"b": 1}}, {"a": {"b": 1}}) == []


def test_each_difference_names_the_setting_and_both_values():
    before = {"model": {"ipc": 1, "seed": 0}, "gone": True}
    now = {"model": {"ipc": 10, "seed": 0, "new": "x"}}
    lines = differences(before, now)
    assert len(lines) == 3
    assert "model.ipc: 1 then, 10 now" in lines
    assert any(line.startswith("gone: True then") and "absent" in line for line in lines)
    assert any(line.startswith("model.new:") and "'x' now" in line for line in lines)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("lit_condense.parametrization.initial.RandomReal", "lit_condense.init.RandomReal"),  # before its room moved
        ("lit_condense.selection.adacore.AdaCore", "lit_condense.selection.AdaCore"),
        ("lit_condense.parametrization.pixels.Pixels", "lit_condense.parametrization.Pixels"),
        ("torch.optim.sgd.SGD", "torch.optim.SGD"),
        ("lit_condense.nothing.Nothing", "lit_condense.nothing.Nothing"),
        ("os.system", "os.system"),
    ],
)
def test_a_name_that_an_earlier_version_wrote_is_the_present_one(written, path):
    assert canonical(written) == path
    before, now = ({"init": {"class_path": name, "init_args": {}}} for name in (written, path))
    assert differences(before, now) == []
    assert differences(before, {"init": {"class_path": "lit_condense.init.Noise", "init_args": {}}})


def test_comparing_imports_nothing_that_a_file_names():
    assert canonical("this.Zen") == "this.Zen"
    assert "this" not in sys.modules


def test_an_option_that_came_later_is_no_difference_while_it_has_its_default():
    now = {"model": {"storage": settings_of(MultiFormation(3))}}
    older = copy.deepcopy(now)
    del older["model"]["storage"]["init_args"]["order"], older["model"]["storage"]["init_args"]["shrinking"]
    assert len(differences(older, now)) == 2
    assert differences(with_new_defaults(older, now), now) == []
    now["model"]["storage"]["init_args"]["order"] = "column"
    (line,) = differences(with_new_defaults(older, now), now)
    assert line == "model.storage.init_args.order: '(absent)' then, 'column' now"


def test_what_is_not_of_this_library_has_no_defaults_that_are_known():
    older = {"a": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1}}, "b": {"class_path": "os.nothing"}}
    now = {"a": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1, "momentum": 0}}, "b": {"init_args": {"c": 1}}}
    assert with_new_defaults(older, now) == older


@pytest.mark.parametrize(
    "path", ["lit_condense.matching.gone.Gone", "lit_condense_ext.Loss", "lit_condense.matching.Gone"]
)
def test_a_class_that_is_gone_is_a_difference_and_no_error(path):
    older = {"class_path": path, "init_args": {"a": 1}}
    now = {"class_path": path, "init_args": {"a": 1, "b": 2}}
    assert differences(with_new_defaults(older, now), now) == ["init_args.b: '(absent)' then, 2 now"]


def test_options_of_classes_in_lists_are_filled_in_too():
    now = [settings_of(MultiFormation(3)), 1]
    older = copy.deepcopy(now)
    del older[0]["init_args"]["order"]
    assert with_new_defaults(older, now) == now


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_numbers_that_are_too_small_or_not_finite_are_refused_by_name(value):
    with pytest.raises(SettingsError, match=f"Expected Thing.second to be 1 or more, got {value}"):
        check_least("Thing", 1, first=None, second=value, third=1)
    check_least("Thing", 1, first=None, second=1, third=2.5)
