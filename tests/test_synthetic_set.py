from __future__ import annotations

import logging
import random
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_condense import SyntheticSet
from lit_condense.engine import Engine
from lit_condense.errors import SettingsError
from lit_condense.evaluation import Evaluation
from lit_condense.functional import distances
from lit_condense.inner import TrainOnSynthetic
from lit_condense.matching import GradientMatching
from lit_condense.networks import MLP
from lit_condense.parametrization import Pixels, RandomReal
from lit_condense.sampling import RandomSampling
from tests.helpers import DistanceLoss, Recorder, TinyData, quiet_trainer, tiny_convnet

UPSTREAM = "isinstance.treespec, LeafSpec.* is deprecated"  # Lightning 2.6.6 under newer torch
pytestmark = pytest.mark.filterwarnings(f"ignore:.*{UPSTREAM}")


def tiny_set(**settings):
    """A set of two images a class, two updates a network, judged by four passes."""
    defaults = {
        "ipc": 2,
        "network": tiny_convnet(),
        "inner": TrainOnSynthetic(updates=2, epochs=2),
        "sampling": RandomSampling(6),
        "evaluation": Evaluation(epochs=3, quick_repeats=2, repeats=2),
        "seed": 3,
    }
    return SyntheticSet(**{**defaults, **settings})


def fit(*callbacks, max_steps=4, trainer=None, data=None, **settings):
    """Return a set after a run, with its trainer at ``module.trainer``."""
    module = tiny_set(**settings)
    losses = callbacks or (GradientMatching(),)
    quiet_trainer(*losses, max_steps=max_steps, **(trainer or {})).fit(module, datamodule=data or TinyData())
    return module


def same_bytes(module, other):
    return torch.equal(module.images, other.images) and torch.equal(module.labels, other.labels)


# -------------------------------------------------------------------- what the module is


def test_the_images_are_the_only_parameter_and_the_inner_network_is_not_part_of_the_module():
    module = fit()
    assert [name for name, _ in module.named_parameters()] == ["images"]
    assert next(module.parameters()) is module.images
    assert list(module.state_dict()) == ["images", "labels"]
    assert list(module.children()) == []


def test_plain_python_needs_five_lines():
    module = SyntheticSet(ipc=1, network=tiny_convnet(), seed=0)
    trainer = quiet_trainer(GradientMatching(), max_steps=2)
    trainer.fit(module, datamodule=TinyData())
    assert module.images.shape == (5, 1, 8, 8)
    assert module.labels.tolist() == [0, 1, 2, 3, 4]
    assert trainer.global_step == 2


def test_every_update_changes_the_images_and_counts_as_one_step():
    recorder = Recorder()
    module = fit(GradientMatching(), recorder, max_steps=4)
    assert module.trainer.global_step == 4
    assert len(recorder.images) == 5
    assert all(not torch.equal(a, b) for a, b in zip(recorder.images, recorder.images[1:], strict=False))


def test_classes_may_have_different_numbers_of_images():
    module = fit(ipc=[2, 1, 3, 1, 4])
    assert module.images.shape == (11, 1, 8, 8)
    assert module.labels.tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 4]
    assert module.labels.dtype == torch.int64


def test_the_real_images_stay_as_they_were():
    data = TinyData()
    before = data.real.fingerprint()
    module = fit(data=data)
    assert (
        type(module.data.real)(
            module.data.real.images, module.data.real.labels, 5, data.real.normalization, data.class_names
        ).fingerprint()
        == before
    )


def test_a_checkpoint_gives_images_and_labels_without_arguments(tmp_path):
    module = fit(
        ModelCheckpoint(tmp_path, save_last=True), GradientMatching(), ipc=[2, 1, 3, 1, 2], trainer=CHECKPOINTS
    )
    loaded = SyntheticSet.load_from_checkpoint(tmp_path / "last.ckpt")
    assert same_bytes(module, loaded)
    assert not torch.equal(loaded.images, torch.zeros_like(loaded.images))


CHECKPOINTS = {"enable_checkpointing": True}


def test_a_loaded_set_is_not_made_anew_by_the_next_command(tmp_path):
    module = fit(ModelCheckpoint(tmp_path, save_last=True), GradientMatching(), trainer=CHECKPOINTS)
    loaded = SyntheticSet.load_from_checkpoint(tmp_path / "last.ckpt")
    predicted = quiet_trainer().predict(loaded, datamodule=TinyData())[0]
    expected = quiet_trainer().predict(module, datamodule=TinyData())[0]
    assert same_bytes(module, loaded)
    assert torch.equal(predicted["images"], expected["images"])


@pytest.mark.parametrize("space", ["normalized", "pixel"])
def test_predict_returns_the_set_in_pixel_space(space):
    module = fit(parametrization=Pixels(space), init=RandomReal(), optimizer=partial(torch.optim.SGD, lr=1e-6))
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


# -------------------------------------------------------------------- what decides the result


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    first, again, other = fit(seed=3), fit(seed=3), fit(seed=4)
    assert same_bytes(first, again)
    assert not torch.equal(first.images, other.images)


def test_the_seed_is_that_of_seed_everything_unless_one_is_given(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # put back afterwards, whatever seed_everything writes
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    seed_everything(7, verbose=False)
    by_environment, given = fit(seed=None), fit(seed=3)
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    random.setstate(states[2])
    assert by_environment.seed == 7
    assert same_bytes(by_environment, fit(seed=7))
    assert same_bytes(given, fit(seed=3))


def test_what_was_drawn_before_does_not_matter():
    torch.rand(5)
    first = fit()
    torch.rand(17)
    assert same_bytes(first, fit())


VALIDATING = {"limit_val_batches": None, "val_check_interval": 1}


@pytest.mark.parametrize("trainer", [{}, VALIDATING], ids=["without validation", "with validation"])
def test_a_fit_leaves_the_global_generators_as_they_were(trainer):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    fit(trainer=trainer)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]


@pytest.mark.parametrize("protocol", ["dc", "dsa", "idc"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_evaluating_during_a_run_does_not_change_the_set(protocol, norm):
    network = tiny_convnet(norm)
    judged = fit(trainer=VALIDATING, network=network, evaluation=Evaluation(protocol, epochs=3, quick_repeats=1))
    assert 0 <= judged.trainer.callback_metrics["val/acc"] <= 1
    assert same_bytes(judged, fit(network=network))


@pytest.mark.parametrize("space", ["normalized", "pixel"])
def test_validation_works_in_every_space(space):
    judged = fit(trainer=VALIDATING, parametrization=Pixels(space))
    assert 0 <= judged.trainer.callback_metrics["val/acc"] <= 1


@pytest.mark.parametrize("ipc", [2, [2, 1, 2, 2, 2]])
def test_the_block_size_does_not_change_the_images(ipc):
    one, *others = (fit(ipc=ipc, engine=Engine(classes_per_block=k), trainer=DOUBLE) for k in (1, 2, 5))
    for other in others:
        torch.testing.assert_close(one.images, other.images, rtol=1e-12, atol=1e-12)


DOUBLE = {"precision": "64-true"}


def test_double_precision_is_the_same_run_with_more_digits():
    assert_nearly_equal(fit(trainer=DOUBLE).images, fit().images.double())


def assert_nearly_equal(images, other):
    torch.testing.assert_close(images, other, rtol=1e-3, atol=1e-3)


def test_double_precision_can_be_evaluated():
    judged = fit(trainer={**VALIDATING, **DOUBLE})
    assert 0 <= judged.trainer.callback_metrics["val/acc"] <= 1


# -------------------------------------------------------------------- matching losses


def seen_progress(loss):
    """The progress numbers a loss was asked for, each once, in order."""
    return list(dict.fromkeys(loss.asked))


def test_a_loss_sees_update_network_and_match_numbers():
    loss = DistanceLoss(distances.row_cosine)
    fit(loss, inner=TrainOnSynthetic(updates=3, epochs=1), max_steps=9)
    assert seen_progress(loss) == [(u, u // 3, u % 3) for u in range(9)]


def test_the_published_loops_decide_about_the_match_numbers():
    loss = DistanceLoss(distances.row_cosine)
    # ipc 2 is not published: as many updates as images
    fit(loss, inner=TrainOnSynthetic(epochs=0), ipc=2, max_steps=4)
    assert seen_progress(loss) == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]


def step_of(*losses, **settings):
    """The change of the images by one update of plain SGD with rate 1, in double precision."""
    recorder = Recorder()
    sgd = partial(torch.optim.SGD, lr=1.0)
    module = fit(*losses, recorder, max_steps=2, optimizer=sgd, trainer=DOUBLE, **settings)
    return recorder.images[1] - recorder.images[0], module.trainer.callback_metrics


def test_a_second_loss_adds_with_its_weight_in_either_order():
    angle, size = GradientMatching(name="angle", weight=2.0), GradientMatching("l1", name="size", weight=0.25)
    only_angle, only_size = (step_of(loss)[0] for loss in (angle, size))
    both, metrics = step_of(angle, size)
    turned, turned_metrics = step_of(size, angle)
    torch.testing.assert_close(both, only_angle + only_size, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(turned, both, rtol=1e-12, atol=1e-14)
    for found in (metrics, turned_metrics):
        total = 2 * found["loss/angle"] + 0.25 * found["loss/size"]
        torch.testing.assert_close(found["loss/total"].double(), total.double(), rtol=1e-6, atol=0)


def test_the_weight_is_a_factor_on_the_gradient():
    plain, heavy = (step_of(GradientMatching(weight=w))[0] for w in (1.0, 5.0))
    torch.testing.assert_close(heavy, 5 * plain, rtol=1e-10, atol=1e-13)


def never(real, synthetic):
    raise AssertionError("a loss of weight 0 was computed")


def test_a_loss_of_weight_zero_is_skipped():
    alone = step_of(GradientMatching())[0]
    beside, _ = step_of(GradientMatching(), DistanceLoss(never, weight=0.0, name="off"))
    assert torch.equal(alone, beside)


def test_a_loss_may_be_switched_off_for_part_of_a_run():
    def only_first(progress):
        return float(progress.match_index == 0)

    recorder = Recorder()
    fit(DistanceLoss(distances.row_cosine, weights=only_first), recorder, optimizer=partial(torch.optim.SGD, lr=0.1))
    changed = [not torch.equal(a, b) for a, b in zip(recorder.images, recorder.images[1:], strict=False)]
    # nothing else is configured, so the updates without it leave the images alone
    assert changed == [True, False, True, False]


def test_a_run_without_a_matching_loss_is_refused():
    with pytest.raises(SettingsError, match="at least one matching loss"):
        fit(Recorder())


# -------------------------------------------------------------------- the length of a run


@pytest.mark.parametrize("settings", [{"max_steps": -1}, {"max_steps": -1, "trainer": {"max_epochs": 1}}])
def test_a_run_without_an_end_is_refused(settings):
    with pytest.raises(SettingsError, match="max_steps"):
        fit(**settings)


@pytest.mark.parametrize("max_steps", [1, 3])
def test_a_run_that_cuts_a_network_short_warns(max_steps):
    with pytest.warns(UserWarning, match=f"max_steps={max_steps} is no multiple of the 2 updates"):
        fit(max_steps=max_steps)


def test_a_run_of_whole_networks_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=f".*{UPSTREAM}")
        fit(max_steps=4)


@pytest.mark.parametrize(("max_steps", "networks"), [(4, 2), (5, 3)])
@pytest.mark.filterwarnings("ignore:max_steps=5 is no multiple")
def test_the_start_of_a_run_says_networks_times_updates(caplog, max_steps, networks):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger.name):
            fit(max_steps=max_steps)
    finally:
        logger.removeHandler(caplog.handler)
    line = next(record.message for record in caplog.records if "Condensing" in record.message)
    assert f"{networks} network(s) x 2 update(s) each" in line
    assert "tiny to 10 images" in line
    assert "ConvNet(depth=2,width=4)" in line


# -------------------------------------------------------------------- evaluation


def test_validation_and_test_report_mean_and_sample_spread_of_fresh_networks():
    module = fit()
    for name, run, repeats in (("val", "validate", 3), ("test", "test", 4)):
        module.evaluation = Evaluation(epochs=3, quick_repeats=3, repeats=4)
        trainer = quiet_trainer(limit_val_batches=None)
        metrics = getattr(trainer, run)(module, datamodule=TinyData(), verbose=False)[0]
        single = [module.judge().accuracy(module.network, i, module.training_set())[0] for i in range(repeats)]
        accuracies = torch.tensor(single, dtype=torch.float64)
        assert accuracies.std() > 0
        assert metrics[f"{name}/acc"] == pytest.approx(accuracies.mean().item(), abs=1e-6)
        assert metrics[f"{name}/acc_std"] == pytest.approx(accuracies.std(unbiased=True).item(), abs=1e-6)


def test_several_architectures_are_tested_each_on_its_own():
    module = fit(evaluation=Evaluation(networks=[tiny_convnet(), partial(MLP, width=5)], repeats=2, epochs=3))
    metrics = quiet_trainer().test(module, datamodule=TinyData(), verbose=False)[0]
    for factory, name in ((tiny_convnet(), "ConvNet(depth=2,width=4)"), (partial(MLP, width=5), "MLP(width=5)")):
        single = [module.judge().accuracy(factory, i, module.training_set())[0] for i in range(2)]
        assert metrics[f"test/acc/{name}"] == pytest.approx(sum(single) / 2, abs=1e-6)
    assert metrics["test/acc"] == metrics["test/acc/ConvNet(depth=2,width=4)"]
