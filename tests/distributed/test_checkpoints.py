"""Checkpoints of a group: one process writes them, and any number of processes goes on from them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_condense.callbacks import SaveOnSignal
from lit_condense.engine import Engine
from lit_condense.errors import BetweenUpdates, ExportError
from lit_condense.inner import TrainOnReal
from lit_condense.runs import checkpointing
from lit_condense.runs.checkpointing import AtomicCheckpointIO
from lit_condense.sampling import Representative
from tests.cli_helpers import checkpoint_of, python_m, tiny_config
from tests.distributed.cases import LARGE, two_levels
from tests.distributed.group import run_group
from tests.helpers import TinyData, fitted, quiet_trainer
from tests.processes import LOOPBACK

STOP, UPDATES = 3, 6
"""The break is in the life of the first network, which serves 4 updates, and after a choice of real images at 2."""


def settings():
    return {
        "sampling": Representative(6, interval=2, subset=12),
        "inner": TrainOnReal(4, images=16, batch_size=8),
        "engine": Engine(classes_per_block=2),
    }


def run_until(max_steps, folder=None, *more, ckpt_path=None, **trainer):
    """Return the set after a run that writes checkpoints into a folder, or goes on from one."""
    callbacks = [*two_levels(), *more]
    if folder is not None:
        callbacks.append(
            ModelCheckpoint(folder, every_n_train_steps=1, monitor="step", mode="max", save_top_k=2, save_last=True)
        )
        trainer |= {"enable_checkpointing": True, "plugins": [AtomicCheckpointIO()]}
    if ckpt_path is None:
        return fitted(*callbacks, max_steps=max_steps, data=TinyData(LARGE), trainer=trainer, **settings())
    module = fitted(*callbacks, max_steps=1, data=TinyData(LARGE), trainer={"fast_dev_run": True}, **settings())
    quiet_trainer(*callbacks, max_steps=max_steps, **trainer).fit(
        module, datamodule=TinyData(LARGE), ckpt_path=ckpt_path
    )
    return module


def _run(rank, world_size, folder):
    run_until(STOP, folder, devices=world_size, strategy="ddp")


def _go_on(rank, world_size, checkpoint, result):
    module = run_until(UPDATES, ckpt_path=checkpoint, devices=world_size, strategy="ddp")
    if rank == 0:
        torch.save(module.images.detach(), result)


def _run_without_room(rank, world_size, folder):
    def full(path, content):
        raise ExportError(f"Expected to write {path}, got: [Errno 28] No space left on device.")

    checkpointing.write_atomically = full
    run_until(STOP, folder, devices=world_size, strategy="ddp")


class ToldToEnd(Callback):
    """Sends a signal, SIGTERM or Ctrl-C's, to one process of the group in the middle of an update."""

    def __init__(self, rank, update, signum=int(signal.SIGTERM)):
        self.rank, self.update, self.signum = rank, update, signum

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.update):
            os.kill(os.getpid(), self.signum)


def _run_until_told(rank, world_size, folder, told):
    with pytest.raises(SIGTERMException):
        run_until(UPDATES, folder, SaveOnSignal(), ToldToEnd(told, STOP - 1), devices=world_size, strategy="ddp")


def _run_until_interrupted(rank, world_size, folder, interrupted):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pressed = ToldToEnd(interrupted, STOP - 1, signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        run_until(UPDATES, folder, SaveOnSignal(), pressed, devices=world_size, strategy="ddp")
    assert isinstance(stopped.value.__context__, BetweenUpdates)


def succeeded(group):
    codes, logs = group
    assert set(codes) == {0}, "\n".join(log[-3000:] for log in logs)


@pytest.mark.timeout(150)
@pytest.mark.filterwarnings("ignore:max_steps")
def test_another_number_of_processes_goes_on_to_the_same_set(tmp_path):
    succeeded(run_group(_run, 2, tmp_path, str(tmp_path)))
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {
        "last.ckpt",
        "epoch=0-step=2.ckpt",
        "epoch=0-step=3.ckpt",
    }
    last = str(tmp_path / "last.ckpt")
    straight = run_until(UPDATES).images
    torch.testing.assert_close(run_until(UPDATES, ckpt_path=last).images, straight, rtol=0, atol=1e-6)
    succeeded(run_group(_go_on, 3, tmp_path, last, str(tmp_path / "three.pt")))
    torch.testing.assert_close(torch.load(tmp_path / "three.pt"), straight.detach(), rtol=0, atol=1e-6)


@pytest.mark.timeout(150)
def test_no_process_waits_for_one_that_cannot_write(tmp_path):
    codes, logs = run_group(_run_without_room, 2, tmp_path, str(tmp_path / "checkpoints"), seconds=60)
    assert not {0, None} & set(codes), logs
    assert "No space left on device" in logs[0]
    assert not list(Path(tmp_path / "checkpoints").glob("*"))


@pytest.mark.timeout(150)
@pytest.mark.filterwarnings("ignore:max_steps")
@pytest.mark.parametrize("end", [_run_until_told, _run_until_interrupted])
def test_all_processes_end_between_updates_where_one_is_told_to(tmp_path, end):
    succeeded(run_group(end, 2, tmp_path, str(tmp_path), 1, seconds=60))
    last = tmp_path / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == STOP
    straight = run_until(UPDATES).images
    torch.testing.assert_close(run_until(UPDATES, ckpt_path=str(last)).images, straight, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_the_command_line_on_two_devices_saves_and_ends_where_one_process_is_told_to(tmp_path, rank, monkeypatch):
    config = tiny_config(tmp_path, save_every=100)
    told = {"class_path": "tests.distributed.test_checkpoints.ToldToEnd", "init_args": {"rank": rank, "update": 1}}
    config["trainer"]["callbacks"].append(told)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", LOOPBACK)
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = python_m("lit_condense", "fit", "--config", tmp_path / "run.yaml", *two)
    assert done.returncode == 143, done.stderr[-3000:]
    assert done.stderr.count("stopped by SIGTERM") == 1
    assert checkpoint_of(tmp_path / "tiny")["global_step"] == 2
