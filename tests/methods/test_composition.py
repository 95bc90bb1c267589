"""Parts of several methods together: EGM's levels, LCMat's curvature, IDC's multi-formation and DREAM's sampling."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch

from lit_condense import SyntheticSet
from lit_condense.augmentation import AlwaysOn
from lit_condense.engine import Engine
from lit_condense.evaluation import Evaluation
from lit_condense.init import Clustered
from lit_condense.inner import DecreasingTraining, TrainOnReal
from lit_condense.matching import ClassMeanGradientMatching, CurvatureMatching, FeatureMatching, GradientMatching
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.sampling import Representative
from tests.helpers import TinyData, quiet_trainer, tiny_convnet
from tests.methods.helpers import (
    CLASSES,
    NORMALIZATION,
    PRECISION,
    UNEQUAL,
    KeyedDraws,
    Recording,
    labels_of,
    matched,
    network_of,
    one_update,
    real_of,
    stored_of,
)
from tests.oracles import dc, methods, multi_formation

GREY = torch.full((2,), 0.5, dtype=torch.float64)
STORAGES = {"pixels": Pixels(), "multi-formation": MultiFormation(2)}


def losses():
    return [
        GradientMatching("row_cosine_norm", name="intra"),
        ClassMeanGradientMatching("row_cosine_norm", weight=0.5, name="inter"),
        CurvatureMatching(rho=0.4, name="curvature"),
    ]


TERMS = {
    "intra": (1.0, methods.intra(dc.row_cosine_norm)),
    "inter": (0.5, methods.inter(dc.row_cosine_norm, CLASSES)),
    "curvature": (0.2, methods.curvature("l1")),
    "joint features": (2.0, methods.dm_joint),
}


def decoded(storage, images):
    if storage == "pixels":
        return images
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (NORMALIZATION.mean, NORMALIZATION.std))
    return (multi_formation.decode(images, 2, GREY) - mean) / std


@functools.cache
def literal(storage, name):
    """The value of one term and its part of the image gradient."""
    values, gradient = methods.image_gradient(
        network_of(),
        stored_of(UNEQUAL),
        labels_of(UNEQUAL),
        real_of(),
        [TERMS[name]],
        lambda c, images: decoded(storage, images),
    )
    return values[0], gradient


def assert_sum_of_terms(found, storage, names):
    values, gradient = found
    wanted = [literal(storage, name) for name in names]
    assert values == {name: pytest.approx(value, rel=1e-10) for name, (value, _) in zip(names, wanted, strict=True)}
    torch.testing.assert_close(gradient, sum(part for _, part in wanted), **PRECISION)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("per_block", [1, 3, 5])
@pytest.mark.parametrize("storage", STORAGES)
def test_the_image_gradient_is_the_sum_of_the_separate_ones(storage, per_block, order):
    turned = [losses()[i] for i in order]
    found = matched(network_of(), turned, per_block, storage=STORAGES[storage])
    assert_sum_of_terms(found, storage, [loss.tag for loss in turned])


@pytest.mark.parametrize("ranks", [2, 3, 7])
@pytest.mark.parametrize("per_block", [1, 2])
def test_ranks_add_up_to_the_same_sum(per_block, ranks):
    # of seven ranks two have nothing to do
    found = matched(network_of(), losses(), per_block, storage=MultiFormation(2), ranks=ranks)
    assert_sum_of_terms(found, "multi-formation", ["intra", "inter", "curvature"])


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("turned", [False, True])
def test_a_loss_that_sees_the_whole_set_adds_to_those_of_classes_and_means(turned, ranks):
    together = [*losses(), FeatureMatching(joint=True, weight=2.0, name="joint features")]
    together = together[::-1] if turned else together
    found = matched(network_of(), together, 3, ranks=ranks)
    assert_sum_of_terms(found, "pixels", [loss.tag for loss in together])


# ------------------------------------------------------------------ through a Trainer


class Chosen(Representative):
    """Keeps the images that stood for each class."""

    def select(self, real, class_index, key):
        chosen = super().select(real, class_index, key)
        self.last = {**getattr(self, "last", {}), class_index: chosen}
        return chosen


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=str)
@pytest.mark.parametrize("per_block", [1, 3])
def test_a_run_with_representative_sampling_and_a_clustered_start_takes_that_gradient(per_block, order):
    ipc, sampling, augmentation = (1, 1, 2, 1, 1), Chosen(6), Recording(AlwaysOn())
    data = TinyData((20, 17, 20, 8, 14))
    gradient, start, module = one_update(
        *(losses()[i] for i in order),
        ipc=list(ipc),
        sampling=sampling,
        augmentation=augmentation,
        data=data,
        parametrization=MultiFormation(2),
        init=Clustered(),
        inner=TrainOnReal(updates=1),
        engine=Engine(classes_per_block=per_block),
    )
    draws, grey = KeyedDraws(data), GREY[:1]
    real = [data.real.at(sampling.last[c]).double() for c in range(CLASSES)]
    values, wanted = methods.image_gradient(
        draws.network(),
        start,
        labels_of(ipc),
        [augmentation.matching(c, images) for c, images in enumerate(real)],
        [TERMS[name] for name in ("intra", "inter", "curvature")],
        lambda c, images: augmentation.matching(c, draws.normalised(multi_formation.decode(images, 2, grey))),
    )
    torch.testing.assert_close(gradient, wanted, **PRECISION)
    logged = module.trainer.callback_metrics
    assert [float(logged[f"loss/{name}"]) for name in ("intra", "inter", "curvature")] == pytest.approx(
        values, rel=1e-6
    )
    assert float(logged["loss/total"]) == pytest.approx(values[0] + 0.5 * values[1] + 0.2 * values[2], rel=1e-6)


INNERS = {
    "real": lambda updates: TrainOnReal(updates, images=16, batch_size=8),
    "decreasing": DecreasingTraining,
}


def fresh_run(inner, interval, updates, max_steps, checkpoint=None):
    """A run of all parts, from the start or on from a checkpoint."""
    module = SyntheticSet(
        ipc=[1, 2, 1],
        network=tiny_convnet(),
        inner=INNERS[inner](updates),
        sampling=Representative(6, interval=interval, subset=12),
        parametrization=MultiFormation(2),
        init=Clustered(),
        augmentation=AlwaysOn(),
        engine=Engine(classes_per_block=2),
        evaluation=Evaluation(epochs=1, quick_repeats=1, repeats=1),
        seed=3,
    )
    trainer = quiet_trainer(*losses(), max_steps=max_steps)
    trainer.fit(module, datamodule=TinyData((20, 17, 13)), ckpt_path=checkpoint)
    return module, trainer


def everything(module, trainer):
    """All tensors that a run goes on from."""
    return {
        "images": module.images.detach(),
        "momentum": trainer.optimizers[0].state[module.images]["momentum_buffer"],
        **{f"network {name}": value for name, value in module.inner_network.network.state_dict().items()},
        **{f"chosen {c}": value for c, value in module.sampling.state_dict()["chosen"].items()},
    }


@pytest.mark.filterwarnings("ignore:max_steps")
@pytest.mark.parametrize(
    ("interval", "updates", "inner"),
    [
        # broken after 3 of 6 updates: the choice of update 2 is held, and a new network comes at 4
        (2, 4, "real"),
        (2, 4, "decreasing"),
        (3, 6, "real"),  # a choice is due at once
        (10, 3, "real"),  # and so is a new network
    ],
)
def test_a_run_broken_across_a_choice_ends_with_the_bytes_of_an_unbroken_one(interval, updates, inner, tmp_path):
    straight = everything(*fresh_run(inner, interval, updates, 6))
    module, trainer = fresh_run(inner, interval, updates, 3)
    at_break = everything(module, trainer)
    trainer.save_checkpoint(tmp_path / "break.ckpt")
    goes_on = everything(*fresh_run(inner, interval, updates, 6, tmp_path / "break.ckpt"))
    assert straight.keys() == goes_on.keys()
    for name, value in straight.items():
        assert torch.equal(value, goes_on[name]), name
    assert not torch.equal(at_break["images"], straight["images"])
    assert any(not torch.equal(at_break[f"chosen {c}"], straight[f"chosen {c}"]) for c in range(3))


def test_the_same_run_twice_gives_the_same_bytes():
    first, again = (everything(*fresh_run("real", 2, 4, 4)) for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
