from __future__ import annotations

import functools
import math
import os
import signal

import numpy as np
import pytest
import torch
import yaml

from lit_condense import SyntheticSet, load_condensed
from lit_condense.cli import main
from lit_condense.errors import SettingsError
from lit_condense.matching import GradientMatching
from tests.cli_helpers import (
    card_of,
    checkpoint_of,
    cli,
    refusal,
    tiny_config,
    untouched_process,
    write_arrays,
    write_config,
)
from tests.fake_data import write_image_folder, write_mnist


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A finished run of 4 updates: its folder and its arguments."""
    folder = tmp_path_factory.mktemp("finished")
    args = write_config(folder)
    cli("fit", *args, "--trainer.val_check_interval", "100")
    return folder / "tiny", args


def nothing_written(folder):
    return not [path for path in folder.rglob("*") if path.name in ("condensed.safetensors", "card.json", "last.ckpt")]


def one_sentence_for(capsys, words, *args):
    """Refused by our own message, which holds the words and says nothing of jsonargparse's inner life."""
    message = refusal(capsys, *args)
    assert message.startswith("lit-condense: error: ")
    assert [word for word in words if word not in message] == [], message
    assert "Union" not in message
    assert "Namespace" not in message
    return message


@pytest.mark.filterwarnings("ignore:You passed .Trainer")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trainer.precision", "16-mixed"], ["trainer.precision", "32-true", "mixed"]),
        (["--trainer.precision", "bf16-mixed"], ["trainer.precision", "32-true", "bf16-mixed"]),
        (["--trainer.max_steps", "-1"], ["trainer.max_steps", "1 or more", "-1"]),
        (["--trainer.val_check_interval", "0"], ["trainer.val_check_interval", "above 0", "limit_val_batches"]),
        (["--trainer.check_val_every_n_epoch", "0"], ["trainer.check_val_every_n_epoch", "above 0"]),
        (["--seed_everything", "-1"], ["seed_everything", "0 to 4294967295", "-1"]),
        (["--model.ipc", "null"], ["model.ipc", "null"]),
        (["--trainer.callbacks+=CurvatureMatching", "--trainer.callbacks.rho=null"], ["callbacks[1].rho", "null"]),
        (["--trainer.callbacks", "[]"], ["matching loss", "trainer.callbacks", "GradientMatching"]),
        (["--trainer.callbacks+=GradientMatching"], ["different names", "name"]),
        (
            ["--trainer.callbacks+=FinalReport", "--trainer.callbacks+=FinalReport"],
            ["more than one", "FinalReport"],
        ),
        (["--dashboard.every_n_updates=0"], ["Dashboard.every_n_updates", "0"]),
        (["--trainer.strategy", "teleport"], ["strategy", "teleport"]),
        (["--trainer.gradient_clip_val", "1"], ["clipping", "manual optimization"]),
        (["--trainer.barebones", "true"], ["barebones"]),
        (["--model.ipc", "0"], ["ipc", "1 or more", "0"]),
        (["--model.ipc", "[1,2]"], ["ipc", "10 classes", "2 numbers"]),
        (["--model.evaluation.repeats", "0"], ["Evaluation.repeats", "1 or more", "0"]),
        (["--model.inner.updates", "0"], ["TrainOnSynthetic.updates", "1 or more", "0"]),
        (["--model.network.init_args.depth", "4"], ["4 times", "8x8", "16x16", "lower depth"]),
        (["--model.network", "torch.nn.Identity"], ["Identity", "logits", "(2, 10)"]),
        (["--data.train_limit_per_class", "0"], ["train_limit_per_class", "1 or more", "0"]),
        (["--data.classes", "[0,77]"], ["class 77", "0 to 9"]),
        (["--data.classes", "[3]"], ["2 or more classes", "1"]),
        (["--data.normalization", "dc"], ["dc", "digits"]),
        (
            ["--data.train_limit_per_class", "3", "--model.init", "RandomReal", "--model.ipc", "4"],
            ["RandomReal", "4", "3"],
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_a_setting_that_cannot_work_is_one_message(tmp_path, capsys, arguments, words):
    one_sentence_for(capsys, words, "fit", *write_config(tmp_path), *arguments)
    assert nothing_written(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.evaluation.protocol", "dmm"], ["protocol", "'dc', 'dsa', 'idc'", "dmm"]),
        (["--model.iipc", "2"], ["iipc", "not accepted"]),
        (["--data", "Digitss"], ["Digitss"]),
        (["--model.engine", "Engine", "--model.engine.mode", "quick"], ["mode", "'exact', 'fast'", "quick"]),
        (["--optimizer", "SGD"], ["optimizer"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "name of a shipped config", "lit-condense configs"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_a_mistyped_option_is_named_without_a_page_of_usage(tmp_path, capsys, arguments, words):
    message = refusal(capsys, "fit", *write_config(tmp_path), *arguments)
    assert [word for word in words if word not in message] == [], message
    assert message.count("[--") <= 1
    assert nothing_written(tmp_path)


def test_a_wrong_key_in_a_file_is_named(tmp_path, capsys):
    config = tiny_config(tmp_path)
    config["model"]["init_args"]["learning_rate"] = 0.1
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(config))
    message = refusal(capsys, "fit", "--config", tmp_path / "wrong.yaml")
    assert "learning_rate" in message
    (tmp_path / "none.yaml").write_text("model: [")
    assert "config" in refusal(capsys, "fit", "--config", tmp_path / "none.yaml")


def test_max_steps_between_two_networks_is_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="max_steps=3 is no multiple of the 2 updates"):
        cli("fit", *write_config(tmp_path), "--trainer.max_steps", "3", "--model.inner.updates", "2")
    assert card_of(tmp_path / "tiny")["update"] == 3


def folder_case(tmp_path, case):
    root = tmp_path / "images"
    if case != "no folder":
        write_image_folder(root, {"cat": 3, "dog": 3})
    if case == "empty class":
        for path in (root / "train" / "cat").iterdir():
            path.unlink()
    if case == "class in one split":
        (root / "train" / "cow").mkdir()
    if case == "two sizes":
        write_image_folder(root / "other", {"cat": 1}, size=(9, 9))
        (root / "other" / "train" / "cat" / "000.png").rename(root / "train" / "cat" / "009.png")
    if case == "no image":
        (root / "train" / "cat" / "000.png").write_bytes(b"nothing")
    return root


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no folder", ["no folder", "images/train", "<class>"]),
        ("empty class", ["train/cat", "no images", "Add images"]),
        ("class in one split", ["cow", "same class folders"]),
        ("two sizes", ["one size", "9x9", "image_size"]),
        ("no image", ["000.png", "Repair or remove"]),
    ],
)
def test_an_image_folder_that_cannot_be_used_is_one_message(tmp_path, capsys, case, words):
    data = ["--data", "ImageFolder", "--data.root", folder_case(tmp_path, case)]
    data += ["--data.train_limit_per_class", "null"]
    one_sentence_for(capsys, words, "fit", *write_config(tmp_path), *data)
    assert nothing_written(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_images": np.full((12, 1, 8, 8), np.nan, dtype=np.float32)}, ["train", "768", "not finite"]),
        ({"test_images": np.full((4, 1, 8, 8), np.inf, dtype=np.float32)}, ["test", "256", "not finite"]),
        ({"train_images": np.full((12, 1, 8, 8), 255, dtype=np.float32)}, ["[0, 1]", "255"]),
        ({"train_labels": np.array([0, 2] * 6)}, ["Class 1", "no images", "train"]),
        ({"test_labels": np.zeros(4, dtype=int)}, ["Class 1", "no images", "test"]),
        ({"train_labels": np.zeros(12, dtype=int), "test_labels": np.zeros(4, dtype=int)}, ["2 or more classes"]),
        ({"train_labels": np.zeros(11, dtype=int)}, ["one label", "12"]),
        ({"train_images": np.zeros((12, 0, 8, 8), dtype=np.float32)}, ["shape"]),
    ],
)
def test_arrays_that_cannot_be_used_are_one_message(tmp_path, capsys, changes, words):
    data = write_arrays(tmp_path / "set.npz", **changes)
    limit = ["--data.train_limit_per_class", "null"]
    one_sentence_for(capsys, words, "fit", *write_config(tmp_path), *data, *limit)
    assert nothing_written(tmp_path)


def test_missing_files_of_a_known_dataset_are_one_message(tmp_path, capsys):
    data = ["--data", "lit_condense.data.MNIST", "--data.root", tmp_path / "nowhere"]
    words = ["mnist", str(tmp_path / "nowhere"), "download: true"]
    message = one_sentence_for(capsys, words, "fit", *write_config(tmp_path), *data)
    assert "\n" not in message


@pytest.mark.parametrize("which", ["report", "run", "checkpoints"])
def test_a_folder_that_cannot_be_written_to_stops_the_run_before_any_work(tmp_path, capsys, monkeypatch, which):
    monkeypatch.setattr(GradientMatching, "loss", lambda *_: pytest.fail("the run had started"))
    (tmp_path / "file").write_text("not a folder")
    below = str(tmp_path / "file" / "out")
    config = tiny_config(tmp_path)
    if which == "report":
        config["report"] = {"folder": below}
    elif which == "run":
        config["out"] = below
    else:
        config["checkpoint"]["dirpath"] = below
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    one_sentence_for(capsys, [below, "output folder", "Choose another"], "fit", "--config", tmp_path / "run.yaml")
    assert (tmp_path / "file").read_text() == "not a folder"


def broken_checkpoint(fitted, tmp_path, kind):
    path, good = tmp_path / "broken.ckpt", fitted[0] / "checkpoints" / "last.ckpt"
    if kind == "empty":
        path.touch()
    elif kind == "cut in half":
        path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    elif kind == "text":
        path.write_text("no checkpoint")
    elif kind == "of another program":
        torch.save({"state_dict": {"layer.weight": torch.zeros(2)}, "epoch": 3}, path)
    elif kind == "a tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "of another format":
        content = torch.load(good, weights_only=True)
        content["lit_condense"]["format"] = 99
        torch.save(content, path)
    elif kind == "with code":
        torch.save({"state_dict": {}, "lit_condense": Unpickled()}, path)
    return path


class Unpickled:
    """Would write to standard output when unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


BROKEN = ("missing", "empty", "cut in half", "text", "of another program", "a tensor", "of another format", "with code")


@pytest.mark.parametrize(
    ("command", "kind"), [*(("fit", kind) for kind in BROKEN), ("test", "empty"), ("predict", "of another program")]
)
def test_a_checkpoint_that_cannot_be_used_is_one_message(fitted, tmp_path, capsys, command, kind):
    path = broken_checkpoint(fitted, tmp_path, kind)
    words = ["checkpoint", "format 3, got 99" if kind == "of another format" else "Expected a"]
    if kind in ("missing", "empty", "cut in half", "text", "with code"):
        words.append(str(path))
    one_sentence_for(capsys, words, command, *write_config(tmp_path), "--ckpt_path", path)
    assert "unpickled" not in capsys.readouterr().out
    assert nothing_written(tmp_path)


@pytest.mark.parametrize("command", ["test", "predict"])
@pytest.mark.parametrize("other", ["other images", "fewer classes"])
def test_a_checkpoint_of_other_data_is_refused(fitted, tmp_path, capsys, command, other):
    if other == "other images":
        write_mnist(tmp_path / "MNIST" / "raw")
        data = ["--data", "lit_condense.data.MNIST", "--data.root", str(tmp_path)]
    else:
        data = ["--data.classes", "[0,1]"]
    path = fitted[0] / "checkpoints" / "last.ckpt"
    words = ["(1, 8, 8)", "10 classes"]
    one_sentence_for(capsys, words, command, *write_config(tmp_path), *data, "--ckpt_path", path)
    assert nothing_written(tmp_path)


def stopped_run(tmp_path, capsys, words, *arguments):
    """Run until the non-finite value; return the folder."""
    one_sentence_for(capsys, words, "fit", *write_config(tmp_path), "--trainer.max_steps", "8", *arguments)
    return tmp_path / "tiny"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_saves_the_last_good_set(tmp_path, capsys, monkeypatch, value):
    calls = []

    def loss(self, real, synthetic):
        calls.append(1)
        total = sum(g.square().sum() for g in synthetic.gradients.values())
        return total * (value if len(calls) > 50 else 1)  # a call for each of 10 classes: update 5 is the first bad one

    monkeypatch.setattr(GradientMatching, "loss", loss)
    monkeypatch.setattr(GradientMatching, "on_train_start", lambda *_: calls.clear())  # after the trial
    folder = stopped_run(tmp_path, capsys, ["GradientMatching", "update 5", str(value)])
    images, _, card = load_condensed(folder)
    assert bool(images.isfinite().all())
    assert "update 5" in card["stopped"]
    assert "GradientMatching" in card["stopped"]
    assert card["evaluation"] is None
    assert card["update"] == 5
    kept = checkpoint_of(folder)
    assert kept["global_step"] == 5
    norm = card["data"]["normalization"]
    assert torch.allclose(images, kept["state_dict"]["images"] * norm["std"][0] + norm["mean"][0], atol=1e-6)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "epoch=0-step=4.ckpt",
        "epoch=0-step=5.ckpt",
        "last.ckpt",
    ]


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path, capsys, monkeypatch):
    def loss(self, real, synthetic):
        return sum((g - g.detach()).square().sum().sqrt() for g in synthetic.gradients.values())  # slope 0/0

    monkeypatch.setattr(GradientMatching, "loss", loss)
    folder = stopped_run(tmp_path, capsys, ["GradientMatching", "update 0", "gradient"])
    assert card_of(folder)["update"] == 0
    assert bool(load_condensed(folder).images.isfinite().all())


def test_images_that_overflow_stop_the_run_and_are_put_back(tmp_path, capsys, monkeypatch):
    published = GradientMatching.loss
    monkeypatch.setattr(GradientMatching, "loss", lambda *args: 1e6 * published(*args))
    words = ["pdate 0", "NaN or infinite", "learning rate"]
    folder = stopped_run(tmp_path, capsys, words, "--model.optimizer.lr", "1e38")
    images, _, card = load_condensed(folder)
    assert bool(images.isfinite().all())
    assert float(images.abs().max()) < 10
    assert "pdate 0" in card["stopped"]


def test_a_run_that_diverges_leaves_what_stood_there(fitted, tmp_path, capsys):
    earlier = {path: path.read_bytes() for path in fitted[0].rglob("*") if path.is_file()}
    folder = stopped_run(tmp_path, capsys, ["update", "learning rate"], "--model.optimizer.lr", "1e38")
    assert bool(load_condensed(folder).images.isfinite().all())
    assert {path: path.read_bytes() for path in fitted[0].rglob("*") if path.is_file()} == earlier


def test_a_run_that_is_told_to_end_does_not_look_complete(tmp_path, capsys, monkeypatch):
    published = SyntheticSet.training_step

    @functools.wraps(published)
    def stopping(module, batch, batch_idx):
        published(module, batch, batch_idx)
        if batch == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(SyntheticSet, "training_step", stopping)
    message = refusal(capsys, "fit", *write_config(tmp_path), "--trainer.max_steps", "8")
    assert "SIGTERM" in message
    assert "--ckpt_path last" in message
    assert checkpoint_of(tmp_path / "tiny")["global_step"] == 3
    _, _, card = load_condensed(tmp_path / "tiny")  # what there was, and why it is no finished run
    assert (card["update"], card["evaluation"], card["stopped"]) == (3, None, "by SIGTERM")


def test_the_trace_is_there_for_who_asks(tmp_path, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEBUG", "true")
    with untouched_process(), pytest.raises(SettingsError, match="ipc"):
        main(["fit", *write_config(tmp_path), "--model.ipc", "0"])
