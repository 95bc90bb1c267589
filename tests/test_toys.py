"""A toy of each kind, in a package of its own: nothing in the library knows of it, and a run takes it.

The package is copied out of the checkout and imported from there, as a user's is.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from lit_condense import SelectedSet, load_condensed
from lit_condense.data import Digits
from lit_condense.engine import Engine
from lit_condense.evaluation import Evaluation
from lit_condense.matching import FeatureMatching, quantity
from lit_condense.selection import ProxyTraining
from lit_condense.synthetic import Learnables
from tests.cli_helpers import cli, tiny_config
from tests.helpers import fitted, quiet_trainer, resumed, tiny_convnet

NAME = "toybox"
ON_DIGITS = partial(Digits, train_limit_per_class=10)


@pytest.fixture(autouse=True)
def toys(tmp_path_factory, monkeypatch):
    """Import a module of the package by name."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(Path(__file__).parent / "toys", folder / NAME)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(quantity, "_REGISTERED", dict(quantity._REGISTERED))
    # at the start, not at the end: the parser looks up every class of its kinds, also those of tests before
    for name in [name for name in sys.modules if name.split(".")[0] == NAME]:
        del sys.modules[name]
    return lambda name: importlib.import_module(f"{NAME}.{name}")


def kinds(toys):
    """What a run of each kind is made of: losses, data and settings, each as something that makes it."""
    losses, maps = toys("losses"), toys("maps")
    return {
        "loss": ([losses.SquaredGradients], ON_DIGITS, {}),
        "whole-set loss": ([losses.Lookahead], ON_DIGITS, {"learnables": partial(Learnables, 0.1, 0.05)}),
        "quantity": ([maps.MapMatching], ON_DIGITS, {}),
        "loop with two networks": ([losses.SquaredGradients], ON_DIGITS, {"inner": toys("twins").Twins}),
        "sampling": ([losses.SquaredGradients], ON_DIGITS, {"sampling": toys("queue").Queue}),
        "storage": ([losses.SquaredGradients], ON_DIGITS, {"parametrization": toys("storage").Logistic}),
        "start": ([losses.SquaredGradients], ON_DIGITS, {"init": toys("start").MeanImage}),
        "store": ([losses.SquaredGradients], partial(toys("mapped").MappedDigits, train_limit_per_class=10), {}),
        "all": (
            [losses.SquaredGradients, losses.Lookahead, maps.MapMatching],
            partial(toys("mapped").MappedDigits, train_limit_per_class=10),
            {
                "inner": toys("twins").Twins,
                "sampling": toys("queue").Queue,
                "parametrization": toys("storage").Logistic,
                "init": toys("start").MeanImage,
                "learnables": partial(Learnables, 0.1, 0.05, inner_lr_rate=1e-4),
            },
        ),
    }


KINDS = (
    "loss",
    "whole-set loss",
    "quantity",
    "loop with two networks",
    "sampling",
    "storage",
    "start",
    "store",
    "all",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_takes_it_and_goes_on_after_a_break(kind, toys, tmp_path):
    assert tuple(kinds(toys)) == KINDS
    losses, data, settings = kinds(toys)[kind]
    eager = {"engine": partial(Engine, "exact", "never"), "ipc": lambda: 1}
    straight, on = resumed(tmp_path, 3, 4, *losses, data=data, **eager, **settings)
    for name, tensor in straight.synthetic_data.held().items():
        assert torch.equal(tensor, on.synthetic_data.held()[name]), name


@pytest.mark.parametrize("kind", ["all", "quantity", "loop with two networks"])
def test_neither_the_order_of_losses_nor_the_size_of_blocks_matters(kind, toys):
    losses, data, settings = kinds(toys)[kind]

    def gradient(blocks, step):
        made = [make() for make in [*losses, FeatureMatching][::step]]
        own = {name: make() for name, make in settings.items()}
        module = fitted(
            *made, data=data(), max_steps=1, engine=Engine("exact", "never", classes_per_block=blocks), **own
        )
        return module.images.grad

    one = gradient(1, 1)
    for blocks, step in ((4, 1), (10, -1)):
        torch.testing.assert_close(gradient(blocks, step), one, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


def test_a_store_in_a_file_gives_the_set_of_the_one_in_memory(toys):
    losses, mapped, _ = kinds(toys)["store"]
    in_file, in_memory = (fitted(losses[0](), data=data(), ipc=1) for data in (mapped, ON_DIGITS))
    assert torch.equal(in_file.images, in_memory.images)
    accuracies = [module.evaluate().condensed[0].accuracies for module in (in_file, in_memory)]
    assert accuracies[0] == accuracies[1]


def test_a_selection_is_taken(toys):
    judged = Evaluation("coreset", epochs=1, quick_repeats=1, repeats=1, full_data_steps=0, baselines=[])
    module = SelectedSet(
        toys("chosen").Surest(), ipc=2, network=tiny_convnet(), proxy=ProxyTraining(epochs=1), evaluation=judged, seed=0
    )
    quiet_trainer(max_steps=-1).fit(module, datamodule=ON_DIGITS())
    real = module.data.real
    assert module.counts == [2] * 10
    assert real.labels_at(module.indices).tolist() == [c for c in range(10) for _ in range(2)]


def test_the_command_line_takes_all_by_class_path_and_goes_on(toys, tmp_path):
    def config(name):
        plain = tiny_config(
            tmp_path,
            name,
            inner={"class_path": f"{NAME}.twins.Twins"},
            sampling={"class_path": f"{NAME}.queue.Queue"},
            parametrization={"class_path": f"{NAME}.storage.Logistic"},
            init={"class_path": f"{NAME}.start.MeanImage"},
            learnables={"label_lr": 0.1, "inner_lr": 0.05},
        )
        own = [f"{NAME}.maps.MapMatching", f"{NAME}.losses.Lookahead", f"{NAME}.losses.SquaredGradients"]
        plain["trainer"]["callbacks"][:1] = [{"class_path": path} for path in own]
        plain["data"]["class_path"] = f"{NAME}.mapped.MappedDigits"
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(plain))
        return "--config", str(path)

    cli("fit", *config("straight"))
    cli("fit", *config("broken"), "--trainer.max_steps", "3")
    cli("fit", *config("broken"), "--ckpt_path", "last")
    one, other = (load_condensed(tmp_path / name) for name in ("straight", "broken"))
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.soft_labels, other.soft_labels)
    assert one.card["method"]["matching"]["MapMatching"]["class_path"] == f"{NAME}.maps.MapMatching"
    assert one.inner_lr == pytest.approx(0.05)
