"""However a run ends, last checkpoint, set and card are of the same update; a dry run leaves all of them alone."""

from __future__ import annotations

import functools
import os
import signal

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_condense import SyntheticSet, load_condensed
from lit_condense.callbacks import FinalReport, SaveOnSignal, SaveOnSigterm
from lit_condense.cli import main
from lit_condense.data import Digits
from lit_condense.errors import BetweenUpdates, SettingsError
from lit_condense.evaluation import Evaluator
from lit_condense.matching import GradientMatching
from lit_condense.runs.checkpointing import DryRunIO
from tests.cli_helpers import (
    card_of,
    checkpoint_of,
    cli,
    contents,
    refusal,
    tiny_config,
    untouched_process,
    write_config,
)
from tests.helpers import fitted
from tests.sets.test_selected_set import selection_config
from tests.test_resume import tensor_bytes

EIGHT = ["--trainer.max_steps", "8", "--trainer.val_check_interval", "100"]


@pytest.fixture(autouse=True)
def hears_ctrl_c():
    """A shell starts what it puts into the background with Ctrl-C ignored, and Python then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def agree(folder):
    """Return the update of the last checkpoint, whose images are those of the written set."""
    checkpoint, written = checkpoint_of(folder), load_condensed(folder)
    to_pixels = Digits(train_limit_per_class=10).real.normalization.denormalize
    assert torch.equal(written.images, to_pixels(checkpoint["state_dict"]["images"]))
    assert written.card["update"] == card_of(folder)["update"] == checkpoint["global_step"]
    assert (folder / "grid.png").stat().st_size > 0
    return checkpoint["global_step"]


def logged_steps(folder, tag="loss/total"):
    log = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    log.Reload()
    return [event.step for event in log.Scalars(tag)]


def goes_on(folder, args, straight, *more):
    """Resume what is in a folder to 8 updates: it ends as if nothing had happened."""
    cli("fit", *args, *EIGHT, *more, "--ckpt_path", "last")
    assert tensor_bytes(folder) == tensor_bytes(straight)
    assert agree(folder) == 8
    assert card_of(folder)["evaluation"] is not None
    assert logged_steps(folder) == list(range(8))


class Ending(Callback):
    """Asks the trainer to stop after an update, or after the evaluation that follows it."""

    def __init__(self, update, after="update"):
        self.update = update
        self.after = after

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.after == "update" and trainer.global_step == self.update:
            trainer.should_stop = True

    def on_validation_end(self, trainer, pl_module):
        if self.after == "evaluation" and trainer.global_step == self.update:
            trainer.should_stop = True


# ------------------------------------------------------------------ the same update


@pytest.mark.parametrize(
    ("interval", "evaluations"),
    [("3", "100"), ("100", "100"), *(pytest.param(i, "5", marks=pytest.mark.slow) for i in ("3", "100"))],
)
def test_a_run_that_ends_between_two_checkpoints_writes_its_last_one(tmp_path, straight, interval, evaluations):
    args = write_config(tmp_path, save_every=int(interval))
    cli("fit", *args, "--trainer.max_steps", "5", "--trainer.val_check_interval", evaluations)
    assert agree(tmp_path / "tiny") == 5
    goes_on(tmp_path / "tiny", args, straight)


@pytest.mark.parametrize("after", ["update", "evaluation"])
def test_a_run_that_a_callback_ends_does_so_too(tmp_path, straight, after):
    config = tiny_config(tmp_path, save_every=100)
    ending = {"class_path": "tests.runs.test_ends_of_runs.Ending", "init_args": {"update": 5, "after": after}}
    config["trainer"]["callbacks"].append(ending)
    (tmp_path / "ending.yaml").write_text(yaml.safe_dump(config))
    cli("fit", "--config", tmp_path / "ending.yaml", *EIGHT[:2], "--trainer.val_check_interval", "5")
    assert agree(tmp_path / "tiny") == 5
    goes_on(tmp_path / "tiny", write_config(tmp_path, save_every=100), straight)


def test_a_run_whose_time_is_over_does_so_too(tmp_path, straight):
    args = write_config(tmp_path, save_every=1000)
    endless = ["--trainer.max_steps", "1000000", "--trainer.limit_val_batches", "0"]
    cli("fit", *args, *endless, "--trainer.max_time", "00:00:00:02")
    assert agree(tmp_path / "tiny") > 0


def test_a_fit_from_an_earlier_checkpoint_with_nothing_left_to_do_agrees_too(tmp_path):
    args = write_config(tmp_path)
    cli("fit", *args)
    earlier = tmp_path / "tiny" / "checkpoints" / "epoch=0-step=3.ckpt"
    cli("fit", *args, "--trainer.max_steps", "3", "--ckpt_path", earlier)
    assert agree(tmp_path / "tiny") == 3


def test_a_selection_that_ends_in_its_training_goes_on_from_there(tmp_path):
    args = selection_config(tmp_path, ("EL2N", {"networks": 1}), save_every=100)
    with pytest.warns(UserWarning, match="There is no report"):
        cli("fit", *args, "--trainer.max_steps", "4")
    assert checkpoint_of(tmp_path / "tiny")["global_step"] == 4
    cli("fit", *args, "--ckpt_path", "last")
    straight = selection_config(tmp_path, ("EL2N", {"networks": 1}), name="straight")
    cli("fit", *straight)
    assert tensor_bytes(tmp_path / "tiny") == tensor_bytes(tmp_path / "straight")
    assert card_of(tmp_path / "tiny")["update"] == checkpoint_of(tmp_path / "tiny")["global_step"]


@pytest.mark.parametrize("save_every", [2, 100])
def test_a_run_that_stops_at_a_bad_value_agrees_too(tmp_path, capsys, save_every):
    config = tiny_config(tmp_path, save_every=save_every)
    config["trainer"]["callbacks"][0] = {"class_path": "tests.helpers.Poisoned", "init_args": {"updates": [3]}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    args = ["fit", "--config", tmp_path / "run.yaml", *EIGHT]
    assert "became nan in update 3" in refusal(capsys, *args)
    assert agree(tmp_path / "tiny") == 3
    assert "became nan in update 3" in card_of(tmp_path / "tiny")["stopped"]
    with pytest.warns(UserWarning, match="The update is skipped"):
        cli(*args, "--ckpt_path", "last", "--model.non_finite", "skip")
    assert logged_steps(tmp_path / "tiny") == list(range(8))


# ------------------------------------------------------------------ Ctrl-C


def interrupted_in(monkeypatch, method, when, times=1):
    """Press Ctrl-C in a method of the set, the first time it is called with this batch."""
    published, pressed = getattr(SyntheticSet, method), []

    @functools.wraps(published)
    def interrupting(module, batch, batch_idx):
        if batch == when and not pressed:
            pressed.append(True)
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        published(module, batch, batch_idx)

    monkeypatch.setattr(SyntheticSet, method, interrupting)


def stopped_by_ctrl_c(capsys, *args):
    capsys.readouterr()
    with untouched_process(), pytest.raises(SystemExit) as stopped:
        main(["fit", *map(str, args)])
    assert stopped.value.code == 130
    said = capsys.readouterr().err
    assert "lit-condense: stopped by Ctrl-C" in said
    assert "--ckpt_path last" in said
    assert "Traceback" not in said
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return said


SLOW = pytest.mark.slow
ENDS = [
    ("training_step", 2, 3),
    pytest.param("training_step", 3, 4, marks=SLOW),
    pytest.param("training_step", 7, 8, marks=SLOW),
    ("validation_step", 0, 2),
]


@pytest.mark.parametrize(("method", "when", "saved"), ENDS)
def test_ctrl_c_saves_between_updates_and_the_run_goes_on(tmp_path, capsys, monkeypatch, straight, method, when, saved):
    args = write_config(tmp_path, save_every=100)
    often = [*EIGHT[:2], "--trainer.val_check_interval", "2", "--model.evaluation.quick_repeats", "2"]
    interrupted_in(monkeypatch, method, when)
    said = stopped_by_ctrl_c(capsys, *args, *often)
    assert ("Press it again" in said) == (method == "training_step")
    folder = tmp_path / "tiny"
    assert agree(folder) == saved
    assert (card_of(folder)["evaluation"], card_of(folder)["stopped"]) == (None, "by Ctrl-C")
    judged = []
    published = SyntheticSet.on_validation_epoch_end

    def counting(module):
        judged.append((module.trainer.global_step, sorted(module._accuracies)))
        published(module)

    monkeypatch.setattr(SyntheticSet, "on_validation_epoch_end", counting)
    goes_on(folder, args, straight, *often[2:])
    # an evaluation is made of all its networks or not at all
    assert [networks for _, networks in judged] == [[0, 1]] * len(judged)
    assert [step for step, _ in judged] == [step for step in (4, 6, 8) if step > saved]


def test_a_second_ctrl_c_ends_an_update_in_the_middle_and_keeps_what_was_saved_before(tmp_path, capsys, monkeypatch):
    args = write_config(tmp_path, save_every=2)
    interrupted_in(monkeypatch, "training_step", 3, times=2)
    stopped_by_ctrl_c(capsys, *args, *EIGHT)
    assert checkpoint_of(tmp_path / "tiny")["global_step"] == 2
    assert not (tmp_path / "tiny" / "card.json").exists()


def test_in_python_ctrl_c_ends_between_updates_too(tmp_path, monkeypatch):
    interrupted_in(monkeypatch, "training_step", 1)
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=100, save_last=True)
    with pytest.raises(SystemExit) as stopped:
        fitted(GradientMatching(), SaveOnSignal(), saving, trainer={"enable_checkpointing": True})
    assert isinstance(stopped.value.__context__, BetweenUpdates)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2
    assert SaveOnSigterm is SaveOnSignal


def test_a_handler_of_ones_own_is_left_alone(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(signal, "default_int_handler", signal.default_int_handler)
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        interrupted_in(monkeypatch, "training_step", 1)
        module = fitted(GradientMatching(), SaveOnSignal(), max_steps=4)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [True]
    assert module.trainer.global_step == 4


# ------------------------------------------------------------------ the final evaluation


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError, RuntimeError])
def test_whatever_ends_the_final_evaluation_the_set_is_there_and_a_second_fit_completes_its_card(
    tmp_path, capsys, monkeypatch, error
):
    args, folder = [*write_config(tmp_path, save_every=3), "--trainer.val_check_interval", "100"], tmp_path / "tiny"

    def failing(*_, **__):
        raise error("in the final evaluation")

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "score", failing)
        if error is KeyboardInterrupt:
            said = stopped_by_ctrl_c(capsys, *args)
        else:
            with untouched_process(), pytest.raises(error):
                main(["fit", *map(str, args)])
            said = capsys.readouterr().err
    assert f"The set, its card and its picture are in {folder}" in said
    assert agree(folder) == 4
    card = card_of(folder)
    assert card["evaluation"] is None
    assert card["final_evaluation"].startswith("pending")
    assert card["seconds"]["condensing"] > 0
    cli("fit", *args, "--ckpt_path", "last")
    completed = card_of(folder)
    assert completed["evaluation"]["condensed"][0]["networks"] == 2
    assert "final_evaluation" not in completed
    assert completed["sha256"] == card["sha256"]


def test_an_evaluated_card_is_not_replaced_by_a_pending_one_of_the_same_set(tmp_path, monkeypatch):
    args = [*write_config(tmp_path), "--trainer.val_check_interval", "100"]
    cli("fit", *args)
    before = card_of(tmp_path / "tiny")

    def failing(*_, **__):
        raise RuntimeError("in the final evaluation")

    monkeypatch.setattr(Evaluator, "score", failing)
    with pytest.raises(RuntimeError):
        cli("fit", *args, "--ckpt_path", "last")
    assert card_of(tmp_path / "tiny") == before


# ------------------------------------------------------------------ dry runs


def settings_of_a_selection(folder):
    return selection_config(
        folder,
        ("EL2N", {"networks": 1}),
        proxy={
            "class_path": "lit_condense.selection.ProxyTraining",
            "init_args": {"epochs": 1, "batch_size": 100, "cache": str(folder / "tiny" / "proxy")},
        },
    )


@pytest.mark.parametrize("make", [write_config, settings_of_a_selection])
def test_a_dry_run_touches_nothing(tmp_path, make):
    args = make(tmp_path)
    empty = {path.name for path in tmp_path.iterdir()}
    cli("fit", *args, "--trainer.fast_dev_run", "2")
    assert {path.name for path in tmp_path.iterdir()} == empty
    cli("fit", *args)
    for path in (tmp_path / "tiny").glob("proxy/*"):
        path.unlink()
    before = contents(tmp_path)
    for command in (["fit"], ["fit", "--ckpt_path", "last"]):
        cli(*command, *args, "--trainer.fast_dev_run", "1")
        assert contents(tmp_path) == before, command
    (tmp_path / "tiny" / "card.json").unlink()  # predict keeps a set that stands, and so would touch nothing anyway
    before = contents(tmp_path)
    for command in ("validate", "test", "predict"):
        cli(command, *args, "--ckpt_path", "last", "--trainer.fast_dev_run", "true")
        assert contents(tmp_path) == before, command


def test_in_python_a_dry_run_touches_nothing_and_the_callback_saves_in_the_next_run(tmp_path):
    saving = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=1, save_last=True)
    report = FinalReport(str(tmp_path))
    dry = fitted(
        GradientMatching(), SaveOnSignal(), saving, report, trainer={"enable_checkpointing": True, "fast_dev_run": 2}
    )
    dry.trainer.save_checkpoint(tmp_path / "by_hand.ckpt")
    assert list(tmp_path.iterdir()) == []
    assert isinstance(dry.trainer.strategy.checkpoint_io, DryRunIO)
    fitted(GradientMatching(), saving, max_steps=2, trainer={"enable_checkpointing": True})
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_a_fit_that_would_do_no_update_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="limit_train_batches to be above 0"):
        fitted(GradientMatching(), FinalReport(str(tmp_path)), trainer={"limit_train_batches": 0})
    assert not (tmp_path / "card.json").exists()


def test_few_batches_an_epoch_change_nothing():
    straight = fitted(max_steps=4).images
    assert torch.equal(fitted(max_steps=4, trainer={"limit_train_batches": 3}).images, straight)
    assert torch.equal(fitted(max_steps=4, trainer={"overfit_batches": 3}).images, straight)
