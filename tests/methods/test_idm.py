"""IDM: feature means, partition and expansion, and cross-entropy weighed by accuracy (Zhao et al., CVPR 2023)."""

from __future__ import annotations

import pytest
import torch

from lit_condense.augmentation import NoAugmentation, OneOf
from lit_condense.cli.shipped import read
from lit_condense.data.normalization import preset
from lit_condense.engine import Engine
from lit_condense.errors import SettingsError
from lit_condense.inner import FreshNetwork, Pool
from lit_condense.matching import ClassAwareCrossEntropy, FeatureMatching, Progress
from lit_condense.matching.base import needs_of
from lit_condense.parametrization import MultiFormation
from lit_condense.rng import RandomKey
from lit_condense.sampling import RandomSampling
from lit_condense.sharding import Share
from lit_condense.synthetic import Gatherer, match
from tests.helpers import DOUBLE, fitted
from tests.methods.helpers import (
    CLASSES,
    EQUAL,
    NORMALIZATION,
    NOW,
    PRECISION,
    UNEQUAL,
    NormalisedImages,
    WholeClasses,
    labels_of,
    matched,
    network_of,
    real_of,
    stored_of,
)
from tests.oracles import idm, methods

STORAGE = MultiFormation(2, "normalized", clamp="never", order="column", shrinking="mean")
ACCURACY, WEIGHT = 0.4, 0.5


def losses(weight=WEIGHT):
    return [FeatureMatching(), ClassAwareCrossEntropy(weight)]


def at(accuracy):
    return Progress(NOW.update, NOW.network_index, NOW.match_index, {"accuracy": accuracy})


def literal(accuracy, weight=WEIGHT):
    view = lambda c, images: idm.expanded(images)  # noqa: E731
    terms = [(1.0, idm.term(100 * accuracy, weight))]
    return methods.image_gradient(network_of(), stored_of(UNEQUAL), labels_of(UNEQUAL), real_of(), terms, view)


@pytest.mark.parametrize("per_block", [1, 3])
@pytest.mark.parametrize("accuracy", [0.0, ACCURACY, 1.0])
def test_loss_and_image_gradient_are_those_of_the_definition(accuracy, per_block):
    values, gradient = matched(network_of(), losses(), per_block, storage=STORAGE, progress=at(accuracy))
    wanted, wanted_gradient = literal(accuracy)
    total = values["FeatureMatching"] + 100 * accuracy * WEIGHT * values["ClassAwareCrossEntropy"]
    assert total == pytest.approx(wanted[0], rel=1e-10)
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)
    assert wanted_gradient.abs().max() > 1e-6


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_add_up_to_the_definition(ranks):
    found = matched(network_of(), losses(), storage=STORAGE, progress=at(ACCURACY), ranks=ranks)[1]
    torch.testing.assert_close(found, literal(ACCURACY)[1], **PRECISION)


def test_on_a_network_that_knows_nothing_the_gradient_is_that_of_distribution_matching():
    found = matched(network_of(), losses(), storage=STORAGE, progress=at(0.0))[1]
    torch.testing.assert_close(found, matched(network_of(), [FeatureMatching()], storage=STORAGE)[1], **PRECISION)


def test_the_cross_entropy_looks_at_synthetic_images_alone():
    losses = [ClassAwareCrossEntropy(1.0)]
    one, other = (matched(network_of(), losses, counts=counts, progress=at(1.0)) for counts in ((6,) * 5, (3,) * 5))
    assert one[0] == other[0]
    assert torch.equal(one[1], other[1])
    assert one[1].abs().max() > 0


def test_its_factor_is_the_accuracy_in_percent_and_it_is_logged_where_that_is_nought():
    loss = ClassAwareCrossEntropy(0.5)
    assert [loss.weight_at(at(accuracy)) for accuracy in (0.0, 0.4, 1.0)] == [0.0, 20.0, 50.0]
    assert loss.weight_at(Progress(0, 0, 0)) == 0
    assert loss.watched_at(at(0.0))
    assert not ClassAwareCrossEntropy(0).watched_at(at(1.0))
    logged = fitted(*losses(), inner=Pool(4, 1, steps=1, batch_size=8), max_steps=1).trainer.callback_metrics
    assert logged["loss/ClassAwareCrossEntropy"] > 0
    assert logged["loss/total"] == logged["loss/FeatureMatching"]


def test_a_loop_that_says_no_accuracy_is_refused_before_the_run():
    words = r"gives accuracy of its networks, .* got FreshNetwork, which gives none. Take a model.inner"
    with pytest.raises(SettingsError, match=words):
        fitted(*losses(), inner=FreshNetwork())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_compiled_region_serves_networks_of_any_accuracy():
    torch.compiler.reset()
    real, stored, ipc = NormalisedImages(real_of((6,) * CLASSES)), stored_of(EQUAL), EQUAL
    draws = (WholeClasses(), STORAGE, NoAugmentation(), RandomKey(0), NOW.update)
    gatherer = Gatherer(real, stored, labels_of(ipc), ipc, *draws)
    running = Engine("exact", "always").start(network_of(), real.at(torch.arange(6)), needs_of(losses()), 4 * 3)
    graphs = []
    for accuracy in (0.0, 0.3, 0.7):
        found = match(running, gatherer, Share(), losses(), at(accuracy)).gradients["images"]
        wanted = matched(network_of(), losses(), ipc=EQUAL, counts=(6,) * 5, storage=STORAGE, progress=at(accuracy))[1]
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert running.image_gradient.compiled
    assert graphs[0] == graphs[1] == graphs[2] > 0


# ------------------------------------------------------------------ its storage


def test_partition_and_expansion_is_the_published_one():
    image = torch.arange(16.0, dtype=torch.float64).view(1, 1, 4, 4).expand(1, 2, 4, 4)
    found = STORAGE.decode(image, NORMALIZATION)[:, 0]
    first = torch.tensor([0, 0.25, 0.75, 1], dtype=torch.float64) + torch.tensor([[0.0], [1], [3], [4]])
    torch.testing.assert_close(found, torch.stack([first, first + 8, first + 2, first + 10]))


def test_expansion_and_packing_are_the_literal_ones_in_their_order():
    stored = stored_of(UNEQUAL)[:3]
    torch.testing.assert_close(STORAGE.decode(stored, NORMALIZATION), idm.expanded(stored), rtol=1e-12, atol=1e-13)
    pixels = torch.rand(12, 2, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(STORAGE.encode(pixels, NORMALIZATION), NORMALIZATION.normalize(idm.packed(pixels)))
    assert STORAGE.decode_labels(torch.tensor([3, 1])).tolist() == [3, 1] * 4


def test_four_equal_quadrants_expand_to_four_equal_images():
    quadrant = torch.rand(1, 2, 4, 4, dtype=torch.float64)
    found = STORAGE.decode(quadrant.repeat(1, 1, 2, 2), NORMALIZATION)
    assert all(torch.equal(found[0], image) for image in found[1:])


def test_shrinking_28_pixels_is_the_mean_of_four():
    pixels = torch.rand(4, 1, 28, 28, dtype=torch.float64)
    found = MultiFormation(2, "pixel", shrinking="mean").encode(pixels, NORMALIZATION)
    for k, image in enumerate(pixels):
        top, left = 14 * (k // 2), 14 * (k % 2)
        wanted = image.view(1, 14, 2, 14, 2).mean((2, 4))
        torch.testing.assert_close(found[0, :, top : top + 14, left : left + 14], wanted)


def test_cells_in_another_order_stand_for_the_same_images():
    assert STORAGE.meaning == MultiFormation(2, "normalized").meaning
    stored = stored_of(UNEQUAL)[:1]
    by_row = MultiFormation(2, "normalized").decode(stored, NORMALIZATION)
    assert torch.equal(STORAGE.decode(stored, NORMALIZATION), by_row[[0, 2, 1, 3]])
    assert MultiFormation(3, "normalized", order="column").decode(stored, NORMALIZATION).shape[0] == 9


@pytest.mark.parametrize(("name", "value"), [("order", "spiral"), ("shrinking", "cubic")])
def test_an_unknown_order_or_shrinking_is_refused(name, value):
    with pytest.raises(SettingsError, match=rf"MultiFormation.{name} to be .*got '{value}'"):
        MultiFormation(**{name: value})


# ------------------------------------------------------------------ a whole run


def test_a_run_moves_the_images_and_trains_the_pool():
    module = fitted(
        *losses(),
        inner=Pool(4, 2, steps=2, batch_size=8),
        parametrization=STORAGE,
        augmentation=OneOf(),
        max_steps=6,
        trainer=DOUBLE,
    )
    assert torch.isfinite(module.images).all()
    meters = module.inner.state_dict()["meters"]
    assert sum(seen for _, seen, _ in meters.values()) > 0
    assert len(module.training_set().images) == 4 * 2 * CLASSES


# ------------------------------------------------------------------ its configs

SHEET = {
    # data set, images per class: real batch, weight, every, steps, reset, mean of the first channel
    "cifar10_ipc1": (5000, 0.5, 5, 10, 100, 0.4914),
    "cifar10_ipc10": (256, 0.5, 30, 10, 100, 0.4914),
    "cifar10_ipc50": (256, 0.1, 30, 10, 500, 0.4914),
    "cifar100_ipc1": (5000, 0.5, 5, 10, 100, 0.5071),
    "cifar100_ipc10": (256, 0.1, 30, 50, 100, 0.5071),
    "cifar100_ipc50": (256, 0.1, 30, 10, 500, 0.5071),
    "tinyimagenet_ipc1": (256, 0.5, 30, 10, 100, None),
    "tinyimagenet_ipc10": (256, 0.5, 30, 10, 500, None),
    "tinyimagenet_ipc50": (256, 0.8, 30, 50, 1000, None),
}


@pytest.mark.parametrize("name", SHEET)
def test_a_published_row_has_the_settings_of_its_sheet(name):
    batch, weight, every, steps, reset, mean = SHEET[name]
    config = read(f"idm/{name}")
    model = config["model"]["init_args"]
    inner, sampling = Pool(**model["inner"]["init_args"]), RandomSampling(**model["sampling"]["init_args"])
    features, entropy = config["trainer"]["callbacks"]
    assert features["class_path"].endswith("FeatureMatching")
    assert (sampling.batch_size, entropy["init_args"]["weight"]) == (batch, weight)
    assert (inner.every, inner.steps, inner.reset_meters_every) == (every, steps, reset)
    assert (inner.size, inner.matched, inner.trained, inner.batch_size) == (100, 1, 2, 256)
    assert (inner.lr, inner.momentum, inner.weight_decay) == (0.01, 0.9, 5e-4)
    assert model["optimizer"]["init_args"]["lr"] == 0.2
    assert config["trainer"]["max_steps"] == 20_000
    storage = MultiFormation(**model["parametrization"]["init_args"])
    assert (storage.factor, storage.order, storage.shrinking, storage.clamp) == (2, "column", "mean", "never")
    assert storage.space == "normalized"
    if mean is not None:
        family = config["data"]["init_args"].get("normalization", "dc")
        assert preset(family, name.split("_")[0]).mean[0] == mean
