"""One folder for a run: where it is, whose it is, and what a run that comes to nothing leaves of it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_condense.errors import SettingsError
from lit_condense.runs.folder import RunFolder
from tests.cli_helpers import (
    card_of,
    checkpoint_of,
    cli,
    names,
    new_process,
    refusal,
    succeeded,
    tiny_config,
    write_config,
)

QUICK = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "0", "--model.evaluation.full_data_steps", "0"]
QUICK += ["--model.evaluation.repeats", "1", "--model.evaluation.epochs", "1"]


def bytes_of(folder):
    """Content of all files below a folder but the log."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "tfevents" not in p.name}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a config that names no folder."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(tiny_config(".") | {"out": None}))
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run, to copy."""
    folder = tmp_path_factory.mktemp("finished")
    cli("fit", *write_config(folder), *QUICK)
    return folder


def test_every_run_of_a_config_gets_a_version_of_its_own_with_all_that_it_writes(here):
    for version in range(2):
        cli("fit", "--config", "mine.yaml", *QUICK)
        written = names(here / "runs" / "mine" / f"version_{version}")
        assert {"config.yaml", "condensed.safetensors", "card.json", "grid.png", "checkpoints/last.ckpt"} <= written
        assert any(name.startswith("events.out.tfevents") for name in written)
    assert {name.split("/")[0] for name in names(here)} == {"mine.yaml", "runs"}


def test_the_saved_config_makes_a_new_version_and_the_same_set(here):
    cli("fit", "--config", "mine.yaml", *QUICK)
    cli("fit", "--config", "runs/mine/version_0/config.yaml")
    first, again = (card_of(here / "runs" / "mine" / f"version_{version}") for version in range(2))
    assert again["sha256"] == first["sha256"]


def test_last_goes_on_with_the_newest_version_that_can_be_gone_on_with(here, monkeypatch):
    said = []
    monkeypatch.setattr("lit_condense.cli.run_keys.rank_zero_info", said.append)
    for _ in range(2):
        cli("fit", "--config", "mine.yaml", *QUICK)
    (here / "runs" / "mine" / "version_2" / "checkpoints").mkdir(parents=True)  # died before its first checkpoint
    done = cli("fit", "--config", "mine.yaml", *QUICK, "--trainer.max_steps", "3", "--ckpt_path", "last")
    assert said == ["The last checkpoint is that of runs/mine/version_1."]
    assert done.trainer.global_step == 3
    assert card_of(here / "runs" / "mine" / "version_1")["update"] == 3
    assert card_of(here / "runs" / "mine" / "version_0")["update"] == 2


def test_last_without_any_run_is_refused_and_leaves_nothing(here, capsys):
    message = refusal(capsys, "fit", "--config", "mine.yaml", "--ckpt_path", "last")
    assert "found none" in message
    assert names(here) == {"mine.yaml"}
    assert not (here / "runs").exists()


def test_a_refused_run_leaves_nothing_and_a_user_s_files_stay(here, capsys):
    for args in (["--model.sampling.batch_size", "-1"], ["--trainer.max_steps", "-1"], ["--trainer.callbacks", "[]"]):
        refusal(capsys, "fit", "--config", "mine.yaml", *args)
        assert not (here / "runs").exists()
    selecting = ["--model", "SelectedSet", "--model.selection", "EL2N", "--model.ipc", "1"]
    refusal(capsys, "fit", *selecting, "--data", "Digits", "--trainer.precision", "64-true")
    refusal(capsys, "fit", *selecting, "--data", "Digits", "--model.network", "ResNet18", "--data.classes", "[0]")
    assert not (here / "runs").exists()
    (here / "notes").mkdir()
    (here / "notes" / "mine.txt").write_text("mine")
    refusal(capsys, "fit", "--config", "mine.yaml", "--out", "notes", "--trainer.callbacks", "[]")
    assert names(here / "notes") == {"mine.txt"}  # not even a log


def test_results_are_not_written_over_unless_that_is_said(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    folder, args = tmp_path / "tiny", [*write_config(tmp_path), *QUICK, "--seed_everything", "1"]
    before = card_of(folder)
    message = refusal(capsys, "fit", *args)
    for words in ("without results", "card.json", "--ckpt_path last", "--out", "--overwrite true"):
        assert words in message
    assert card_of(folder) == before
    cli("fit", *args, "--overwrite", "true")
    assert card_of(folder)["seed"] == 1
    assert checkpoint_of(folder)["global_step"] == 2
    assert len(list(folder.glob("events.out.tfevents*"))) == 1


def test_logs_of_another_program_stay(here):
    (here / "logs").mkdir()
    (here / "logs" / "events.out.tfevents.other").write_text("precious")
    cli("fit", "--config", "mine.yaml", *QUICK, "--out", "logs")
    assert (here / "logs" / "events.out.tfevents.other").read_text() == "precious"


def test_the_config_of_a_resumed_run_makes_a_new_version_too(here):
    cli("fit", "--config", "mine.yaml", *QUICK)
    cli("fit", "--config", "mine.yaml", *QUICK, "--trainer.max_steps", "3", "--ckpt_path", "last")
    assert yaml.safe_load(Path("runs/mine/version_0/config.yaml").read_text())["ckpt_path"] is None


def test_a_run_that_may_replace_results_but_is_refused_replaces_none(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    before = bytes_of(tmp_path / "tiny")
    refusal(capsys, "fit", *write_config(tmp_path), "--overwrite", "true", "--trainer.callbacks", "[]")
    resumed = ["--ckpt_path", "last", "--model.ipc", "3"]
    assert "settings" in refusal(capsys, "fit", *write_config(tmp_path), *resumed)
    assert before == bytes_of(tmp_path / "tiny")


@pytest.mark.filterwarnings("ignore:No ckpt_path given")
@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_refused_command_that_trains_nothing_leaves_nothing(finished, here, capsys, command):
    packed = ["--model.parametrization", "MultiFormation", "--model.parametrization.factor", "9"]
    assert "factor" in refusal(capsys, command, "--config", "mine.yaml", *packed)
    before = names(finished)
    path = finished / "tiny" / "checkpoints" / "last.ckpt"
    assert "parametrization" in refusal(capsys, command, "--config", "mine.yaml", *packed[:2], "--ckpt_path", path)
    assert names(finished) == before
    assert names(here) == {"mine.yaml"}
    assert not (here / "runs").exists()


def test_results_in_other_folders_are_not_written_over_either(finished, here, capsys):
    shutil.copytree(finished / "tiny", here / "there")
    before = bytes_of(here / "there")
    own = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "there/checkpoints"}}
    Path("own.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [own]}}))
    for told in (
        ["--report.folder", "there"],
        ["--checkpoint.dirpath", "there/checkpoints"],
        ["--config", "own.yaml"],
    ):
        message = refusal(capsys, "fit", "--config", "mine.yaml", *QUICK, *told)
        assert "without results" in message
        assert "there/" in message
    assert bytes_of(here / "there") == before
    assert not (here / "runs").exists()
    kept = ["--checkpoint.dirpath", "there/checkpoints", "--trainer.max_steps", "3"]
    cli("fit", "--config", "mine.yaml", *QUICK, *kept, "--ckpt_path", "there/checkpoints/last.ckpt")  # goes on there
    assert checkpoint_of(here / "there")["global_step"] == 3


def test_what_stands_in_other_folders_is_not_deleted_by_a_run_that_may_replace_it(finished, here):
    shutil.copytree(finished / "tiny", here / "there")
    (here / "there" / "checkpoints" / "mine.ckpt").write_bytes((here / "there/checkpoints/last.ckpt").read_bytes())
    before = names(here / "there")
    told = ["--report.folder", "there", "--checkpoint.dirpath", "there/checkpoints", "--overwrite", "true"]
    cli("fit", "--config", "mine.yaml", *QUICK, *told, "--seed_everything", "1")
    assert before <= names(here / "there")
    assert card_of(here / "there")["seed"] == 1


def test_one_loss_may_be_given_without_a_list(here):
    run = ["--trainer.callbacks", "GradientMatching", "--trainer.enable_progress_bar", "false"]
    cli("fit", "--config", "mine.yaml", *QUICK, *run)
    assert card_of(here / "runs" / "mine" / "version_0")["update"] == 2


def test_a_checkpoint_callback_of_ones_own_can_be_gone_on_from(here):
    own = {"class_path": "ModelCheckpoint", "init_args": {"every_n_train_steps": 1, "save_last": True}}
    Path("own.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [own]}}))
    run = ["fit", "--config", "mine.yaml", "--config", "own.yaml", *QUICK]
    cli(*run)
    assert cli(*run, "--trainer.max_steps", "3", "--ckpt_path", "last").trainer.global_step == 3
    assert card_of(here / "runs" / "mine+own" / "version_0")["update"] == 3


def test_a_folder_without_a_name_is_refused(here, capsys):
    assert "got no letter" in refusal(capsys, "fit", "--config", "mine.yaml", "--out", "")


def test_a_checkpoint_of_the_folder_itself_goes_on_there(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tiny" / "checkpoints" / "last.ckpt"
    cli("fit", *write_config(tmp_path), *QUICK, "--trainer.max_steps", "3", "--ckpt_path", path)
    assert card_of(tmp_path / "tiny")["update"] == 3


def test_commands_that_train_nothing_use_the_folder_of_their_checkpoint(finished, here):
    shutil.copytree(finished / "tiny", here / "elsewhere")
    path = "elsewhere/checkpoints/last.ckpt"
    (here / "elsewhere" / "grid.png").unlink()
    cli("predict", "--config", "mine.yaml", "--ckpt_path", path)
    assert "grid.png" in names(here / "elsewhere")
    assert not (here / "runs").exists()


def test_a_dry_run_makes_no_folder(here):
    cli("fit", "--config", "mine.yaml", "--trainer.fast_dev_run", "true")
    assert names(here) == {"mine.yaml"}
    assert not (here / "runs").exists()


@pytest.mark.slow
def test_several_processes_share_one_version(here):
    ddp = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    for version, more in ((0, []), (0, ["--ckpt_path", "last", "--trainer.max_steps", "4"]), (1, [])):
        command = [sys.executable, "-m", "lit_condense", "fit", "--config", "mine.yaml", *QUICK, *ddp, *more]
        succeeded(new_process(*command, cwd=here))
        versions = sorted(path.name for path in (here / "runs" / "mine").iterdir())
        assert versions == [f"version_{k}" for k in range(version + 1)]
    assert card_of(here / "runs" / "mine" / "version_0")["update"] == 4


def test_own_keys_reach_the_callbacks_and_a_callback_of_ones_own_takes_the_place_of_its_key(here):
    done = cli("fit", "--config", "mine.yaml", *QUICK, "--checkpoint.save_top_k", "1")
    assert len(list((here / "runs/mine/version_0/checkpoints").glob("epoch*.ckpt"))) == 1
    own = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "saved", "every_n_train_steps": 1}}
    Path("own.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [own]}}))
    done = cli("fit", "--config", "mine.yaml", "--config", "own.yaml", *QUICK)
    (saving,) = (callback for callback in done.trainer.callbacks if isinstance(callback, ModelCheckpoint))
    assert Path(saving.dirpath) == here / "saved"
    assert names(here / "saved")
    assert not (here / "runs/mine+own/version_0/checkpoints").exists()


def test_intervals_that_are_left_open_follow_the_length_of_the_run(here):
    config = tiny_config(".") | {"out": None, "checkpoint": {}, "dashboard": {}}
    config["trainer"]["val_check_interval"] = None
    config["trainer"]["max_steps"] = 8
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    done = cli("fit", "--config", "mine.yaml", *QUICK[2:])
    saved = yaml.safe_load(Path("runs/mine/version_0/config.yaml").read_text())
    assert (done.trainer.val_check_interval, saved["checkpoint"]["every_n_train_steps"]) == (4, 2)


def test_two_runs_that_choose_the_same_version_do_not_share_it(here):
    first, second = RunFolder.new_version("x"), RunFolder.new_version("x")
    assert first.path == second.path
    first.claim(overwrite=False)
    second.claim(overwrite=False)
    assert second.path == first.path.with_name("version_1")


def test_a_folder_of_results_is_known_by_what_this_program_wrote(tmp_path):
    (tmp_path / "card.json").write_text('{"my": "card"}')
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": {}}, tmp_path / "checkpoints" / "last.ckpt")
    RunFolder(tmp_path).claim(overwrite=False)  # what is the user's is looked at where it would be replaced
    torch.save({"lit_condense": {}}, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(SettingsError, match=r"last\.ckpt stands there"):
        RunFolder(tmp_path).claim(overwrite=False)
