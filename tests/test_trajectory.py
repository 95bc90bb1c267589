"""Whole runs through the Trainer against the literal loop of Zhao et al., ICLR 2021, in float64."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lit_condense import SyntheticSet
from lit_condense.engine import Engine
from lit_condense.inner import TrainOnSynthetic
from lit_condense.matching import GradientMatching
from lit_condense.networks import MLP, build_network
from lit_condense.parametrization import Pixels
from lit_condense.rng import RandomKey
from lit_condense.sampling import RandomSampling
from tests.helpers import Recorder, TinyData, quiet_trainer, tiny_convnet
from tests.oracles import dc as oracle

SEED = 11
REAL_BATCH = 6
DATA = TinyData()


class KeyedDraws:
    """The draws of a run, by the keys that name them."""

    def __init__(self, factory, images):
        self.key, self.store, self.factory, self.images = RandomKey(SEED), DATA.real, factory, images

    def network(self, index):
        return build_network(self.factory, 1, (8, 8), 5, self.key.fold("network", index)).double()

    def real(self, update):
        key = self.key.fold("real", update)
        chosen = [self.store.random_of_class(c, REAL_BATCH, key.fold(c)) for c in range(5)]
        return [self.store.at(indices).double() for indices in chosen]

    def order(self, network, match, epoch):
        key = self.key.fold("inner", network, match).fold("order", epoch)
        return torch.randperm(self.images, generator=key.generator())

    def statistics(self, update):
        key = self.key.fold("statistics", update)
        chosen = [self.store.random_of_class(c, 16, key.fold(c)) for c in range(5)]
        return self.store.at(torch.cat(chosen)).double()


def trained(losses, ipc, inner, max_steps, **settings):
    """Return the images before and after every update of a run in double precision."""
    module = SyntheticSet(ipc, inner=inner, sampling=RandomSampling(REAL_BATCH), seed=SEED, **settings)
    recorder = Recorder()
    quiet_trainer(*losses, recorder, precision="64-true", max_steps=max_steps).fit(module, datamodule=TinyData())
    return recorder.images


def literal(
    start, terms, ipc, factory, max_steps, space="normalized", clamp="never", inner=(), image_lr=0.1, momentum=0.5
):
    counts = [ipc] * 5 if isinstance(ipc, int) else ipc
    used = DATA.real.normalization
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (used.mean, used.std))
    normalised = space == "normalized"
    low, high = (-mean / std, (1 - mean) / std) if normalised else (torch.zeros_like(mean), torch.ones_like(mean))
    loops = {"updates": 2, "epochs": 2, "batch_size": 256, **dict(inner)}
    return oracle.condense(
        start=start,
        labels=torch.repeat_interleave(torch.arange(5), torch.tensor(counts)),
        draws=KeyedDraws(factory, sum(counts)),
        terms=terms,
        updates=max_steps,
        updates_per_network=loops["updates"],
        epochs=loops["epochs"],
        batch_size=loops["batch_size"],
        inner=lambda: oracle.Sgd(loops.get("lr", 0.01), loops.get("momentum", 0.0), loops.get("weight_decay", 0.0)),
        outer=oracle.Sgd(image_lr, momentum),
        view=(lambda images: images) if normalised else (lambda images: (images - mean) / std),
        project=lambda images: torch.minimum(torch.maximum(images, low), high),
        clamp=clamp,
    )


def assert_same_run(found, wanted, updates):
    assert len(found) == len(wanted) == updates + 1
    for number, (images, expected) in enumerate(zip(found, wanted, strict=True)):
        assert images.dtype == torch.float64
        torch.testing.assert_close(images, expected, rtol=1e-10, atol=1e-11, msg=lambda m, n=number: f"{n}: {m}")
    assert (found[-1] - found[0]).abs().max() > 1e-4


ROW_COSINE = [(1.0, oracle.row_cosine)]


@pytest.mark.filterwarnings("ignore:max_steps=5 is no multiple")
@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group", "none"])
def test_a_run_over_three_networks_is_the_literal_loop(norm):
    factory = tiny_convnet(norm)
    found = trained([GradientMatching()], 2, TrainOnSynthetic(2, 2), 5, network=factory)
    assert_same_run(found, literal(found[0], ROW_COSINE, 2, factory, 5), 5)


@pytest.mark.parametrize("per_block", [1, 3, 5])
def test_unequal_classes_and_any_block_size_are_the_literal_loop(per_block):
    ipc, factory = [2, 1, 3, 1, 2], tiny_convnet("layer")
    found = trained(
        [GradientMatching()],
        ipc,
        TrainOnSynthetic(3, 2, batch_size=5),
        6,
        network=factory,
        engine=Engine("fast", "auto", classes_per_block=per_block),
    )
    inner = {"updates": 3, "batch_size": 5}
    assert_same_run(found, literal(found[0], ROW_COSINE, ipc, factory, 6, inner=inner.items()), 6)


def test_two_losses_and_other_optimizers_are_the_literal_loop():
    inner = {"updates": 3, "epochs": 1, "lr": 0.2, "momentum": 0.9, "weight_decay": 0.01}
    found = trained(
        [GradientMatching("l1", weight=0.1, name="size"), GradientMatching("global_cosine", weight=3.0, name="angle")],
        2,
        TrainOnSynthetic(**inner),
        6,
        network=partial(MLP, width=6),
        optimizer=partial(torch.optim.SGD, lr=0.4, momentum=0.9),
    )
    terms = [(0.1, oracle.l1), (3.0, oracle.global_cosine)]
    factory = partial(MLP, width=6)
    wanted = literal(found[0], terms, 2, factory, 6, inner=inner.items(), image_lr=0.4, momentum=0.9)
    assert_same_run(found, wanted, 6)


@pytest.mark.parametrize("clamp", ["never", "every_update", "every_network"])
@pytest.mark.parametrize("space", ["normalized", "pixel"])
def test_both_spaces_and_every_clamping_are_the_literal_loop(space, clamp):
    # a rate so large that images leave the range of real ones
    found = trained(
        [GradientMatching("squared_l2", weight=100.0)],
        1,
        TrainOnSynthetic(2, 2),
        4,
        network=tiny_convnet(),
        parametrization=Pixels(space, clamp),
    )
    wanted = literal(found[0], [(100.0, oracle.squared_l2)], 1, tiny_convnet(), 4, space=space, clamp=clamp)
    assert_same_run(found, wanted, 4)
    if clamp == "never" and space == "pixel":
        assert found[-1].min() < 0 or found[-1].max() > 1


def test_one_image_a_class_never_trains_a_network():
    # the published loops for ipc 1: a fresh network for every update
    found = trained([GradientMatching()], 1, TrainOnSynthetic(), 3, network=tiny_convnet())
    assert_same_run(
        found, literal(found[0], ROW_COSINE, 1, tiny_convnet(), 3, inner={"updates": 1, "epochs": 0}.items()), 3
    )


class Counting(TrainOnSynthetic):
    """Writes down after which updates it trained."""

    def __init__(self):
        super().__init__(updates=3, epochs=1)
        self.advanced_after = []

    def advance(self, inner, context, progress, key):
        self.advanced_after.append(progress.update)
        super().advance(inner, context, progress, key)


def test_a_network_is_not_advanced_after_its_last_update():
    inner = Counting()
    trained([GradientMatching()], 1, inner, 6, network=tiny_convnet())
    assert inner.advanced_after == [0, 1, 3, 4]
