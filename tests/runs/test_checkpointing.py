"""Checkpoints: written whole or not at all, found again when one is broken, and written when a run is told to end."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import resource
import signal
import struct
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_condense import SyntheticSet, load_condensed
from lit_condense.callbacks import SaveOnSigterm
from lit_condense.cli import main
from lit_condense.data import Digits
from lit_condense.errors import CheckpointError
from lit_condense.matching import GradientMatching
from lit_condense.runs.checkpointing import AtomicCheckpointIO
from lit_condense.runs.files import write_atomically
from tests.cli_helpers import card_of, checkpoint_of, cli, refusal, tiny_config, untouched_process, write_config
from tests.helpers import fitted
from tests.processes import ended, process, wait_for
from tests.test_resume import tensor_bytes

STRAIGHT = ["--trainer.max_steps", "8", "--trainer.val_check_interval", "100"]


def pixels_of(checkpoint):
    """The images of a checkpoint of ``tiny_config`` in [0, 1]."""
    return Digits(train_limit_per_class=10).real.normalization.denormalize(checkpoint["state_dict"]["images"])


def files_in(folder):
    return {path.name for path in folder.iterdir()}


def full_device(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ------------------------------------------------------------------ writing


def test_a_checkpoint_reads_back_as_it_was(tmp_path):
    content = {"state_dict": {"images": torch.arange(6.0)}, "global_step": 3, "names": ["a", None]}
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "new" / "one.ckpt")
    back = AtomicCheckpointIO().load_checkpoint(tmp_path / "new" / "one.ckpt")
    assert torch.equal(back["state_dict"]["images"], torch.arange(6.0))
    assert (back["global_step"], back["names"]) == (3, ["a", None])
    assert files_in(tmp_path / "new") == {"one.ckpt"}


@pytest.mark.parametrize("failing", ["os.fsync", "os.fdopen", "pathlib.Path.replace"])
def test_a_full_device_leaves_the_checkpoint_that_stood_there(tmp_path, monkeypatch, failing):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"global_step": 1}, path)
    before = path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match=r"No space left on device.*untouched"):
        patch.setattr(failing, full_device)
        AtomicCheckpointIO().save_checkpoint({"global_step": 2}, path)
    assert path.read_bytes() == before
    assert files_in(tmp_path) == {"last.ckpt"}


def test_what_reads_back_differently_does_not_replace_a_good_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    write_atomically(path, b"good")
    with monkeypatch.context() as patch, pytest.raises(Exception, match="reads back differently"):
        patch.setattr(Path, "read_bytes", lambda _: b"rotten")
        write_atomically(path, b"better")
    assert path.read_bytes() == b"good"
    assert files_in(tmp_path) == {"last.ckpt"}


def test_what_a_killed_process_left_behind_is_removed_unless_others_write_too(tmp_path):
    (tmp_path / ".last.ckpt.x1.unfinished").write_bytes(b"half")
    (tmp_path / ".other.ckpt.x1.unfinished").write_bytes(b"half")
    write_atomically(tmp_path / "last.ckpt", b"whole", sole_writer=False)
    assert len(files_in(tmp_path)) == 3
    write_atomically(tmp_path / "last.ckpt", b"whole")
    assert files_in(tmp_path) == {"last.ckpt", ".other.ckpt.x1.unfinished"}


class Opaque:
    """Nothing that could be read without unpickling."""


def test_a_checkpoint_that_could_not_be_read_again_is_refused_when_it_is_written(tmp_path):
    class Keeping(Callback):
        def state_dict(self):
            return {"kept": Opaque()}

    saving = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_last=True)
    trainer = {"enable_checkpointing": True, "plugins": [AtomicCheckpointIO()]}
    with pytest.raises(CheckpointError, match=r"could not be read again.*callbacks"):
        fitted(GradientMatching(), Keeping(), saving, trainer=trainer)
    assert files_in(tmp_path) == set()


@contextmanager
def largest_file(size):
    """Let no file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_without_room_ends_with_the_reason_and_goes_on_once_there_is_some(tmp_path, capsys, straight):
    args = [*write_config(tmp_path), "--trainer.logger", "false"]  # the checkpoint is to be the largest file
    cli("fit", *args, "--trainer.max_steps", "3", "--trainer.val_check_interval", "100")
    checkpoints = tmp_path / "tiny" / "checkpoints"
    before = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    with largest_file(len(before["last.ckpt"]) - 1):
        message = refusal(capsys, "fit", *args, *STRAIGHT, "--ckpt_path", "last")
    assert "File too large" in message
    assert "--ckpt_path last" in message
    assert {path.name: path.read_bytes() for path in checkpoints.iterdir()} == before
    cli("fit", *args, *STRAIGHT, "--ckpt_path", "last")
    assert tensor_bytes(tmp_path / "tiny") == tensor_bytes(straight)


def _without_privileges():
    """Give up what lets root write everywhere: the capabilities (Linux, version 3 of their interface)."""
    if os.getuid() == 0:
        header, none = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0] * 6)
        assert ctypes.CDLL(None).capset(header, none) == 0


def _lose_permission(args, folder, update):
    """Be a process whose folder becomes read-only at an update."""
    torch.set_num_threads(1)
    _without_privileges()
    published = SyntheticSet.training_step

    @functools.wraps(published)
    def step(module, batch, batch_idx):
        published(module, batch, batch_idx)
        if batch == update:
            Path(folder).chmod(0o500)

    SyntheticSet.training_step = step
    main(args)


@pytest.mark.skipif(sys.platform != "linux" and os.getuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("update", [None, 2])
def test_a_folder_that_is_or_becomes_read_only_ends_the_run_with_the_reason(tmp_path, update):
    args, log = ["fit", *write_config(tmp_path)], tmp_path / "log"
    folder = tmp_path / "tiny"
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    if update is None:
        (checkpoints / "last.ckpt").write_bytes(b"good")
    checkpoints.chmod(0o500 if update is None else 0o700)
    with ended([process(_lose_permission, args, str(checkpoints), update, log=log)]) as (one,):
        assert wait_for([one], 60) == [1], log.read_text()
    checkpoints.chmod(0o700)
    lines = [line for line in log.read_text().splitlines() if "lit-condense: error:" in line]
    assert len(lines) == 1, log.read_text()
    assert "Permission denied" in lines[0]
    assert str(checkpoints) in lines[0]
    if update is None:
        assert (checkpoints / "last.ckpt").read_bytes() == b"good"
    else:
        assert checkpoint_of(folder)["global_step"] == 2
        assert files_in(checkpoints) == {"last.ckpt", "epoch=0-step=1.ckpt", "epoch=0-step=2.ckpt"}


# ------------------------------------------------------------------ broken ones


def spoil(path, how):
    content = path.read_bytes()
    if how == "cut in half":
        path.write_bytes(content[: len(content) // 2])
    elif how == "without its end":
        path.write_bytes(content[:-20])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "zeroed":
        path.write_bytes(bytes(len(content)))
    elif how == "foreign":
        torch.save({"state_dict": {"weight": torch.zeros(2)}, "global_step": 9}, path)
    elif how == "of an older version":
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["lit_condense"]["format"] = 0
        torch.save(checkpoint, path)


SPOILT = ("cut in half", "without its end", "empty", "zeroed", "foreign", "of an older version")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of 8 updates that stopped after 5, with its arguments."""
    folder = tmp_path_factory.mktemp("stopped")
    args = write_config(folder)
    cli("fit", *args, "--trainer.max_steps", "5", "--trainer.val_check_interval", "100")
    return folder / "tiny", args


@pytest.mark.parametrize("how", SPOILT)
def test_a_broken_last_checkpoint_is_refused_and_the_one_before_it_is_offered(stopped, capsys, how):
    folder, args = stopped
    last = folder / "checkpoints" / "last.ckpt"
    good = last.read_bytes()
    spoil(last, how)
    message = refusal(capsys, "fit", *args, *STRAIGHT, "--ckpt_path", "last")
    last.write_bytes(good)
    assert "checkpoint" in message
    assert "step 5: go on with --ckpt_path" in message
    assert f"'{folder / 'checkpoints' / 'epoch=0-step=5.ckpt'}'" in message


def test_broken_ones_are_not_offered_and_the_offer_leads_to_the_same_set(stopped, capsys, straight, tmp_path):
    folder, args = stopped
    kept = {path: path.read_bytes() for path in (folder / "checkpoints").iterdir()}
    for name in ("last.ckpt", "epoch=0-step=5.ckpt"):
        spoil(folder / "checkpoints" / name, "zeroed")
    message = refusal(capsys, "fit", *args, *STRAIGHT, "--ckpt_path", "last")
    offer = message.split("--ckpt_path '")[1].split("'")[0]
    assert offer.endswith("epoch=0-step=4.ckpt")
    elsewhere = write_config(tmp_path)
    cli("fit", *elsewhere, *STRAIGHT, "--ckpt_path", offer)
    assert tensor_bytes(tmp_path / "tiny") == tensor_bytes(straight)
    spoil(Path(offer), "empty")
    assert "no other one beside it" in refusal(capsys, "fit", *args, *STRAIGHT, "--ckpt_path", "last")
    for path, content in kept.items():
        path.write_bytes(content)


def test_without_the_command_line_a_broken_checkpoint_is_one_sentence_too(tmp_path):
    path = tmp_path / "broken.ckpt"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match="Expected a complete checkpoint at"):
        AtomicCheckpointIO().load_checkpoint(path)
    with pytest.raises(CheckpointError, match="found no file"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "none.ckpt")


# ------------------------------------------------------------------ SIGTERM


def told_to_end_in(monkeypatch, method, when):
    """Send SIGTERM to this process in a method of the set, the first time it is called with this batch."""
    published = getattr(SyntheticSet, method)
    sent = []

    @functools.wraps(published)
    def signalling(module, batch, batch_idx):
        if batch == when and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        published(module, batch, batch_idx)

    monkeypatch.setattr(SyntheticSet, method, signalling)


@pytest.mark.parametrize(("method", "when", "saved"), [("training_step", 2, 3), ("validation_step", 0, 2)])
def test_sigterm_saves_between_updates_and_ends_with_its_own_code(
    tmp_path, capsys, monkeypatch, straight, method, when, saved
):
    args = write_config(tmp_path, save_every=100)
    often = [*STRAIGHT[:2], "--trainer.val_check_interval", "2", "--model.evaluation.quick_repeats", "2"]
    told_to_end_in(monkeypatch, method, when)
    with untouched_process(), pytest.raises(SystemExit) as stopped:
        main(["fit", *args, *often])
    assert stopped.value.code == 143
    assert "--ckpt_path last" in capsys.readouterr().err
    assert checkpoint_of(tmp_path / "tiny")["global_step"] == saved
    assert files_in(tmp_path / "tiny" / "checkpoints") == {"last.ckpt"}
    card = card_of(tmp_path / "tiny")
    assert (card["update"], card["evaluation"], card["stopped"]) == (saved, None, "by SIGTERM")
    assert torch.equal(load_condensed(tmp_path / "tiny").images, pixels_of(checkpoint_of(tmp_path / "tiny")))
    judged = []
    published = SyntheticSet.on_validation_epoch_end

    def counting(module):
        judged.append((module.trainer.global_step, sorted(module._accuracies)))
        published(module)

    monkeypatch.setattr(SyntheticSet, "on_validation_epoch_end", counting)
    cli("fit", *args, *often, "--ckpt_path", "last")
    assert tensor_bytes(tmp_path / "tiny") == tensor_bytes(straight)
    # an evaluation is made of all its networks or not at all
    assert [networks for _, networks in judged] == [[0, 1]] * len(judged)
    assert [step for step, _ in judged] == [4, 6, 8]


def test_in_python_the_callback_saves(tmp_path, monkeypatch):
    told_to_end_in(monkeypatch, "training_step", 1)
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=100, save_last=True)
    with pytest.raises(SIGTERMException):
        fitted(GradientMatching(), SaveOnSigterm(), saving, trainer={"enable_checkpointing": True})
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


def test_the_command_line_writes_atomically_unless_told_otherwise(tmp_path):
    config = tiny_config(tmp_path)
    for plugins, kind in ((None, AtomicCheckpointIO), ([{"class_path": "tests.runs.test_checkpointing.Other"}], Other)):
        config["trainer"]["plugins"] = plugins
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
        done = cli("fit", "--config", tmp_path / "run.yaml", "--trainer.max_steps", "1", "--overwrite", "true")
        assert type(done.trainer.strategy.checkpoint_io) is kind


class Other(AtomicCheckpointIO):
    """Another way to write checkpoints."""
