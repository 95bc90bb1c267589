from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch

from lit_condense import load_condensed
from tests.cli_helpers import card_of, checkpoint_of, cli, new_process, refusal, succeeded, write_config

BATCH_NORM = {"class_path": "lit_condense.networks.ConvNet", "init_args": {"width": 4, "depth": 1, "norm": "batch"}}
INNER = {
    "class_path": "lit_condense.inner.TrainOnSynthetic",
    "init_args": {"updates": 4, "epochs": 2, "momentum": 0.9, "weight_decay": 0.01},
}
METHODS = {
    "dc": {},
    "batch_norm": {"network": BATCH_NORM, "inner": INNER},
    "running_average": {
        "network": BATCH_NORM,
        "inner": {**INNER, "init_args": {**INNER["init_args"], "batch_norm": "running_average"}},
    },
    "epochs": {
        "sampling": {
            "class_path": "lit_condense.sampling.RandomSampling",
            "init_args": {"batch_size": 6, "batches": "epochs"},
        },
        "inner": {
            "class_path": "lit_condense.inner.TrainOnReal",
            "init_args": {"updates": 4, "images": 24, "batch_size": 9, "batches": "epochs"},
        },
    },
    "adam_pixels": {
        "ipc": 2,
        "inner": {**INNER, "init_args": {"updates": 4, "epochs": 1}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.05}},
        "parametrization": {
            "class_path": "lit_condense.parametrization.Pixels",
            "init_args": {"space": "pixel", "clamp": "every_network"},
        },
    },
}
STOPS = {"dc": 3, "batch_norm": 3, "running_average": 2, "epochs": 2, "adam_pixels": 4}
"""Updates before the break. A network serves 4: 3 and 2 are in the middle of its life, 4 is at its end."""
UPDATES = 6
RESUME = "import json, sys; from lit_condense.cli import main; [main(args) for args in json.loads(sys.argv[1])]"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every method, run in one go and with a break after which a new process goes on: the folder, and the checkpoints
    as they were at the breaks.
    """
    folder = tmp_path_factory.mktemp("resume")
    goes_on, breaks = [], {}
    for name, model in METHODS.items():
        full = ["--trainer.max_steps", str(UPDATES), "--trainer.val_check_interval", "100"]
        cli("fit", *write_config(folder, f"{name}_straight", **model), *full)
        broken = write_config(folder, f"{name}_broken", **model)
        cli("fit", *broken, "--trainer.max_steps", STOPS[name], "--trainer.val_check_interval", "2")
        breaks[name] = checkpoint_of(folder / f"{name}_broken")
        goes_on.append(["fit", *broken, *full, "--ckpt_path", "last"])
    succeeded(new_process(sys.executable, "-c", RESUME, json.dumps(goes_on)))
    return folder, breaks


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A finished run of 4 updates: its folder and its arguments."""
    folder = tmp_path_factory.mktemp("finished")
    args = [*write_config(folder), "--trainer.val_check_interval", "100"]
    cli("fit", *args)
    return folder / "tiny", args


def tensor_bytes(folder):
    """SHA-256 of the file behind its header, which holds the card and so the seconds."""
    content = (Path(folder) / "condensed.safetensors").read_bytes()
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@pytest.mark.parametrize("method", METHODS)
def test_a_broken_run_ends_with_the_bytes_of_an_unbroken_one(runs, method):
    straight, broken = runs[0] / f"{method}_straight", runs[0] / f"{method}_broken"
    assert torch.equal(load_condensed(straight).images, load_condensed(broken).images)
    assert tensor_bytes(straight) == tensor_bytes(broken)
    assert card_of(straight)["sha256"] == card_of(broken)["sha256"]
    one, other = checkpoint_of(straight), checkpoint_of(broken)
    assert one["global_step"] == other["global_step"] == UPDATES
    assert same(one["state_dict"], other["state_dict"])
    assert same(one["optimizer_states"], other["optimizer_states"])
    assert same(one["lit_condense"], other["lit_condense"])
    scores = [card_of(folder)["evaluation"]["condensed"][0]["accuracies"] for folder in (straight, broken)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("method", METHODS)
def test_the_break_was_in_the_life_of_the_first_network(runs, method):
    folder, breaks = runs
    at_break, end = breaks[method], checkpoint_of(folder / f"{method}_broken")
    assert at_break["global_step"] == STOPS[method]
    assert [at_break["lit_condense"]["inner"]["index"], end["lit_condense"]["inner"]["index"]] == [0, 1]
    assert not torch.equal(at_break["state_dict"]["images"], end["state_dict"]["images"])
    momenta = at_break["lit_condense"]["inner"]["optimizer"]["state"]
    assert bool(momenta) == (method not in ("dc", "adam_pixels"))


def test_last_without_a_checkpoint_is_an_error(tmp_path, capsys):
    args = write_config(tmp_path)
    message = refusal(capsys, "fit", *args, "--ckpt_path", "last")
    assert str(tmp_path / "tiny" / "checkpoints" / "last.ckpt") in message
    assert "ckpt_path" in message
    assert "last.ckpt" in refusal(capsys, "test", *args, "--ckpt_path", "last")
    assert not (tmp_path / "tiny" / "condensed.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "name", "before", "now"),
    [
        (["--model.optimizer.lr", "0.2"], "lr", "0.1", "0.2"),
        (["--model.optimizer", "torch.optim.Adam"], "class_path", "torch.optim.SGD", "torch.optim.Adam"),
        (["--model.ipc", "2"], "ipc", "1", "2"),
        (["--model.network.init_args.width", "6"], "width", "4", "6"),
        (["--model.inner.updates", "2"], "updates", "4", "2"),
        (["--model.sampling.batch_size", "5"], "batch_size", "4", "5"),
        (["--seed_everything", "7"], "seed", "0", "7"),
        (["--model.seed", "7"], "seed", "0", "7"),
        (["--data.train_limit_per_class", "9"], "train.images", "100", "90"),
        (["--data.classes", "[0,1]"], "train.images", "100", "20"),
        (["--data.normalization", '{"mean": [0.0], "std": [1.0]}'], "normalization.family", "'measured'", "'given'"),
    ],
)
def test_other_settings_are_refused_with_both_values(fitted, capsys, changes, name, before, now):
    folder, args = fitted
    message = refusal(capsys, "fit", *args, "--ckpt_path", "last", "--trainer.max_steps", "8", *changes)
    line = next(line for line in message.splitlines() if f"{name}:" in line)
    said = line.split(f"{name}:")[1]
    assert said.split(" then, ")[0].strip().strip("'") == before.strip("'")
    assert said.split(" then, ")[1].removesuffix(" now").strip("'") == now.strip("'")
    assert checkpoint_of(folder)["global_step"] == 4


def test_another_distance_is_refused_with_both_values(fitted, capsys, tmp_path):
    _, args = fitted
    config = Path(args[1]).read_text()
    assert "distance: row_cosine" in config
    other = tmp_path / "other.yaml"
    other.write_text(config.replace("distance: row_cosine", "distance: l1"))
    message = refusal(capsys, "fit", "--config", other, "--trainer.max_steps", "8", "--ckpt_path", "last")
    assert "distance: 'row_cosine' then, 'l1' now" in message


def test_max_steps_evaluation_and_folders_may_change(fitted, tmp_path):
    folder, _ = fitted
    elsewhere = write_config(tmp_path, name="elsewhere")
    changes = ["--trainer.max_steps", "5", "--model.evaluation.epochs", "1", "--model.evaluation.repeats", "1"]
    changes += ["--trainer.val_check_interval", "1", "--trainer.log_every_n_steps", "2"]
    before = (folder / "condensed.safetensors").read_bytes()
    cli("fit", *elsewhere, *changes, "--ckpt_path", folder / "checkpoints" / "last.ckpt")
    card = card_of(tmp_path / "elsewhere")
    assert card["update"] == 5
    assert card["evaluation"]["condensed"][0]["networks"] == 1
    assert checkpoint_of(tmp_path / "elsewhere")["global_step"] == 5
    assert (folder / "condensed.safetensors").read_bytes() == before


def test_a_finished_run_resumed_changes_nothing(fitted):
    folder, args = fitted
    before = card_of(folder)["sha256"]
    cli("fit", *args, "--ckpt_path", "last")
    assert card_of(folder)["sha256"] == before
    assert checkpoint_of(folder)["global_step"] == 4


def test_validate_and_test_judge_the_checkpoint_as_the_report_did(fitted):
    folder, args = fitted
    score = card_of(folder)["evaluation"]["condensed"][0]
    tested = cli("test", *args, "--ckpt_path", "last")
    assert float(tested.trainer.callback_metrics["test/acc"]) == pytest.approx(score["accuracy_mean"])
    assert float(tested.trainer.callback_metrics["test/acc_std"]) == pytest.approx(score["accuracy_std"])
    path = folder / "checkpoints" / "last.ckpt"
    validated = cli("validate", *args, "--ckpt_path", path)
    assert float(validated.trainer.callback_metrics["val/acc"]) == pytest.approx(score["accuracies"][0])


def test_predict_writes_the_set_of_the_checkpoint(fitted, tmp_path):
    folder, _ = fitted
    images, labels, _ = load_condensed(folder)
    earlier = folder / "checkpoints" / "epoch=0-step=3.ckpt"
    elsewhere = write_config(tmp_path, name="elsewhere")
    cli("predict", *elsewhere, "--ckpt_path", folder / "checkpoints" / "last.ckpt")
    written = load_condensed(tmp_path / "elsewhere")
    assert torch.equal(written.images, images)
    assert torch.equal(written.labels, labels)
    assert written.card["evaluation"] is None
    cli("predict", *elsewhere, "--ckpt_path", earlier)
    assert not torch.equal(load_condensed(tmp_path / "elsewhere").images, images)


def test_the_card_of_a_prediction_says_after_how_many_updates(fitted, tmp_path):
    folder, _ = fitted
    cli("predict", *write_config(tmp_path), "--ckpt_path", folder / "checkpoints" / "epoch=0-step=3.ckpt")
    assert card_of(tmp_path / "tiny")["update"] == 3
