"""EGM: two levels of gradient matching with its distance (Jiang et al., 2022)."""

from __future__ import annotations

import functools
from functools import partial

import pytest
import torch

from lit_condense.engine import Engine
from lit_condense.inner import DecreasingTraining, TrainOnSynthetic, TrainUntilOverfitting
from lit_condense.matching import ClassMeanGradientMatching, GradientMatching, MatchingLoss, Quantities
from tests.helpers import DOUBLE, fitted
from tests.methods.helpers import (
    CLASSES,
    EQUAL,
    PRECISION,
    UNEQUAL,
    labels_of,
    matched,
    network_of,
    real_of,
    stored_of,
)
from tests.oracles import dc, methods

INTRA, INTER = "intra", "inter"


def levels(**settings):
    return [
        GradientMatching("row_cosine_norm", name=INTRA),
        ClassMeanGradientMatching("row_cosine_norm", name=INTER, **settings),
    ]


@functools.cache
def literal(norm, ipc, factor=CLASSES):
    return methods.image_gradient(
        network_of(norm), stored_of(ipc), labels_of(ipc), real_of(), [(1.0, methods.egm(factor))]
    )


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("per_block", [1, 3, 5])
@pytest.mark.parametrize(("norm", "ipc"), [("instance", UNEQUAL), ("layer", EQUAL)])
def test_loss_and_image_gradient_are_the_literal_ones(norm, ipc, per_block, turned):
    losses = levels()[::-1] if turned else levels()
    values, gradient = matched(network_of(norm), losses, per_block, ipc)
    wanted, wanted_gradient = literal(norm, ipc)
    assert values[INTRA] + values[INTER] == pytest.approx(wanted[0], rel=1e-10)
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_add_up_to_the_literal_update(ranks):
    values, gradient = matched(network_of(), levels(), 2, ranks=ranks)
    wanted, wanted_gradient = literal("instance", UNEQUAL)
    assert values[INTRA] + values[INTER] == pytest.approx(wanted[0], rel=1e-10)
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)


@pytest.mark.parametrize("level", [INTRA, INTER])
def test_each_level_alone_is_its_term(level):
    terms = {INTRA: methods.intra(dc.row_cosine_norm), INTER: methods.inter(dc.row_cosine_norm, CLASSES)}
    values, gradient = matched(network_of(), [loss for loss in levels() if loss.tag == level], 3)
    wanted, wanted_gradient = methods.image_gradient(
        network_of(), stored_of(UNEQUAL), labels_of(UNEQUAL), real_of(), [(1.0, terms[level])]
    )
    assert values == {level: pytest.approx(wanted[0], rel=1e-10)}
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)


class Means(MatchingLoss):
    """Keeps the mean gradients it is shown."""

    scope = "mean"

    def loss(self, real, synthetic):
        self.seen = real.detached(), synthetic.detached()
        return sum(g.sum() for g in synthetic.gradients.values())


@pytest.mark.parametrize("per_block", [1, 3, 5])
def test_the_mean_of_class_gradients_is_the_gradient_of_the_whole_set(per_block):
    # exact for equally many images a class and a network that does not mix samples
    spy, counts = Means(), (6,) * CLASSES
    matched(network_of(), [spy], per_block, EQUAL, counts)
    stored = [stored_of(EQUAL)[labels_of(EQUAL) == c] for c in range(CLASSES)]
    for seen, batches in zip(spy.seen, (real_of(counts), stored), strict=True):
        wanted = methods.whole_set_gradient(network_of(), batches)
        assert seen.classes == CLASSES
        for found, gradient in zip(seen.gradients.values(), wanted, strict=True):
            torch.testing.assert_close(found[0], gradient, **PRECISION)


def test_without_the_factor_of_the_number_of_classes_the_gradient_is_another_direction():
    values, gradient = matched(network_of(), levels())
    plain, plain_gradient = matched(network_of(), levels(times_classes=False))
    assert plain[INTRA] == values[INTRA]
    assert plain[INTER] == pytest.approx(values[INTER] / CLASSES, rel=1e-12)
    torch.testing.assert_close(plain_gradient, literal("instance", UNEQUAL, 1)[1], **PRECISION)
    cosine = torch.cosine_similarity(gradient.flatten(), plain_gradient.flatten(), dim=0)
    assert cosine < 0.999


def test_equal_sets_match_perfectly_with_a_finite_gradient():
    # the norm of the difference has no derivative at 0
    gradients = {name: p.detach()[None].clone() for name, p in network_of().named_parameters()}
    real = Quantities({"gradients": gradients}, classes=CLASSES)
    for loss in levels():
        synthetic = real.detached(requires_grad=True)
        value = loss.loss(real, synthetic)
        found = torch.autograd.grad(value, synthetic.tensors(), allow_unused=True)
        assert abs(float(value.detach())) < 1e-12
        assert all(g is None or g.abs().max() < 1e-12 for g in found)


def test_the_distance_sees_the_size_of_a_gradient_and_not_only_its_direction():
    gradients = {name: p.detach()[None].clone() for name, p in network_of().named_parameters()}
    rows = sum(float(row.norm()) for g in gradients.values() if g[0].ndim > 1 for row in g[0].flatten(1))
    real = Quantities({"gradients": gradients})
    larger = Quantities({"gradients": {name: 2.5 * g for name, g in gradients.items()}})
    assert float(GradientMatching("row_cosine").loss(real, larger)) == pytest.approx(0, abs=1e-4)
    assert float(GradientMatching("row_cosine_norm").loss(real, larger)) == pytest.approx(1.5 * rows, rel=1e-10)


@pytest.mark.parametrize("inner", [DecreasingTraining, TrainUntilOverfitting])
def test_with_one_image_a_class_the_schedule_changes_nothing(inner):
    # its network serves one update and is never trained
    runs = [
        fitted(*levels(), ipc=1, inner=loop(momentum=0.5), max_steps=3)
        for loop in (partial(TrainOnSynthetic, updates=None, epochs=None), inner)
    ]
    assert torch.equal(runs[0].images, runs[1].images)
    assert runs[1].updates_per_network == 1


# classes 0 to 2 and 4 bring 6 real images, class 3 all of its 4
def test_a_run_with_unequal_classes_does_not_depend_on_how_they_are_cut():
    settings = {"inner": DecreasingTraining(2), "trainer": DOUBLE}
    runs = [fitted(*levels(), engine=Engine(classes_per_block=k), **settings) for k in (1, 3, 5)]
    for other in runs[1:]:
        torch.testing.assert_close(other.images, runs[0].images, rtol=1e-11, atol=1e-12)
