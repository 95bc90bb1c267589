"""IDC: convolution gradients, multi-formation, networks trained on real images (Kim et al., ICML 2022)."""

from __future__ import annotations

import functools
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback

from lit_condense.augmentation import AlwaysOn
from lit_condense.errors import SettingsError
from lit_condense.init import RandomReal
from lit_condense.inner import FreshNetwork, TrainOnReal
from lit_condense.matching import GradientMatching, Quantities
from lit_condense.networks import MLP
from lit_condense.optim import SharedTensorSGD
from lit_condense.parametrization import MultiFormation
from lit_condense.rng import RandomKey
from lit_condense.sampling import RandomSampling
from tests.helpers import DOUBLE, Recorder, TinyData, fitted
from tests.methods.helpers import (
    CLASSES,
    NORMALIZATION,
    PRECISION,
    REAL_BATCH,
    SEED,
    UNEQUAL,
    KeyedDraws,
    Recording,
    labels_of,
    matched,
    network_of,
    real_of,
    stored_of,
)
from tests.oracles import dc, methods, multi_formation

# ------------------------------------------------------------------ what is matched

REAL_WEIGHT = [[[1, 0], [0, 1]], [[2, 0], [0, 0]]]
SYNTHETIC_WEIGHT = [[[0, 1], [1, 0]], [[1, 1], [1, 1]]]


def gradients(weight, other):
    """One class: a convolution (2, 1, 2, 2), and a bias, a norm and a classifier that must not count."""
    each = {
        "conv.weight": torch.tensor(weight, dtype=torch.float64)[None, :, None],
        "conv.bias": torch.full((1, 2), float(other)),
        "norm.weight": torch.full((1, 2, 3, 3), float(other)),
        "classifier.weight": torch.full((1, 5, 8), float(other)),
        "classifier.bias": torch.full((1, 5), float(other)),
    }
    return Quantities({"gradients": each})


@pytest.mark.parametrize(
    ("distance", "value"), [("squared_l2", 8.0), ("l1", 8.0), ("l1_mean", 2.0), ("row_cosine", 1.5)]
)
def test_the_published_metrics_of_the_convolution_alone(distance, value):
    loss = GradientMatching(distance, layers="convolutions")
    found = loss.loss(gradients(REAL_WEIGHT, 1), gradients(SYNTHETIC_WEIGHT, -3))
    # the cosine has 1e-6 added to the product of norms
    assert float(found) == pytest.approx(value, abs=1e-6 if distance == "row_cosine" else 1e-15)


def normalised(images, used=NORMALIZATION):
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (used.mean, used.std))
    return (images - mean) / std


def view_of(channels, used, factor=2):
    grey = torch.full((channels,), 0.5, dtype=torch.float64)
    return lambda images: normalised(multi_formation.decode(images, factor, grey), used)


@functools.cache
def literal(norm, distance):
    view = view_of(2, NORMALIZATION)
    return methods.image_gradient(
        network_of(norm),
        stored_of(UNEQUAL),
        labels_of(UNEQUAL),
        real_of(),
        [(1.0, methods.intra(methods.convolutions_only(dc.DISTANCES[distance])))],
        lambda c, images: view(images),
    )


@pytest.mark.parametrize("per_block", [1, 3, 5])
@pytest.mark.parametrize(
    ("norm", "distance"),
    [("instance", "squared_l2"), ("instance", "l1"), ("batch", "l1"), ("layer", "squared_l2"), ("layer", "l1_mean")],
)
def test_loss_and_image_gradient_are_the_literal_ones(norm, distance, per_block):
    # batch norm: real and synthetic batches of a class each have their own statistics
    loss = GradientMatching(distance, layers="convolutions")
    values, gradient = matched(network_of(norm), [loss], per_block, storage=MultiFormation(2))
    wanted, wanted_gradient = literal(norm, distance)
    assert values == {"GradientMatching": pytest.approx(wanted[0], rel=1e-10)}
    torch.testing.assert_close(gradient, wanted_gradient, **PRECISION)
    assert wanted_gradient.abs().max() > 1e-6


def test_all_weights_take_the_classifier_too_but_no_bias():
    # the program's option fc; the classifier differs by 4 in each of 40 entries, the norm by 4 in each of 18
    loss = GradientMatching("l1", layers="weights")
    found = loss.loss(gradients(REAL_WEIGHT, 1), gradients(SYNTHETIC_WEIGHT, -3))
    assert float(found) == pytest.approx(8 + 4 * 40 + 4 * 18)


class NoRun(Callback):
    """Fails where a run begins."""

    def on_fit_start(self, trainer, pl_module):
        raise AssertionError("the run began")


def test_a_network_without_convolutions_is_refused_by_name_before_the_run_begins():
    with pytest.raises(SettingsError, match="convolutions needs a network with convolutions"):
        fitted(NoRun(), GradientMatching("l1", layers="convolutions"), network=partial(MLP, width=4))


def test_unknown_layers_are_refused():
    with pytest.raises(SettingsError, match=r"layers to be 'all', 'convolutions' or 'weights', got 'fc'"):
        GradientMatching(layers="fc")


# ------------------------------------------------------------------ whole runs


def run(max_steps, optimizer, **settings):
    recorder = Recorder()
    loss = GradientMatching("squared_l2", layers="convolutions")
    fitted(
        loss,
        recorder,
        max_steps=max_steps,
        trainer=DOUBLE,
        optimizer=optimizer,
        sampling=RandomSampling(REAL_BATCH),
        seed=SEED,
        **settings,
    )
    return recorder.images


TERMS = [(1.0, methods.intra(methods.convolutions_only(dc.squared_l2)))]


def test_a_run_is_the_literal_loop():
    """Two networks of three updates: clamp, match under one augmentation, step, train on augmented real images."""
    lr, momentum, ipc = 0.02, 0.5, (2, 1, 2, 2, 1)
    matching, training = Recording(AlwaysOn()), Recording(AlwaysOn(("color", "crop")))
    found = run(
        6,
        partial(SharedTensorSGD, lr=lr, momentum=momentum, classes=CLASSES),
        ipc=list(ipc),
        inner=TrainOnReal(updates=3, images=16, batch_size=8, cutmix=0, augmentation=training),
        parametrization=MultiFormation(2),
        init=RandomReal(),
        augmentation=matching,
        data=TinyData((9, 7, 9, 8, 9)),
    )
    draws = KeyedDraws(TinyData((9, 7, 9, 8, 9)))
    view = view_of(1, draws.store.normalization)
    decay = momentum**CLASSES
    rate = lr * sum(momentum**turn for turn in range(CLASSES))
    images, outer, clamped = found[0].clone(), dc.Sgd(rate, decay), []
    for update in range(6):
        number, match = divmod(update, 3)
        if match == 0:
            clamped.append(float((images - images.clamp(0, 1)).abs().max()))
            images = images.clamp(0, 1)
            network, sgd = draws.network(number), dc.Sgd(0.01, 0.9, 5e-4)
        real = [matching.matching(c, x, update) for c, x in enumerate(draws.real(update))]
        _, gradient = methods.image_gradient(
            network,
            images,
            labels_of(ipc),
            real,
            TERMS,
            lambda c, x, u=update: matching.matching(c, view(x), u),
        )
        outer.step([images], [gradient])
        torch.testing.assert_close(
            found[update + 1], images, rtol=1e-9, atol=1e-11, msg=lambda m, u=update: f"{u}: {m}"
        )
        for step in range(2 if match < 2 else 0):
            key = draws.key.fold("inner", number, match).fold("real", step)
            chosen = torch.randperm(len(draws.store), generator=key.generator())[:8]
            batch = training.apply(draws.store.at(chosen).double(), training.draws[key.fold("augment").path])
            dc.train_step(network, sgd, batch, draws.store.labels_at(chosen))
    assert clamped[1] > 0  # the first network has pushed pixels out of their range
    assert (found[-1] - found[0]).abs().max() > 1e-3


def test_the_run_takes_gradients_where_stepping_one_tensor_class_by_class_would():
    """The published program: one tensor of all classes, one step of its optimizer for each class."""
    lr, momentum, updates = 0.05, 0.5, 4
    found = run(
        updates,
        partial(SharedTensorSGD, lr=lr, momentum=momentum, classes=CLASSES),
        ipc=2,
        inner=FreshNetwork(),
        parametrization=MultiFormation(2, clamp="never"),
    )
    draws = KeyedDraws()
    view = view_of(1, draws.store.normalization)

    def gradient_of(update, c, images):
        network, real = draws.network(update), draws.real(update)[c]
        leaf = images.clone().requires_grad_()
        target = methods.detached(dc.network_gradient(network, real, c))
        gradient = dc.network_gradient(network, view(leaf), c, create_graph=True)
        return torch.autograd.grad(methods.convolutions_only(dc.squared_l2)(target, gradient), leaf)[0]

    start = found[0].view(CLASSES, 2, 1, 8, 8)
    wanted = methods.shared_tensor_steps(start, gradient_of, lr, momentum, updates)
    for update, at_gradient in enumerate(wanted):
        torch.testing.assert_close(found[update].view_as(start), at_gradient, rtol=1e-11, atol=1e-13)
    assert (wanted[-1] - wanted[0]).abs().max() > 1e-3


def test_between_two_networks_the_real_batches_and_trainings_are_new():
    # the same key never serves two networks: their weights after one update differ though they saw the same data set
    seen = []

    class Spy(TrainOnReal):
        def advance(self, inner, context, progress, key):
            super().advance(inner, context, progress, key)
            seen.append((key.path, torch.cat([p.detach().flatten() for p in inner.network.parameters()])))

    fitted(inner=Spy(updates=2, images=8, batch_size=8), max_steps=4)
    assert [path for path, _ in seen] == [("inner", 0, 0), ("inner", 1, 0)]
    assert not torch.equal(seen[0][1], seen[1][1])
    assert RandomKey(SEED).fold("inner", 0, 0).number() != RandomKey(SEED).fold("inner", 1, 0).number()
