from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys

import pytest
import torch
import yaml

import lit_condense.selection
from lit_condense import SyntheticSet, load_condensed
from lit_condense.cli import main
from lit_condense.evaluation.several import Trainings
from lit_condense.inner import InnerNetwork
from lit_condense.selection import Selection
from lit_condense.settings import flat
from tests.cli_helpers import REPOSITORY, card_of, cli, untouched_process, write_arrays

CONFIGS = sorted((REPOSITORY / "configs").rglob("*.yaml"))
SELECTING = [path for path in CONFIGS if path.parent.name == "selection"]
CONDENSING = [path for path in CONFIGS if path not in SELECTING]
CLASSES = 3
UPDATES, PER_NETWORK, VALIDATE_EVERY = 12, 4, 6
SMALL = {
    "network": {"width": 4},
    "inner": {"updates": PER_NETWORK, "epochs": 1, "most_epochs": 1, "images": 8},
    "sampling": {"batch_size": 4},
    "evaluation": {"repeats": 1, "quick_repeats": 1, "epochs": 1, "full_data_steps": 2},
}
"""What makes a run short: for each axis, the values of those settings that its class has."""
MOST_IMAGES = 50
"""Images per class in a short run at most."""


def test_there_are_configs():
    assert REPOSITORY / "configs" / "quickstart.yaml" in CONFIGS
    assert len(CONFIGS) >= 17


def classes_of(path):
    """The classes that a config is made of, apart from its data set."""
    named = re.findall(r"class_path: (\S+)", path.read_text())
    return tuple(sorted({name for name in named if not name.startswith("lit_condense.data.")}))


def first_of_its_kind(paths):
    """One config for every combination of classes; MNIST's where there is one, because its images are small."""
    kinds = {}
    for path in sorted(paths, key=lambda path: (not path.stem.startswith("mnist"), path)):
        kinds.setdefault(classes_of(path), path)
    return set(kinds.values())


def each(paths):
    """By default one config of a kind; all the others, which differ in numbers only, among the slow tests."""
    quick = first_of_its_kind(paths)
    marked = [pytest.param(path, marks=[] if path in quick else pytest.mark.slow) for path in paths]
    return pytest.mark.parametrize("path", marked, ids=[f"{path.parent.name}-{path.stem}" for path in paths])


every_config = each(CONFIGS)


def class_of(node):
    module, name = node["class_path"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def printed(capsys, path):
    capsys.readouterr()
    with untouched_process(), pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(path), "--print_config"])
    assert stopped.value.code in (0, None)
    return capsys.readouterr().out


@every_config
def test_printing_a_config_and_reading_it_again_changes_nothing(path, tmp_path, capsys):
    first = printed(capsys, path)
    (tmp_path / "printed.yaml").write_text(first)
    assert printed(capsys, tmp_path / "printed.yaml") == first
    given, full = dict(flat(yaml.safe_load(path.read_text()))), dict(flat(yaml.safe_load(first)))
    written, read = given.pop("trainer.callbacks"), full.pop("trainer.callbacks")
    given = {name: value for name, value in given.items() if value != {}}
    assert {name: full[name] for name in given} == given
    assert len(written) == len(read)
    for one, other in zip(written, read, strict=True):
        assert one["class_path"] == other["class_path"]
        assert one.get("init_args", {}).items() <= other["init_args"].items()


def shape_of(node):
    return (1, 8, 8) if node["class_path"].endswith("Digits") else class_of(node).shape


def short_run(path, tmp_path):
    """The command line of a short run of a config on generated images of the same shape."""
    config = yaml.safe_load(path.read_text())
    init, data = config["model"]["init_args"], config["data"]
    ipc = min(init["ipc"], MOST_IMAGES)
    needed = ipc * (1 if "Noise" in init["init"]["class_path"] else 4)  # some begin from real images
    args = ["fit", "--config", str(path)]
    args += write_arrays(tmp_path / "images.npz", shape_of(data), CLASSES, per_class=max(8, needed + 1))
    family = data.get("init_args", {}).get("normalization", "measured")
    args += ["--data.name", class_of(data).dataset_name, "--data.normalization", family]
    args += ["--model.init_args.ipc", str(ipc)]
    for axis, values in SMALL.items():
        known = inspect.signature(class_of(init[axis])).parameters
        for name, value in values.items():
            if name in known:
                args += [f"--model.init_args.{axis}.init_args.{name}", str(value)]
    args += ["--trainer.max_steps", str(UPDATES), "--trainer.val_check_interval", str(VALIDATE_EVERY)]
    return config, [*args, "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


class Record:
    """What a run did: networks made, steps they were trained, images before each update, evaluation trainings."""

    def __init__(self, monkeypatch):
        self.networks, self.steps, self.images, self.trained = [], 0, [], []
        renew, train_step, update = InnerNetwork.renew, InnerNetwork.train_step, SyntheticSet.training_step
        accuracies = Trainings.accuracies

        def recorded_renew(inner, index):
            self.networks.append(index)
            renew(inner, index)

        def recorded_step(*args):
            self.steps += 1
            return train_step(*args)

        def recorded_update(module, batch, batch_idx):
            self.images.append(module.images.detach().clone())
            return update(module, batch, batch_idx)

        def recorded_accuracies(trainings, keys, sets):
            self.trained += [(len(data.labels), trainings.max_steps) for data in sets]
            return accuracies(trainings, keys, sets)

        monkeypatch.setattr(InnerNetwork, "renew", recorded_renew)
        monkeypatch.setattr(InnerNetwork, "train_step", recorded_step)
        monkeypatch.setattr(SyntheticSet, "training_step", recorded_update)
        monkeypatch.setattr(Trainings, "accuracies", recorded_accuracies)


@each(CONDENSING)
def test_a_config_condenses_renews_its_network_trains_it_and_is_evaluated(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # the configs write below the folder they are called from
    config, args = short_run(path, tmp_path)
    record = Record(monkeypatch)
    done = cli(*args)

    networks = UPDATES // done.model.updates_per_network  # PER_NETWORK, or UPDATES where every update has its own
    assert record.networks == list(range(networks))
    assert len(record.images) == UPDATES
    after = [*record.images[1:], done.model.images.detach()]
    assert not any(torch.equal(before, now) for before, now in zip(record.images, after, strict=True))
    assert record.steps >= UPDATES - networks  # after every update but a network's last
    kept, every = len(done.model.training_set().labels), len(done.datamodule.real)
    quick = UPDATES // VALIDATE_EVERY
    assert record.trained == [(kept, None)] * (quick + 3) + [(every, 2)]  # quick, final, start, random; all real images

    report = next(c["init_args"] for c in config["trainer"]["callbacks"] if c["class_path"].endswith("FinalReport"))
    images, _, card = load_condensed(report["folder"])
    assert bool(images.isfinite().all())
    assert images.shape == (kept, *shape_of(config["data"]))
    assert card_of(report["folder"])["update"] == UPDATES
    judged, tested = card["evaluation"], len(done.datamodule.test)
    for score in (judged["baselines"]["random"], judged["all_real_short"], *judged["condensed"]):
        (accuracy,) = score["accuracies"]
        assert accuracy == score["accuracy_mean"]
        assert accuracy * tested == pytest.approx(round(accuracy * tested))  # so many test images were right
    assert "Test accuracy on" in capsys.readouterr().out
    saving = next(c["init_args"] for c in config["trainer"]["callbacks"] if "ModelCheckpoint" in c["class_path"])
    assert (tmp_path / saving["dirpath"] / "last.ckpt").is_file()
    log = config["trainer"]["logger"]["init_args"]
    assert list((tmp_path / log["save_dir"] / log["name"]).glob("events.out.tfevents*"))


def short_selection(path, tmp_path):
    """The command line of a short run of a selection's config on generated images of the same shape."""
    config = yaml.safe_load(path.read_text())
    init, data = config["model"]["init_args"], config["data"]
    args = ["fit", "--config", str(path)]
    args += write_arrays(tmp_path / "images.npz", shape_of(data), CLASSES, per_class=12)
    args += ["--data.name", class_of(data).dataset_name, "--data.normalization", data["init_args"]["normalization"]]
    args += ["--model.init_args.fraction", "0.25", "--model.init_args.network", "lit_condense.networks.ConvNet"]
    args += ["--model.init_args.network.init_args.width", "4", "--model.init_args.scoring.init_args.batch_size", "16"]
    args += ["--model.init_args.scoring.init_args.epochs", "2"]
    if "networks" in inspect.signature(class_of(init["selection"])).parameters:
        args += ["--model.init_args.selection.init_args.networks", "2"]
    for name, value in SMALL["evaluation"].items():
        args += [f"--model.init_args.evaluation.init_args.{name}", str(value)]
    return config, [*args, "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


@each(SELECTING)
def test_a_config_trains_its_scoring_networks_and_selects(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config, args = short_selection(path, tmp_path)
    done = cli(*args)
    assert done.trainer.global_step == done.model.selection.networks * 2 * 3  # epochs, batches of 36 images
    report = next(c["init_args"] for c in config["trainer"]["callbacks"] if c["class_path"].endswith("FinalReport"))
    images, labels, card = load_condensed(report["folder"])
    assert torch.bincount(labels).tolist() == [3] * CLASSES
    indices = card["selected"]["indices"]
    assert len(set(indices)) == len(indices) == 9
    assert torch.equal(images, done.datamodule.real.pixels_at(torch.tensor(indices)))
    assert "selected, 9 images" in capsys.readouterr().out
    saving = next(c["init_args"] for c in config["trainer"]["callbacks"] if "ModelCheckpoint" in c["class_path"])
    assert (tmp_path / saving["dirpath"] / "last.ckpt").is_file()


def test_every_selection_has_its_config():
    methods = {class_of(yaml.safe_load(p.read_text())["model"]["init_args"]["selection"]) for p in SELECTING}
    offered = [getattr(lit_condense.selection, name) for name in lit_condense.selection.__all__]
    concrete = {c for c in offered if isinstance(c, type) and issubclass(c, Selection) and not inspect.isabstract(c)}
    assert methods == concrete


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_config_is_whole_and_agrees_with_itself(path):
    text = path.read_text()
    config = yaml.safe_load(text)
    trainer, init = config["trainer"], config["model"]["init_args"]
    assert list(config) == ["seed_everything", "trainer", "model", "data", "ckpt_path"]
    assert trainer["num_sanity_val_steps"] == 0
    assert trainer["check_val_every_n_epoch"] is None
    assert isinstance(trainer["val_check_interval"], int)
    saving = next(c["init_args"] for c in trainer["callbacks"] if "ModelCheckpoint" in c["class_path"])
    assert (saving["monitor"], saving["mode"], saving["save_last"]) == ("step", "max", True)
    assert saving["dirpath"]
    if path in SELECTING:
        assert trainer["max_epochs"] == -1
        return
    inner = class_of(init["inner"])(**init["inner"].get("init_args", {}))
    per_network = inner.updates_per_network([init["ipc"]] * 10)
    assert trainer["max_steps"] % per_network == 0
    said = re.search(r"(\d+) networks x (\d+) update\(s\) = (\d+) image updates", text)
    if path.parent.name == "dc":
        assert [int(number) for number in said.groups()] == [
            trainer["max_steps"] // per_network,
            per_network,
            trainer["max_steps"],
        ]


def test_the_script_writes_exactly_the_files_that_are_there():
    spec = importlib.util.spec_from_file_location("make_configs", REPOSITORY / "scripts" / "make_configs.py")
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script  # its dataclass looks itself up
    spec.loader.exec_module(script)
    del sys.modules[spec.name]
    written = script.files()
    assert {path: path.read_text() for path in written} == written
    folders = {path.parent for path in written}
    assert {path for path in CONFIGS if path.parent in folders} == set(written)
