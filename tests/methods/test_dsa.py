"""DSA: one augmentation for the real and the synthetic images of a class (Zhao and Bilen, ICML 2021)."""

from __future__ import annotations

import pytest
import torch

from lit_condense.augmentation import AlwaysOn, Augmentation, OneOf
from lit_condense.engine import Engine
from lit_condense.init import RandomReal
from lit_condense.inner import TrainOnSynthetic
from lit_condense.matching import FeatureMatching, GradientMatching
from lit_condense.parametrization import MultiFormation
from tests.helpers import DOUBLE, Emptying, TinyData, fitted, tiny_convnet
from tests.methods.helpers import PRECISION, REAL_BATCH, SEED, KeyedDraws, Recording, labels_of, one_update
from tests.oracles import dc, methods, multi_formation

EVERYTHING = ("color", "crop", "cutout", "flip", "scale", "rotate")
AUGMENTATIONS = {
    "one of": OneOf(),
    "always on": AlwaysOn(EVERYTHING),
    **{f"only {name}": OneOf((name,)) for name in EVERYTHING},
}


def literal(augmentation, start, ipc, term, decode=lambda images: images, factory=None):
    draws = KeyedDraws(factory=factory)
    real = [augmentation.matching(c, images) for c, images in enumerate(draws.real())]
    return methods.image_gradient(
        draws.network(),
        start,
        labels_of(ipc),
        real,
        [(1.0, term)],
        view=lambda c, images: augmentation.matching(c, decode(images)),
    )[1]


@pytest.mark.parametrize("per_block", [1, 3])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_one_draw_for_a_class_is_shared_by_both_sides(name, per_block):
    augmentation, ipc = Recording(AUGMENTATIONS[name]), [2, 2, 2, 1, 3]
    gradient, start, _ = one_update(
        GradientMatching(), ipc=ipc, augmentation=augmentation, engine=Engine(classes_per_block=per_block)
    )
    wanted = literal(augmentation, start, ipc, methods.intra(dc.row_cosine))
    torch.testing.assert_close(gradient, wanted, **PRECISION)
    plain, _, _ = one_update(GradientMatching(), ipc=ipc)
    assert name == "only flip" or not torch.allclose(gradient, plain, rtol=1e-3)


@pytest.mark.parametrize("joint", [False, True])
def test_features_of_all_classes_at_once_keep_each_class_its_draw(joint):
    augmentation, ipc, factory = Recording(AUGMENTATIONS["always on"]), [2, 2, 2, 1, 3], tiny_convnet("batch")
    loop = TrainOnSynthetic(updates=2, epochs=1, batch_norm="own_batch")
    gradient, start, _ = one_update(
        FeatureMatching(joint), ipc=ipc, augmentation=augmentation, network=factory, inner=loop
    )
    wanted = literal(augmentation, start, ipc, methods.dm_joint if joint else methods.dm, factory=factory)
    torch.testing.assert_close(gradient, wanted, **PRECISION)


def test_multi_formation_is_decoded_and_normalised_before_it_is_augmented():
    augmentation, draws = Recording(AUGMENTATIONS["always on"]), KeyedDraws()
    grey = torch.full((1,), 0.5, dtype=torch.float64)
    storage = MultiFormation(3, clamp="never")
    gradient, start, _ = one_update(GradientMatching(), augmentation=augmentation, parametrization=storage)
    wanted = literal(
        augmentation,
        start,
        (2,) * 5,
        methods.intra(dc.row_cosine),
        decode=lambda images: draws.normalised(multi_formation.decode(images, 3, grey)),
    )
    torch.testing.assert_close(gradient, wanted, **PRECISION)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_images_match_perfectly_under_every_draw(name):
    # were the two sides augmented apart, equal images would differ
    module = fitted(
        GradientMatching("l1", name="loss"),
        ipc=4,
        init=RandomReal(),
        augmentation=AUGMENTATIONS[name],
        data=TinyData((4,) * 3),
        trainer=DOUBLE,
        inner=TrainOnSynthetic(updates=3, epochs=1),
        max_steps=1,
    )
    assert float(module.trainer.callback_metrics["loss/loss"]) < 1e-5  # real pixels come as float32


class Spy(Augmentation):
    """Writes down what is drawn and what the draws are applied to."""

    def __init__(self):
        self.drawn, self.applied = [], []

    def draw(self, key, image_size, samples):
        self.drawn.append((key.path, tuple(image_size), samples))
        return {"key": key}

    def apply(self, images, draw):
        self.applied.append((draw["key"].path, len(images)))
        return images


@pytest.mark.parametrize("per_block", [1, 5])
def test_each_class_and_update_has_one_draw_and_training_one_for_every_image(per_block):
    spy = Spy()
    fitted(
        GradientMatching(),
        Emptying(spy.drawn, spy.applied),
        augmentation=spy,
        inner=TrainOnSynthetic(updates=2, epochs=1, batch_size=4),
        engine=Engine(classes_per_block=per_block),
        max_steps=2,
        seed=SEED,
    )
    matching = [drawn for drawn in spy.drawn if drawn[0][0] == "augment"]
    assert len(matching) == len(set(matching)) == 10
    assert {samples for _, _, samples in matching} == {1}
    assert {size for _, size, _ in matching} == {(8, 8)}
    for update in range(2):
        for c, size in enumerate(TinyData().sizes):
            path = ("augment", update, c)
            counts = [count for key, count in spy.applied if key == path]
            assert sorted(counts) == sorted([2, min(REAL_BATCH, size)])
    training = [samples for path, _, samples in spy.drawn if path[0] == "inner"]
    assert training == [4, 4, 2]  # ten synthetic images, once, between the two updates


def test_the_draws_follow_from_the_key_alone_in_double_precision_too():
    # Lightning changes the default number type in the steps of a 64-true run; the draws must not follow it
    augmentation = Recording(AUGMENTATIONS["always on"])
    one_update(GradientMatching(), augmentation=augmentation)
    for c in range(5):
        key = KeyedDraws().key.fold("augment", 0, c)
        wanted = AUGMENTATIONS["always on"].draw(key, (8, 8), samples=1)
        found = augmentation.draws[key.path]
        assert found.keys() == wanted.keys()
        for name, parameters in wanted.items():
            for a, b in zip(found[name], parameters, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, check_dtype=False)
