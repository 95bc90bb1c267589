"""A loss, gradient or image that is NaN or infinite: the run stops and says why, or skips the update and goes on."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_condense import SyntheticSet
from lit_condense.errors import NonFiniteError, SettingsError
from lit_condense.inner import TrainOnSynthetic
from lit_condense.matching import ClassMeanGradientMatching, GradientMatching
from lit_condense.runs.checkpointing import AtomicCheckpointIO
from lit_condense.sampling import Representative
from tests.cli_helpers import card_of, checkpoint_of, cli, refusal, tiny_config
from tests.helpers import Poisoned, Recorder, fitted, quiet_trainer

SKIPPING = pytest.mark.filterwarnings("ignore:.*The update is skipped")


class Exploding(torch.optim.SGD):
    """SGD whose step number 2 makes everything infinite, its momentum too."""

    steps = 0

    def step(self, closure=None):
        super().step(closure)
        if self.steps == 2:
            for values in self.state.values():
                values["momentum_buffer"].fill_(torch.inf)
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.fill_(torch.inf)
        self.steps += 1


def moves(recorder):
    return [not torch.equal(a, b) for a, b in zip(recorder.images, recorder.images[1:], strict=False)]


# ------------------------------------------------------------------ stop


@pytest.mark.parametrize("what", ["nan", "inf"])
def test_the_message_names_the_callback_and_the_update(what):
    recorder = Recorder()
    with pytest.raises(NonFiniteError, match=rf"Loss bad became {what} in update 2\."):
        fitted(GradientMatching(), Poisoned((2,), what, name="bad"), recorder, max_steps=4)
    assert bool(recorder.images[-1].isfinite().all())
    assert len(recorder.images) == 3  # of the start and two updates


def test_of_several_losses_the_one_with_the_bad_gradient_is_named():
    losses = GradientMatching(), Poisoned((1,), "slope", name="bad"), ClassMeanGradientMatching(name="mean")
    with pytest.raises(NonFiniteError, match=r"The image gradient of bad became NaN or infinite in update 1"):
        fitted(*losses, max_steps=2)


def test_an_inner_network_that_diverged_is_named():
    with pytest.raises(NonFiniteError, match=r"in update 1\..*weights of the inner network"):
        fitted(inner=TrainOnSynthetic(2, epochs=3, lr=1e30), max_steps=2)


def test_a_wrong_choice_is_refused():
    with pytest.raises(SettingsError, match="'stop' or 'skip', got 'ignore'"):
        SyntheticSet(non_finite="ignore")


# ------------------------------------------------------------------ skip


@SKIPPING
@pytest.mark.parametrize("what", ["nan", "inf", "slope"])
def test_a_skipped_update_leaves_the_images_and_the_run_goes_on(what):
    recorder = Recorder()
    module = fitted(Poisoned((1, 4), what), recorder, max_steps=6, non_finite="skip")
    assert moves(recorder) == [True, False, True, True, False, True]
    assert module.trainer.global_step == 6
    assert float(module.trainer.callback_metrics["skipped_updates"]) == 2
    assert bool(module.images.isfinite().all())


@SKIPPING
def test_a_skipped_update_changes_nothing_of_the_optimizer():
    recorder, inner = Recorder(), TrainOnSynthetic(1)  # every update has a network of its own
    fitted(Poisoned((2, 3)), recorder, inner=inner, max_steps=3, non_finite="skip")
    start = recorder.images[0]
    # the momentum is that of two updates: as if there had been no third one
    sgd = fitted(Poisoned(()), inner=inner, max_steps=2, non_finite="skip").trainer.optimizers[0]
    again = fitted(Poisoned((2,)), inner=inner, max_steps=3, non_finite="skip")
    buffers = [next(iter(o.state.values()))["momentum_buffer"] for o in (sgd, again.trainer.optimizers[0])]
    assert torch.equal(*buffers)
    assert torch.equal(again.images, recorder.images[-1])
    assert not torch.equal(start, recorder.images[-1])


def test_skipping_changes_nothing_where_all_is_finite():
    assert torch.equal(fitted(non_finite="skip").images, fitted().images)


@SKIPPING
def test_images_and_momentum_that_a_step_made_infinite_are_put_back():
    recorder = Recorder()
    optimizer = partial(Exploding, lr=0.1, momentum=0.5)
    module = fitted(recorder, GradientMatching(), max_steps=5, optimizer=optimizer, non_finite="skip")
    assert moves(recorder) == [True, True, False, True, True]
    assert bool(module.images.isfinite().all())
    state = module.trainer.optimizers[0].state[module.images]
    assert bool(state["momentum_buffer"].isfinite().all())
    with pytest.raises(NonFiniteError, match="Update 2 made images"):
        fitted(GradientMatching(), max_steps=5, optimizer=optimizer)


@SKIPPING
def test_a_network_that_diverged_costs_its_own_updates_only():
    diverging = TrainOnSynthetic(3, epochs=3, lr=1e30)  # good until it is trained
    recorder = Recorder()
    fitted(recorder, GradientMatching(), inner=diverging, max_steps=6, non_finite="skip")
    assert moves(recorder) == [True, False, False] * 2


@SKIPPING
def test_representative_sampling_lives_through_a_network_that_diverged():
    diverging = TrainOnSynthetic(2, epochs=3, lr=1e30)
    recorder = Recorder()
    sampling = Representative(4, interval=1)
    fitted(recorder, GradientMatching(), inner=diverging, sampling=sampling, max_steps=4, non_finite="skip")
    assert moves(recorder) == [True, False] * 2


# ------------------------------------------------------------------ checkpoints


def test_images_that_are_not_finite_never_replace_a_checkpoint(tmp_path):
    class Spoiling(Recorder):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch == 2:
                pl_module.images.data[0] = torch.nan

    saving = ModelCheckpoint(tmp_path, every_n_train_steps=1, monitor="step", mode="max", save_top_k=2, save_last=True)
    trainer = {"enable_checkpointing": True, "plugins": [AtomicCheckpointIO()]}
    with pytest.raises(NonFiniteError, match="after 3 updates"):
        fitted(GradientMatching(), Spoiling(), saving, max_steps=4, trainer=trainer)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 2
    assert bool(kept["state_dict"]["images"].isfinite().all())
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "epoch=0-step=1.ckpt", "epoch=0-step=2.ckpt"}


@SKIPPING
def test_the_count_goes_on_after_a_break(tmp_path):
    module = fitted(Poisoned((1, 2)), max_steps=2, non_finite="skip")
    module.trainer.save_checkpoint(tmp_path / "break.ckpt")
    straight = fitted(Poisoned((1, 2)), max_steps=4, non_finite="skip")
    trainer = quiet_trainer(Poisoned((1, 2)), max_steps=4)
    again = SyntheticSet(
        2,
        straight.network,
        inner=straight.inner,
        sampling=straight.sampling,
        evaluation=straight.evaluation,
        seed=3,
        non_finite="skip",
    )
    trainer.fit(again, datamodule=straight.data, ckpt_path=tmp_path / "break.ckpt")
    assert float(trainer.callback_metrics["skipped_updates"]) == 2
    assert torch.equal(again.images, straight.images)


@SKIPPING
def test_a_run_that_stopped_can_go_on_by_skipping(tmp_path, capsys):
    config = tiny_config(
        tmp_path, inner={"class_path": "lit_condense.inner.TrainOnSynthetic", "init_args": {"updates": 1}}
    )
    config["trainer"]["callbacks"][0] = {"class_path": "tests.helpers.Poisoned", "init_args": {"updates": [2]}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    args = ["fit", "--config", tmp_path / "run.yaml", "--trainer.val_check_interval", "100"]
    assert "Loss Poisoned became nan in update 2" in refusal(capsys, *args)
    assert checkpoint_of(tmp_path / "tiny")["global_step"] == 2
    cli(*args, "--ckpt_path", "last", "--model.non_finite", "skip")
    card = card_of(tmp_path / "tiny")
    assert card["skipped_updates"] == 1
    assert card["update"] == 4
