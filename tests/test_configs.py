from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml

import lit_condense.selection
from lit_condense import SyntheticSet, load_condensed
from lit_condense.cli.shipped import read, shipped
from lit_condense.data import Digits
from lit_condense.evaluation.published import figure, published
from lit_condense.evaluation.several import Trainings
from lit_condense.experts import Experts
from lit_condense.inner import InnerNetwork, Pool
from lit_condense.selection import Selection
from lit_condense.settings import flat
from tests.cli_helpers import REPOSITORY, card_of, cli, printed, write_arrays

CONFIGS = sorted(shipped().values())
SELECTING = [path for path in CONFIGS if path.parent.name == "selection"]
RECORDING = [path for path in CONFIGS if path.parent.name == "experts"]
CONDENSING = [path for path in CONFIGS if path not in [*SELECTING, *RECORDING]]
TRAJECTORIES = ("mtt", "ftd", "tesla", "datm")
WITHOUT_DATA = [path for path in CONFIGS if path.stem.startswith("base") or "tinyimagenet" in path.stem]
"""Their data are given on the command line; tests/cli/test_shipped.py reads base files."""
RUNNABLE = [path for path in CONFIGS if path not in WITHOUT_DATA]
CLASSES = 3
UPDATES, PER_NETWORK, VALIDATE_EVERY = 12, 4, 6
SMALL = {
    "network": {"width": 4},
    "inner": {"updates": PER_NETWORK, "every": PER_NETWORK, "epochs": 1, "most_epochs": 1, "images": 8, "steps": 1},
    "sampling": {"batch_size": 4},
    "evaluation": {"repeats": 1, "quick_repeats": 1, "epochs": 1, "full_data_steps": 2},
}
"""What makes a run short: for each axis, the values of those settings that its class has."""
MOST_IMAGES = 50
"""Images per class in a short run at most."""


def test_there_are_configs_and_they_are_short():
    assert REPOSITORY / "configs" / "quickstart.yaml" in CONFIGS
    lines = [len(path.read_text().splitlines()) for path in CONFIGS]
    assert max(lines) <= 25
    assert sum(lines) / len(lines) <= 25


def test_no_config_names_a_place():
    for path in CONFIGS:
        assert not re.search(r"runs/|dirpath|save_dir|folder:|root:", path.read_text()), path


def read_file(path):
    """A config with every class written out."""
    return read(path.relative_to(REPOSITORY / "configs").with_suffix("").as_posix())


def method_of(path):
    """The method of a condensing config, and the class of a selection's."""
    return read_file(path)["model"]["init_args"]["selection"]["class_path"] if path in SELECTING else path.parent.name


def each(paths, kind=method_of):
    """By default one config of a kind, MNIST's where there is one: its images are small. All others are slow tests."""
    quick = {}
    for path in sorted(paths, key=lambda path: (not path.stem.startswith("mnist"), path)):
        quick.setdefault(kind(path), path)
    marked = [pytest.param(path, marks=[] if path in quick.values() else pytest.mark.slow) for path in paths]
    return pytest.mark.parametrize("path", marked, ids=[f"{path.parent.name}-{path.stem}" for path in paths])


every_config = each(RUNNABLE, kind=lambda path: path.parent.name)


ROOMS = (
    "data",
    "synthetic",
    "init",
    "inner",
    "sampling",
    "parametrization",
    "augmentation",
    "networks",
    "evaluation",
    "selection",
)


def class_of(node):
    """The class of a short name or a path."""
    module, _, name = node["class_path"].rpartition(".")
    places = [module] if module else [f"lit_condense.{room}" for room in ROOMS]
    return next(found for place in places if (found := getattr(importlib.import_module(place), name, None)))


@every_config
def test_printing_a_config_and_reading_it_again_changes_nothing(path, tmp_path, capsys):
    first = printed(capsys, "fit", "--config", path)
    (tmp_path / "printed.yaml").write_text(first)
    assert printed(capsys, "fit", "--config", tmp_path / "printed.yaml") == first
    given, full = dict(flat(read_file(path))), dict(flat(yaml.safe_load(first)))
    written, read_back = given.pop("trainer.callbacks"), full.pop("trainer.callbacks") or []
    settings = {name: value for name, value in given.items() if value != {} and not name.endswith("class_path")}
    by_name = {"model.init_args.evaluation.init_args.augmentation"} & set(settings) - set(
        full
    )  # a class without settings
    assert {name: full[name] for name in settings if name not in by_name} == {
        name: value for name, value in settings.items() if name not in by_name
    }
    assert len(written) == len(read_back)
    for one, other in zip(written, read_back, strict=True):
        assert other["class_path"].endswith(one["class_path"])
        assert one["init_args"].items() <= other["init_args"].items()


def shape_of(node):
    return (1, 8, 8) if node["class_path"].endswith("Digits") else class_of(node).shape


def data_args(path, config, tmp_path, per_class):
    """Generated images of the shape of a config's data; whitening them is not what is tested here."""
    data = config["data"]
    family = data["init_args"].get("normalization", "measured" if class_of(data) is Digits else "dc")
    args = write_arrays(tmp_path / "images.npz", shape_of(data), CLASSES, per_class=per_class)
    family = "measured" if family == "zca" else family
    return [*args, "--data.name", class_of(data).dataset_name, "--data.normalization", family]


QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


def record_experts(path, config, tmp_path, per_class):
    """Record two small experts where a config looks for them."""
    (matching,) = config["trainer"]["callbacks"]
    experts = REPOSITORY / "configs" / "experts" / f"{matching['init_args']['experts']}.yaml"
    args = ["fit", "--config", str(experts), *data_args(path, config, tmp_path, per_class), *QUIET]
    return cli(*args, "--model.init_args.experts", "2", *small_network(read_file(experts)))


def small_network(config):
    network = config["model"]["init_args"]["network"]
    args = ["--model.init_args.network", network["class_path"]]
    for name, value in {**network["init_args"], "width": 4}.items():
        args += [f"--model.init_args.network.init_args.{name}", str(value)]
    return args


def short_run(path, tmp_path):
    """The command line of a short run of a config on generated images of the same shape."""
    config = read_file(path)
    init = config["model"]["init_args"]
    ipc = min(init["ipc"], MOST_IMAGES)
    needed = ipc * (4 if "init" in init else 1)  # some begin from real images
    per_class = max(8, needed + 1)
    if path.parent.name in TRAJECTORIES:
        record_experts(path, config, tmp_path, per_class)
    args = ["fit", "--config", str(path), *data_args(path, config, tmp_path, per_class)]
    args += ["--model.init_args.ipc", str(ipc)]
    if "learnables" in init:  # published rates are for large networks
        args += ["--model.init_args.learnables.init_args.inner_lr_rate", "1e-9"]
    for axis, values in SMALL.items():
        known = inspect.signature(class_of(init[axis])).parameters
        args += [f"--model.init_args.{axis}", init[axis]["class_path"]]
        for name, value in {**init[axis]["init_args"], **values}.items():
            if name in known:
                args += [f"--model.init_args.{axis}.init_args.{name}", str(value)]
    args += ["--trainer.max_steps", str(UPDATES), "--trainer.val_check_interval", str(VALIDATE_EVERY)]
    return config, [*args, *QUIET]


class Record:
    """What a run did: networks made, steps they were trained, images before each update, evaluation trainings."""

    def __init__(self, monkeypatch):
        self.networks, self.steps, self.images, self.trained = [], 0, [], []
        renew, train, update = InnerNetwork.renew, InnerNetwork.logits_of_step, SyntheticSet.training_step
        accuracies = Trainings.accuracies

        def recorded_renew(inner, index):
            self.networks.append(index)
            renew(inner, index)

        def recorded_step(*args):
            self.steps += 1
            return train(*args)

        def recorded_update(module, batch, batch_idx):
            self.images.append(module.images.detach().clone())
            return update(module, batch, batch_idx)

        def recorded_accuracies(trainings, keys, sets):
            self.trained += [(len(data.labels), trainings.max_steps) for data in sets]
            return accuracies(trainings, keys, sets)

        monkeypatch.setattr(InnerNetwork, "renew", recorded_renew)
        monkeypatch.setattr(InnerNetwork, "logits_of_step", recorded_step)
        monkeypatch.setattr(SyntheticSet, "training_step", recorded_update)
        monkeypatch.setattr(Trainings, "accuracies", recorded_accuracies)


@each([path for path in CONDENSING if path in RUNNABLE])
def test_a_config_condenses_renews_its_network_trains_it_and_is_evaluated(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # runs go below the folder they are called from
    config, args = short_run(path, tmp_path)
    record = Record(monkeypatch)
    done = cli(*args)

    # one every PER_NETWORK updates, or every update, and those that a pool begins with
    networks = max(done.model.inner.alive(UPDATES - 1, done.model.updates_per_network)) + 1
    assert record.networks == list(range(networks))
    assert len(record.images) == UPDATES
    after = [*record.images[1:], done.model.images.detach()]
    moved = [not torch.equal(before, now) for before, now in zip(record.images, after, strict=True)]
    assert sum(moved) == UPDATES - done.model.held_back
    assert all(moved) or path.parent.name == "datm"  # whose loss may stay above its threshold on noise
    assert record.steps >= UPDATES - networks  # after every update but a network's last
    kept, every = len(done.model.training_set().labels), len(done.datamodule.real)
    quick = UPDATES // VALIDATE_EVERY
    final = 4 if "average" in config["model"]["init_args"] else 3  # the set, its average, its start, random images
    assert record.trained == [(kept, None)] * (quick + final) + [(every, 2)]  # and all real images

    folder = folder_of(path, tmp_path)
    images, _, card = load_condensed(folder)
    assert bool(images.isfinite().all())
    assert images.shape == (kept, *shape_of(config["data"]))
    assert card_of(folder)["update"] == UPDATES
    judged, tested = card["evaluation"], len(done.datamodule.test)
    for score in (judged["baselines"]["random"], judged["all_real_short"], *judged["condensed"]):
        (accuracy,) = score["accuracies"]
        assert accuracy == score["accuracy_mean"]
        assert accuracy * tested == pytest.approx(round(accuracy * tested))  # so many test images were right
    assert "Test accuracy on" in capsys.readouterr().out
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert list(folder.glob("events.out.tfevents*"))


@each([path for path in RECORDING if path in RUNNABLE], kind=lambda path: path.stem.partition("_")[2])
def test_a_config_records_experts(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = read_file(path)
    args = ["fit", "--config", str(path), *data_args(path, config, tmp_path, 8), *QUIET, *small_network(config)]
    done = cli(*args, "--model.init_args.experts", "2", "--model.init_args.epochs", "3")
    experts = Experts(path.stem)
    assert experts.folder == Path("runs/experts") / path.stem
    assert (len(experts), experts.epochs) == (2, 3)
    assert (
        experts.file(1)
        .card["made_with"]["training"]["optimizer"]["class_path"]
        .endswith(("GSAM",) if "gsam" in path.stem else ("SGD",))
    )
    assert done.trainer.global_step > 0
    assert not list(tmp_path.rglob("*.ckpt"))


def folder_of(path, tmp_path):
    """Where the first run of a config goes."""
    return tmp_path / "runs" / path.relative_to(REPOSITORY / "configs").with_suffix("") / "version_0"


def short_selection(path, tmp_path):
    """The command line of a short run of a selection's config on generated images of the same shape."""
    config = read_file(path)
    init, data = config["model"]["init_args"], config["data"]
    args = ["fit", "--config", str(path)]
    args += write_arrays(tmp_path / "images.npz", shape_of(data), CLASSES, per_class=12)
    args += ["--data.name", class_of(data).dataset_name, "--data.normalization", data["init_args"]["normalization"]]
    args += ["--model.init_args.fraction", "0.25", "--model.init_args.network", "lit_condense.networks.ConvNet"]
    args += ["--model.init_args.network.init_args.width", "4", "--model.init_args.proxy.init_args.batch_size", "16"]
    args += ["--model.init_args.proxy.init_args.epochs", "2"]
    if "networks" in inspect.signature(class_of(init["selection"])).parameters:
        args += ["--model.init_args.selection.init_args.networks", "2"]
    for name, value in SMALL["evaluation"].items():
        args += [f"--model.init_args.evaluation.init_args.{name}", str(value)]
    return config, [*args, *QUIET]


@each([path for path in SELECTING if path.stem != "base"])
def test_a_config_trains_its_proxy_models_and_selects(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, args = short_selection(path, tmp_path)
    done = cli(*args)
    assert done.trainer.global_step == done.model.selection.networks * 2 * 3  # epochs, batches of 36 images
    folder = folder_of(path, tmp_path)
    images, labels, card = load_condensed(folder)
    assert torch.bincount(labels).tolist() == [3] * CLASSES
    indices = card["selected"]["indices"]
    assert len(set(indices)) == len(indices) == 9
    assert torch.equal(images, done.datamodule.real.pixels_at(torch.tensor(indices)))
    assert "selected, 9 images" in capsys.readouterr().out
    assert (folder / "checkpoints" / "last.ckpt").is_file()


def test_every_selection_has_its_config():
    methods = {class_of(read_file(path)["model"]["init_args"]["selection"]) for path in SELECTING}
    offered = [getattr(lit_condense.selection, name) for name in lit_condense.selection.__all__]
    concrete = {c for c in offered if isinstance(c, type) and issubclass(c, Selection) and not inspect.isabstract(c)}
    assert methods == concrete


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_header_says_what_the_file_holds(path):
    text, config = path.read_text(), read_file(path)
    above = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# "))
    if path.stem == "quickstart":
        return
    if path in RECORDING:
        experts = config["model"]["init_args"]
        assert f"{experts['experts']} networks x {experts['epochs']} epochs" in above
        return
    if path in SELECTING:
        assert "No figure" in above or "Published" in above or path.stem == "base"
        return
    trainer, init = config["trainer"], config["model"]["init_args"]
    inner = class_of(init["inner"])(**init["inner"]["init_args"])
    per_network = inner.updates_per_network([init["ipc"]] * 10)
    numbers = lambda words: [int(n.replace(",", "")) for n in re.search(words, above).groups()]  # noqa: E731
    if isinstance(inner, Pool):
        assert numbers(r"([\d,]+) updates, a new network in the pool every (\d+)\.") == [
            trainer["max_steps"],
            per_network,
        ]
    else:
        said = numbers(r"([\d,]+) networks x (\d+) updates = ([\d,]+) updates")
        assert said == [trainer["max_steps"] // per_network, per_network, trainer["max_steps"]]
    if path.stem != "base":
        known = figure(path.parent.name, path.stem.split("_")[0], init["ipc"])
        named = re.search(r"Published: (.*?) % \(protocol (\w+)\)", above)
        assert (named is None) == ("No figure: " in above)
        if named:
            assert (named[1], named[2]) == (known, init["evaluation"]["init_args"].get("protocol", "dc"))


def test_every_published_row_has_its_file_and_every_figure_stands_once():
    table = published()
    for method, rows in table.items():
        for dataset, cells in rows.get("accuracy", {}).items() if method != "whole" else ():
            for ipc in cells:
                assert f"{method}/{dataset}_ipc{ipc}" in shipped()
    for name in ("scripts", "benchmarks"):
        for path in (REPOSITORY / name).rglob("*.py"):
            assert not re.search(r"\d\d\.\d{1,2} \+- \d", path.read_text()), path


def test_the_script_writes_exactly_the_files_that_are_there(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    written = {
        REPOSITORY / "configs" / path: text for path, text in importlib.import_module("make_configs").files().items()
    }
    assert {path: path.read_text() for path in written} == written
    folders = {path.parent for path in written}
    assert {path for path in CONFIGS if path.parent in folders} == set(written)
