"""Baselines of real images take as much storage as the set that they are compared with."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lit_condense.evaluation import Evaluation
from lit_condense.evaluation.baselines import Budget
from lit_condense.init import Noise
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.selection import CRAIG, KMeansNearest, ProxyTraining, RandomSubset
from tests.helpers import TinyData, fitted

SIZES = (20, 16, 9, 3, 18)


@pytest.fixture(scope="module")
def packed():
    """Two stored images of each class, of four half-size ones each; the classes 2 and 3 hold 9 and 3 real images."""
    return fitted(parametrization=MultiFormation(2), init=Noise(), data=TinyData(SIZES), max_steps=2)


def shrunk(real):
    """Every real image as IDC packs it, to 4 x 4 by nearest neighbour, and enlarged again, normalised."""
    pixels = real.pixels_at(torch.arange(len(real)))
    small = pixels[:, :, ::2, ::2]
    return real.normalization.normalize(F.interpolate(small, size=(8, 8), mode="bilinear", align_corners=False))


def places(images, real):
    distances = (images[:, None] - shrunk(real)).abs().amax((2, 3, 4))
    assert distances.min(1).values.max() < 1e-5
    return distances.argmin(1)


@pytest.mark.parametrize("selection", [RandomSubset(), KMeansNearest()])
def test_stored_images_hold_several_real_ones_each_of_one_class(packed, selection):
    real, drawn = packed.data.real, packed.baselines.drawn(selection)(0)
    where = places(drawn.images, real)
    assert torch.equal(real.labels[where], drawn.labels)
    # two stored images hold eight; 3 images fill one of them only, with one image once more
    assert torch.bincount(drawn.labels).tolist() == [8, 8, 8, 4, 8]
    different = [len(set(where[drawn.labels == c].tolist())) for c in range(5)]
    assert different == [8, 8, 8, 3, 8]


def test_the_baseline_is_as_large_as_the_set_where_classes_are(packed):
    large = packed.training_set()
    drawn = packed.baselines.drawn(RandomSubset())(0)
    full = [c for c in range(5) if c != 3]
    for c in full:
        assert int((drawn.labels == c).sum()) == int((large.labels == c).sum())


def test_the_budget_says_what_is_stored(packed):
    budget = packed.baselines.budget
    assert budget.as_plain() == {"stored_images": 9, "real_images": 35, "factor": 2}
    assert str(budget) == "9 stored images (35 half-size, some of them twice)"
    assert str(Budget(2, [4, 4], [1, 1])) == "2 stored images (8 half-size)"
    assert str(Budget(5, [25], [1])) == "1 stored images (25 1/5-size)"
    assert str(fitted(data=TinyData(SIZES), max_steps=1).baselines.budget) == "10 images"


def test_every_decoding_of_the_set_is_that_of_its_baseline():
    module = fitted(parametrization=MultiFormation(2, decoding="multi"), data=TinyData((20,) * 5), max_steps=1)
    drawn, own = module.baselines.drawn(RandomSubset())(0), module.training_set()
    assert torch.equal(drawn.labels, own.labels)
    assert len(own.labels) == 5 * 2 * (1 + 4)
    # what is shown whole, 1 of 5, is made of the cells that are shown enlarged
    whole = drawn.images[:10]
    enlarged = F.interpolate(whole[:, :, :4, :4], size=(8, 8), mode="bilinear")
    torch.testing.assert_close(enlarged, drawn.images[10:20])


def test_weights_stay_where_a_stored_image_is_one_real_image():
    weighted = Evaluation(epochs=1, proxy=ProxyTraining(epochs=1))
    for storage, kept in ((Pixels("pixel"), True), (MultiFormation(2), False)):
        module = fitted(parametrization=storage, evaluation=weighted, data=TinyData((20,) * 5), max_steps=1)
        drawn = module.baselines.drawn(CRAIG())(0)
        assert (drawn.weights is not None) == kept
