"""ZCA whitening against the published definition, in the data module, and through a whole run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lit_condense import SyntheticSet, load_condensed
from lit_condense.data import ZCA, Normalization, TensorImages
from lit_condense.data import zca as module_of_zca
from lit_condense.errors import DataError, ExportError, SettingsError
from lit_condense.export import CondensedSet, save_condensed
from lit_condense.init import FromFile, Noise, RandomReal
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.rng import RandomKey
from lit_condense.selection.proxy import ProxyTraining
from lit_condense.selection.task import ProxyTask
from lit_condense.settings import settings_of
from tests.cli_helpers import card_of, cli, refusal, write_config
from tests.helpers import TINY_SIZES, TinyData, fitted, quiet_trainer, resumed, tiny_convnet
from tests.oracles.zca import Whitening

# two features, worked out by hand and by kornia
ROWS = torch.tensor([[0, 0], [1, 0.5], [0, 1], [1, 1.5]], dtype=torch.float64).view(4, 1, 1, 2)
MATRIX = [[1.599187352089, -0.277778183868], [-0.277778183868, 1.460298260155]]
FIRST = [-0.591260038143, -0.956334603182]

SHAPE = (3, 4, 5)


def images_of(count, dtype=torch.uint8, seed=0):
    """Images of correlated pixels, with a border that is always 0."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, *SHAPE, generator=generator) / 2 + torch.rand(count, 1, 1, 1, generator=generator) / 2
    noise[..., 0] = 0
    return (255 * noise).to(torch.uint8) if dtype == torch.uint8 else noise.to(dtype)


def fitted_to(images, **settings):
    return ZCA(images, fitted_on="some images", **settings)


def in_01(images):
    return images.double() / 255 if images.dtype == torch.uint8 else images.double()


# ------------------------------------------------------------------ the map


def test_the_example_that_was_worked_out():
    zca = fitted_to(ROWS)
    whitened = zca.normalize(ROWS)
    torch.testing.assert_close(whitened[0].flatten(), torch.tensor(FIRST, dtype=torch.float64), rtol=0, atol=1e-12)
    slopes = zca.normalize(torch.eye(2).double().view(2, 1, 1, 2)) - zca.normalize(torch.zeros(2, 1, 1, 2).double())
    torch.testing.assert_close(slopes.view(2, 2), torch.tensor(MATRIX, dtype=torch.float64), rtol=0, atol=1e-12)
    oracle = Whitening(ROWS.numpy())
    np.testing.assert_allclose(oracle.matrix, MATRIX, rtol=0, atol=1e-12)
    np.testing.assert_allclose(oracle.mean, [0.5, 0.75])
    np.testing.assert_allclose(oracle.covariance, [[1 / 3, 1 / 6], [1 / 6, 5 / 12]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize(("count", "eps"), [(500, 0.1), (500, 1e-3), (7, 0.1)], ids=["many", "other eps", "few"])
def test_whitening_and_its_inverse_are_those_of_the_published_program(monkeypatch, dtype, count, eps):
    monkeypatch.setattr(module_of_zca, "PART", 37)  # several parts, the last one smaller
    images = images_of(count, dtype)
    zca, oracle = fitted_to(images, eps=eps), Whitening(in_01(images).numpy(), eps)
    seen = torch.rand(6, *SHAPE, dtype=torch.float64)
    whitened = zca.normalize(seen)
    np.testing.assert_allclose(whitened, oracle.whiten(seen.numpy()), rtol=0, atol=1e-10)
    np.testing.assert_allclose(zca.denormalize(whitened), seen, rtol=0, atol=1e-10)
    np.testing.assert_allclose(zca.denormalize(seen), oracle.unwhiten(seen.numpy()), rtol=0, atol=1e-10)


def test_whitening_is_that_of_kornia_where_it_is_installed():
    kornia = pytest.importorskip("kornia.enhance")
    images = in_01(images_of(300))
    theirs = kornia.ZCAWhitening(eps=0.1, compute_inv=True).fit(images)
    ours = fitted_to(images)
    torch.testing.assert_close(ours.normalize(images), theirs(images), rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.denormalize(images), theirs.inverse_transform(images), rtol=0, atol=1e-10)


def test_without_eps_to_speak_of_the_training_images_are_uncorrelated():
    images = torch.rand(400, 1, 3, 3, dtype=torch.float64)
    whitened = fitted_to(images, eps=1e-9).normalize(images).flatten(1)
    torch.testing.assert_close(torch.cov(whitened.T), torch.eye(9).double(), rtol=0, atol=1e-6)
    assert whitened.mean(0).abs().max() < 1e-6


def test_sums_over_8_bit_images_are_exact_whatever_the_parts(monkeypatch):
    images = 255 * torch.randint(0, 2, (2500, 1, 2, 2), dtype=torch.uint8)  # the largest products there are
    whole = module_of_zca._moments(images)
    monkeypatch.setattr(module_of_zca, "PART", 11)
    assert all(map(torch.equal, whole, module_of_zca._moments(images)))
    np.testing.assert_allclose(whole[1], np.cov(in_01(images).flatten(1).numpy(), rowvar=False), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pixels_that_never_change_stay_finite(dtype):
    images = images_of(50, dtype)
    whitened = fitted_to(images).normalize(in_01(images).float())
    assert torch.isfinite(whitened).all()
    assert whitened[..., 0].abs().max() < 1e-5
    # rounding leaves variances below 0 that this eps does not lift above it
    assert torch.isfinite(fitted_to(images, eps=1e-20).normalize(in_01(images))).all()


@pytest.mark.parametrize("shape", [SHAPE, (2, *SHAPE), (2, 3, *SHAPE), (0, *SHAPE)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_shape_and_type_stay_and_the_input_too(shape, dtype):
    zca = fitted_to(images_of(50))
    images = torch.rand(shape).to(dtype)
    before = images.clone()
    for found in (zca.normalize(images), zca.denormalize(images)):
        assert (found.shape, found.dtype, found.device) == (images.shape, dtype, images.device)
    expected = zca.normalize(images.double())
    precision = {torch.float32: 1e-5, torch.float64: 0}.get(dtype, 0.05)
    torch.testing.assert_close(zca.normalize(images).double(), expected, rtol=0, atol=precision)
    assert torch.equal(images, before)


@pytest.mark.parametrize("way", ["normalize", "denormalize"])
def test_autocast_does_not_round_it(way):
    zca, images = fitted_to(images_of(50)), torch.rand(2, *SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = getattr(zca, way)(images)
    assert torch.equal(rounded, getattr(zca, way)(images))


@pytest.mark.parametrize("way", ["normalize", "denormalize"])
def test_it_is_differentiable_twice(way):
    function = getattr(fitted_to(images_of(50)), way)
    images = torch.rand(2, *SHAPE, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: function(x).pow(3).sum(), images)
    assert torch.autograd.gradgradcheck(lambda x: function(x).pow(3).sum(), images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_first_use_in_inference_mode_leaves_it_fit_for_training(dtype):
    with torch.inference_mode():
        zca = fitted_to(images_of(50))
        zca.normalize(torch.rand(2, *SHAPE, dtype=dtype))
    images = torch.rand(2, *SHAPE, dtype=dtype, requires_grad=True)
    zca.normalize(images).sum().backward()
    assert images.grad is not None


def test_pixels_come_back_from_float32():
    images = images_of(300)
    zca, pixels = fitted_to(images), in_01(images).float()
    torch.testing.assert_close(zca.denormalize(zca.normalize(pixels)), pixels, rtol=0, atol=1e-5)


# ------------------------------------------------------------------ refusals of the map


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 3, 5, 4), (3, 4), (60,)])
@pytest.mark.parametrize("way", ["normalize", "denormalize"])
def test_another_shape_is_refused_with_both(way, shape):
    with pytest.raises(DataError, match=r"\(3, 4, 5\).*got \(.*normalization: zca"):
        getattr(fitted_to(images_of(9)), way)(torch.rand(shape))


@pytest.mark.parametrize("images", [images_of(1), torch.rand(5, 4), torch.rand(5, 1, 0, 4)])
def test_images_that_have_no_covariance_are_refused(images):
    with pytest.raises(DataError, match="two or more"):
        fitted_to(images)


def test_images_that_are_too_large_are_refused_before_any_work():
    with pytest.raises(DataError, match=r"at most 12288.*got 12291"):
        fitted_to(torch.zeros(1, dtype=torch.uint8).expand(1000, 3, 4097, 1))


@pytest.mark.parametrize("eps", [0.0, -0.1, float("nan"), float("inf")])
def test_an_eps_that_cannot_be_added_is_refused(eps):
    with pytest.raises(SettingsError, match=r"ZCA\.eps"):
        fitted_to(images_of(9), eps=eps)


def test_pixels_that_are_not_finite_are_refused():
    images = images_of(9, torch.float32)
    images[3, 0, 0, 1] = float("nan")
    with pytest.raises(DataError, match="finite"):
        fitted_to(images)


# ------------------------------------------------------------------ the data module


def data(**settings):
    return TinyData(**{"normalization": "zca", **settings})


def test_both_splits_are_whitened_by_what_the_training_split_gives():
    used = data()
    assert used.test.normalization is used.real.normalization
    oracle = Whitening(used.real.images.numpy() / 255)
    for split in (used.real, used.test):
        expected = oracle.whiten(split.images.numpy() / 255)
        np.testing.assert_allclose(split.at(torch.arange(len(split))), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("settings", [{"classes": [3, 1]}, {"train_limit_per_class": 4}, {"channels": 3}], ids=str)
def test_it_is_fitted_to_the_training_images_in_use(settings):
    used = data(**settings)
    pixels = used.real.images.numpy() / 255
    whitened = used.real.at(torch.arange(len(used.real)))
    np.testing.assert_allclose(whitened, Whitening(pixels).whiten(pixels), rtol=0, atol=2e-5)
    assert used.describe()["normalization"]["fitted_on"] == used.real.fingerprint()


def test_held_out_images_are_whitened_and_not_fitted_to():
    class HeldOut(TinyData):
        def __init__(self):
            super().__init__(normalization="zca")
            self.held_out = 0.3

    used, whole = HeldOut(), data()
    assert len(used.real) + len(used.test) == len(whole.real)
    expected = Whitening(used.real.images.numpy() / 255).whiten(used.test.images.numpy() / 255)
    np.testing.assert_allclose(used.test.at(torch.arange(len(used.test))), expected, rtol=0, atol=2e-5)
    assert used.describe()["normalization"] != whole.describe()["normalization"]


def test_the_description_is_small_and_says_what_it_was_fitted_on():
    used = data()
    said = json.loads(json.dumps(used.describe()["normalization"]))
    assert said == {"family": "zca", "eps": 0.1, "fitted_on": used.describe()["train"]["sha256"]}
    assert data().describe() == used.describe()


def test_a_store_of_ones_own_may_have_another_eps_and_says_so():
    class OwnEps(TinyData):
        def stores(self):
            train, test = super().stores()
            train.normalization = test.normalization = ZCA(train.images, eps=0.5, fitted_on=train.fingerprint())
            return train, test

    assert OwnEps().describe()["normalization"] == {**data().describe()["normalization"], "eps": 0.5}


def test_a_split_of_images_of_another_shape_is_refused():
    used, labels = data(), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(DataError, match=r"\(1, 8, 8\).*\(1, 8, 9\)"):
        TensorImages(torch.rand(4, 1, 8, 9), labels, 1, used.real.normalization, ["a"])


def test_too_few_training_images_are_refused_when_the_data_are_loaded():
    with pytest.raises(DataError, match="two or more"):
        TinyData((1,), normalization="zca").setup()


def test_proxy_models_of_other_whitenings_are_told_apart_by_small_plain_data():
    def described(used):
        return ProxyTraining(epochs=1).description(ProxyTask(used.real, tiny_convnet(), 0), 0)

    zca, again, plain = (described(used) for used in (data(), data(), TinyData()))
    assert zca == again
    assert len({json.dumps(one) for one in (zca, plain)}) == 2
    assert zca["normalization"] == settings_of(data().real.normalization)
    assert zca["normalization"]["init_args"] == {"eps": 0.1, "fitted_on": data().real.fingerprint()}
    other = ZCA(data().real.images, eps=0.2, fitted_on=data().real.fingerprint())
    assert settings_of(other) != zca["normalization"]


# ------------------------------------------------------------------ a run


@pytest.mark.parametrize(
    "storage", [Pixels(), Pixels("pixel", "every_update"), MultiFormation(2)], ids=["normalized", "pixel", "packed"]
)
def test_a_set_is_learned_evaluated_saved_and_loaded_under_it(tmp_path, storage):
    module = fitted(data=data(), parametrization=storage, init=RandomReal(), ipc=1, max_steps=2)
    report = module.evaluate()
    module.save(tmp_path / "set", report)
    module.trainer.save_checkpoint(tmp_path / "last.ckpt")

    found, card = load_condensed(tmp_path / "set"), card_of(tmp_path / "set")
    assert card["data"]["normalization"] == data().describe()["normalization"]
    whitened = module.training_set().images
    again = data().real.normalization.normalize(found.images)
    torch.testing.assert_close(again, whitened, rtol=0, atol=1e-5)  # the file means the images that were learned

    loaded = SyntheticSet.load_from_checkpoint(tmp_path / "last.ckpt")
    assert loaded.evaluate(data()).condensed[0].accuracies == report.condensed[0].accuracies
    predicted = quiet_trainer().predict(loaded, datamodule=data())[0]["images"]
    torch.testing.assert_close(predicted, found.images, rtol=0, atol=1e-5)


def test_images_in_pixel_space_are_exported_as_they_are_stored():
    module = fitted(data=data(), parametrization=Pixels("pixel"), init=RandomReal())
    torch.testing.assert_close(module.pixels(), module.images.detach(), rtol=0, atol=1e-5)


def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    resumed(tmp_path, 1, 3, data=data)


def test_the_command_line_takes_it_by_name_and_a_set_of_it_is_tested_under_it_only(tmp_path, capsys):
    config = write_config(tmp_path)
    under_zca = [*config, "--data.normalization", "zca"]
    cli("fit", *under_zca, "--trainer.max_steps", "1")
    folder = tmp_path / "tiny"
    card = card_of(folder)
    assert card["data"]["normalization"] == {"family": "zca", "eps": 0.1, "fitted_on": card["data"]["train"]["sha256"]}
    ending = ["--ckpt_path", folder / "checkpoints" / "last.ckpt"]
    tested = cli("test", *under_zca, *ending).trainer.callback_metrics
    assert float(tested["test/acc"]) == pytest.approx(card["evaluation"]["condensed"][0]["accuracy_mean"])
    on_purpose = ["--model.evaluation.other_data", "true"]
    assert "family: 'zca' then, '(absent)' now" in refusal(capsys, "test", *config, *on_purpose, *ending)


# ------------------------------------------------------------------ refusals of a run


@pytest.mark.parametrize("clamp", ["every_update", "every_network"])
def test_whitened_values_are_not_clamped(clamp):
    with pytest.raises(SettingsError, match=r"Pixels\.space pixel.*ZCA.*Set space: pixel, or clamp: never"):
        fitted(data=data(), parametrization=Pixels(clamp=clamp))
    with pytest.raises(SettingsError, match="whole image"):
        Pixels(clamp=clamp).project_(torch.rand(2, 1, 8, 8), data().real.normalization)


@pytest.mark.parametrize("clamp", ["never", "every_network"])
def test_whitened_images_are_not_cut_into_cells(clamp):
    with pytest.raises(SettingsError, match=r"MultiFormation\.space pixel under ZCA.*Set space: pixel"):
        fitted(data=data(), parametrization=MultiFormation(2, "normalized", clamp=clamp))


def write_set(folder, made_under, **card):
    images = torch.rand(len(TINY_SIZES), 1, 8, 8)
    described = {"class_names": list(data().class_names), "normalization": made_under}
    save_condensed(folder, CondensedSet(images, torch.arange(5), {"data": described, **card}))
    return FromFile(str(folder))


def started(init, used):
    return init.start(Pixels("pixel"), used.real, [1] * 5, tiny_convnet(), RandomKey(0))


MEASURED, FITTED = TinyData().describe()["normalization"], data().describe()["normalization"]
OTHER_SPLIT = {**FITTED, "fitted_on": "0" * 64}


@pytest.mark.parametrize(
    ("made_under", "used", "said"),
    [
        (FITTED, TinyData(), "a normalisation of each channel in .* made under ZCA"),
        (MEASURED, data(), "ZCA .* made under a normalisation of each channel"),
        (OTHER_SPLIT, data(), "made under ZCA .*fitted to the training split 0000"),
    ],
    ids=["made under", "made without", "fitted to others"],
)
def test_a_file_of_another_whitening_is_no_start(tmp_path, made_under, used, said):
    with pytest.raises(ExportError, match=said):
        started(write_set(tmp_path, made_under), used)
    assert len(started(write_set(tmp_path, made_under, selected={"by": "random"}), used)) == 5  # real images


@pytest.mark.parametrize(
    ("made_under", "used"),
    [(FITTED, data()), (MEASURED, TinyData()), (MEASURED, TinyData(normalization=Normalization((0.4,), (0.3,))))],
    ids=["zca", "measured", "other constants"],
)
def test_a_file_of_the_same_whitening_is_a_start(tmp_path, made_under, used):
    assert len(started(write_set(tmp_path, made_under), used)) == 5


def test_noise_is_a_start_too():
    assert torch.isfinite(fitted(data=data(), init=Noise(), max_steps=1).pixels()).all()
