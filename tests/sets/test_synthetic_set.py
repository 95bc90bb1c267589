from __future__ import annotations

import logging
import warnings
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_condense import SyntheticSet
from lit_condense.errors import SettingsError
from lit_condense.init import RandomReal
from lit_condense.matching import GradientMatching
from lit_condense.parametrization import Pixels
from tests.helpers import Recorder, TinyData, fitted, quiet_trainer, tiny_convnet

UPSTREAM = ".*isinstance.treespec, LeafSpec.* is deprecated"  # Lightning 2.6.6 under newer torch
CHECKPOINTS = {"enable_checkpointing": True}


def same_bytes(module, other):
    return torch.equal(module.images, other.images) and torch.equal(module.labels, other.labels)


def test_the_images_are_the_only_parameter_and_the_inner_network_is_not_part_of_the_module():
    module = fitted()
    assert [name for name, _ in module.named_parameters()] == ["synthetic_data.images"]
    assert next(module.parameters()) is module.images
    assert sorted(module.state_dict()) == ["_extra_state", "images", "labels"]
    assert list(module.children()) == [module.synthetic_data]


def test_plain_python_needs_five_lines():
    module = SyntheticSet(ipc=1, network=tiny_convnet(), seed=0)
    trainer = quiet_trainer(GradientMatching(), max_steps=2)
    trainer.fit(module, datamodule=TinyData())
    assert module.images.shape == (5, 1, 8, 8)
    assert module.labels.tolist() == [0, 1, 2, 3, 4]
    assert trainer.global_step == 2


def test_every_update_changes_the_images_and_counts_as_one_step():
    recorder = Recorder()
    module = fitted(GradientMatching(), recorder, max_steps=4)
    assert module.trainer.global_step == 4
    assert len(recorder.images) == 5
    assert all(not torch.equal(a, b) for a, b in zip(recorder.images, recorder.images[1:], strict=False))


def test_classes_may_have_different_numbers_of_images():
    module = fitted(ipc=[2, 1, 3, 1, 4])
    assert module.images.shape == (11, 1, 8, 8)
    assert module.labels.tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 4]
    assert module.labels.dtype == torch.int64


def test_the_real_images_stay_as_they_were():
    data = TinyData()
    before = data.real.images.clone()
    module = fitted(data=data)
    assert torch.equal(module.data.real.images, before)


def test_a_checkpoint_gives_images_and_labels_without_arguments(tmp_path):
    module = fitted(
        ModelCheckpoint(tmp_path, save_last=True), GradientMatching(), ipc=[2, 1, 3, 1, 2], trainer=CHECKPOINTS
    )
    loaded = SyntheticSet.load_from_checkpoint(tmp_path / "last.ckpt")
    assert same_bytes(module, loaded)
    assert not torch.equal(loaded.images, torch.zeros_like(loaded.images))


def test_a_loaded_set_is_not_made_anew_by_the_next_command(tmp_path):
    module = fitted(ModelCheckpoint(tmp_path, save_last=True), GradientMatching(), trainer=CHECKPOINTS)
    loaded = SyntheticSet.load_from_checkpoint(tmp_path / "last.ckpt")
    predicted = quiet_trainer().predict(loaded, datamodule=TinyData())[0]
    expected = quiet_trainer().predict(module, datamodule=TinyData())[0]
    assert same_bytes(module, loaded)
    assert torch.equal(predicted["images"], expected["images"])


@pytest.mark.parametrize("space", ["normalized", "pixel"])
def test_predict_returns_the_set_in_pixel_space(space):
    module = fitted(parametrization=Pixels(space), init=RandomReal(), optimizer=partial(torch.optim.SGD, lr=1e-6))
    predicted = quiet_trainer().predict(module, datamodule=TinyData())
    assert len(predicted) == 1
    images, labels = predicted[0]["images"], predicted[0]["labels"]
    used = module.data.real.normalization
    mean, std = (torch.tensor(v)[:, None, None] for v in (used.mean, used.std))
    stored = module.images.detach()
    torch.testing.assert_close(images, stored * std + mean if space == "normalized" else stored, rtol=1e-5, atol=1e-6)
    assert torch.equal(labels, module.labels)
    assert images.dtype == torch.float32
    # the steps were tiny, so these are real images still
    assert images.min() > -1e-3
    assert images.max() < 1 + 1e-3


@pytest.mark.parametrize("settings", [{"max_steps": -1}, {"max_steps": -1, "trainer": {"max_epochs": 1}}])
@pytest.mark.timeout(60)  # the run that must not start has no end
def test_a_run_without_an_end_is_refused(settings):
    with pytest.raises(SettingsError, match="max_steps"):
        fitted(**settings)


@pytest.mark.parametrize("max_steps", [1, 3])
def test_a_run_that_cuts_a_network_short_warns(max_steps):
    with pytest.warns(UserWarning, match=f"max_steps={max_steps} is no multiple of the 2 updates"):
        fitted(max_steps=max_steps)


def test_a_run_of_whole_networks_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=UPSTREAM)
        fitted(max_steps=4)


@pytest.mark.parametrize(("max_steps", "networks"), [(4, 2), (5, 3)])
@pytest.mark.filterwarnings("ignore:max_steps=5 is no multiple")
def test_the_start_of_a_run_says_networks_times_updates(caplog, max_steps, networks):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger.name):
            fitted(max_steps=max_steps)
    finally:
        logger.removeHandler(caplog.handler)
    line = next(record.message for record in caplog.records if "Condensing" in record.message)
    assert f"{networks} network(s) x 2 update(s) each" in line
    assert "tiny to 10 images" in line
    assert "ConvNet(depth=2,width=4)" in line
