"""Multi-formation whose images are decoded at several factors, and updates that match some of the decoded images."""

from __future__ import annotations

import pytest
import torch

from lit_condense.data import Normalization
from lit_condense.engine import Engine
from lit_condense.errors import SettingsError
from lit_condense.init import Noise, RandomReal
from lit_condense.inner import FreshNetwork
from lit_condense.matching import CurvatureMatching, FeatureMatching, GradientMatching
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.sampling import RandomSampling
from tests.helpers import DOUBLE, Recorder, TinyData, fitted
from tests.methods.helpers import CLASSES, PRECISION, REAL_BATCH, KeyedDraws, one_update
from tests.oracles import dc, methods, multi_formation

NORMALIZATION = Normalization((0.4, 0.6), (0.2, 0.3))
PLAIN = Normalization((0.0, 0.0), (1.0, 1.0))
MEAN, STD = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in ([0.4, 0.6], [0.2, 0.3]))
GREY = torch.full((2,), 0.5, dtype=torch.float64)


def pixels(count, size=(8, 8), seed=0):
    return torch.rand(count, 2, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bounded(factor, bound, **settings):
    return MultiFormation(factor, decoding="bound", bound=bound, **settings)


# ------------------------------------------------------------------ how many images at which factor

# (stored, factor, bound) -> images at each factor from the largest down; IDC's program has 3 and 128 on ImageNet
BOUNDED = {
    (20, 3, 128): [12, 3, 5],
    (50, 3, 128): [8, 3, 39],
    (10, 3, 128): [10, 0, 0],
    (32, 2, 128): [24, 8],
    (25, 2, 128): [25, 0],
    (128, 2, 128): [0, 128],
    (200, 2, 128): [0, 200],
    (1, 2, 4): [0, 1],
    (1, 2, 5): [1, 0],
    (3, 1, 2): [3],
}


@pytest.mark.parametrize("case", BOUNDED, ids=str)
def test_as_many_images_as_fit_are_used_at_each_factor_from_the_largest_down(case):
    stored, factor, bound = case
    factors = range(factor, 0, -1)
    decoded = sum(f**2 * n for f, n in zip(factors, BOUNDED[case], strict=True))
    assert bounded(factor, bound).decoded_count(stored) == decoded
    assert decoded <= max(bound, stored)
    assert multi_formation.bounded(stored, factor, bound) == [
        f for f, n in zip(factors, BOUNDED[case], strict=True) for _ in range(n)
    ]


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_a_bound_is_kept_and_every_image_is_used_once(factor):
    for bound in (1, 7, 16, 40, 128):
        for stored in (1, 2, 3, 5, 8, 13, 40, 130):
            uses = bounded(factor, bound)._uses(stored)
            assert [i for _, part in uses for i in range(part.start, part.stop)] == list(range(stored))
            literal = multi_formation.bounded(stored, factor, bound)
            assert [f for f, part in uses for _ in range(part.start, part.stop)] == literal
            assert bounded(factor, bound).decoded_count(stored) == sum(f**2 for f in literal) <= max(bound, stored)


# ------------------------------------------------------------------ images and labels


@pytest.mark.parametrize("space", ["pixel", "normalized"])
@pytest.mark.parametrize(
    ("size", "factor", "bound", "count"), [((8, 8), 2, 12, 5), ((7, 9), 3, 24, 6), ((5, 4), 4, 9, 2)]
)
def test_bound_decoding_is_the_literal_one(size, factor, bound, count, space):
    storage = bounded(factor, bound, space=space)
    fill = GREY if space == "pixel" else (GREY - MEAN[:, 0, 0]) / STD[:, 0, 0]
    factors = multi_formation.bounded(count, factor, bound)

    def literal(stored):
        decoded = multi_formation.decode_each(stored, factors, fill)
        return (decoded - MEAN) / STD if space == "pixel" else decoded

    leaves = [pixels(count, size).requires_grad_() for _ in range(2)]
    found, wanted = storage.decode(leaves[0], NORMALIZATION), literal(leaves[1])
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)
    weights = pixels(len(wanted), size, seed=1)
    gradients = [
        torch.autograd.grad((weights * decoded.square()).sum(), leaf)[0]
        for decoded, leaf in zip((found, wanted), leaves, strict=True)
    ]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-11, atol=1e-12)
    assert len(set(factors)) > 1
    assert (gradients[1].flatten(1).abs().amax(1) > 0).all()  # every stored image is used


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_multi_decoding_is_every_factor_up_to_the_largest(factor):
    stored = pixels(3, (7, 8))
    storage = MultiFormation(factor, decoding="multi")
    found = storage.decode(stored, NORMALIZATION)
    wanted = torch.cat([multi_formation.decode(stored, f, GREY) for f in range(1, factor + 1)])
    torch.testing.assert_close(found, (wanted - MEAN) / STD, rtol=1e-12, atol=1e-13)
    assert len(found) == storage.decoded_count(3) == 3 * {1: 1, 2: 5, 3: 14}[factor]


STORAGES = [bounded(2, 9), bounded(3, 20), MultiFormation(3, decoding="multi"), MultiFormation(2)]


@pytest.mark.parametrize("storage", STORAGES, ids=lambda s: f"{s.decoding} {s.factor}")
def test_labels_follow_the_order_of_decoded_images(storage):
    # an image of one value says which stored image it comes from; a label does not need to be of one class
    labels = torch.tensor([7, 3, 3, 5, 0])
    stored = labels.double()[:, None, None, None].expand(-1, 2, 6, 6)
    repeated = storage.decode_labels(labels)
    assert torch.equal(storage.decode(stored, PLAIN)[:, 0, 0, 0].long(), repeated)
    assert repeated.dtype == torch.int64
    assert len(repeated) == storage.decoded_count(5)


def test_plain_pixels_decode_to_themselves():
    assert Pixels().decoded_count(7) == Pixels().matched_count(7) == 7
    assert Pixels(most_matched=4).matched_count(7) == 4
    assert Pixels(most_matched=9).matched_count(7) == 7


# ------------------------------------------------------------------ what networks are trained on


def test_networks_are_trained_on_the_uniform_set_of_a_bounded_one():
    stored, labels = pixels(6), torch.tensor([0, 0, 0, 1, 1, 1])
    storage = bounded(2, 8, space="normalized", clamp="never", most_matched=3)
    uniform = MultiFormation(2, "normalized")
    assert storage.decoded_count(6) == 6
    used = storage.for_training
    assert torch.equal(used.decode(stored, NORMALIZATION), uniform.decode(stored, NORMALIZATION))
    assert torch.equal(used.decode_labels(labels), labels.repeat(4))


@pytest.mark.parametrize("storage", [MultiFormation(2), MultiFormation(2, decoding="multi"), Pixels()])
def test_other_sets_are_trained_on_as_they_are_matched(storage):
    assert storage.for_training is storage


@pytest.mark.parametrize(
    ("storage", "each"),
    [(bounded(2, 8), 4), (MultiFormation(2, decoding="multi"), 5), (MultiFormation(2, most_matched=3), 4)],
    ids=["bound", "multi", "sampled"],
)
def test_the_training_set_of_a_run_has_all_images_and_labels_in_step(storage, each):
    module = fitted(ipc=[1, 3, 1], parametrization=storage, init=RandomReal(), data=TinyData((13, 13, 13)), max_steps=2)
    current = module.training_set()
    assert torch.bincount(current.labels).tolist() == [each, 3 * each, each]
    own = module.data.real.normalization
    for c, rows in enumerate((slice(0, 1), slice(1, 4), slice(4, 5))):
        alone = storage.for_training.decode(module.images.detach()[rows], own)
        mine = current.images[current.labels == c]
        distances = (mine[:, None] - alone).abs().amax((2, 3, 4))
        assert distances.min(1).values.max() == distances.min(0).values.max() == 0


# ------------------------------------------------------------------ an update

TERMS = [(1.0, methods.intra(dc.row_cosine))]
IPC = (3, 2, 5, 1, 2)
LABELS = torch.repeat_interleave(torch.arange(CLASSES), torch.tensor(IPC))


def literal_view(draws, factors_of, kept_of=None):
    """From the stored images of a class to what the network sees."""

    def view(c, images):
        decoded = multi_formation.decode_each(images, factors_of(c), GREY[:1])
        decoded = decoded if kept_of is None else torch.stack([decoded[i] for i in kept_of(c, len(decoded))])
        return draws.normalised(decoded)

    return view


@pytest.mark.parametrize("per_block", [1, 5])
def test_an_update_matches_the_bounded_images_of_each_class(per_block):
    settings = {"ipc": list(IPC), "engine": Engine(classes_per_block=per_block)}
    found, start, _ = one_update(GradientMatching(), parametrization=bounded(2, 8, clamp="never"), **settings)
    draws = KeyedDraws()
    view = literal_view(draws, lambda c: multi_formation.bounded(IPC[c], 2, 8))
    _, wanted = methods.image_gradient(draws.network(), start, LABELS, draws.real(), TERMS, view)
    torch.testing.assert_close(found, wanted, **PRECISION)
    assert [multi_formation.bounded(n, 2, 8) for n in IPC] == [[2, 1, 1], [2, 1], [1] * 5, [2], [2, 1]]


def kept(draws, update, most):
    return lambda c, decoded: torch.randperm(
        decoded, generator=draws.key.fold("decoded", update, c).generator()
    ).tolist()[:most]


@pytest.mark.parametrize("term", ["classes", "set"])
@pytest.mark.parametrize("per_block", [1, 5])
def test_an_update_matches_a_draw_of_the_decoded_images(per_block, term):
    loss, oracle = {
        "classes": (GradientMatching(), methods.intra(dc.row_cosine)),
        "set": (FeatureMatching(joint=True), methods.dm_joint),
    }[term]
    storage = MultiFormation(2, clamp="never", most_matched=5)
    found, start, _ = one_update(
        loss, parametrization=storage, ipc=list(IPC), engine=Engine(classes_per_block=per_block)
    )
    draws = KeyedDraws()
    view = literal_view(draws, lambda c: [2] * IPC[c], kept(draws, 0, 5))
    _, wanted = methods.image_gradient(draws.network(), start, LABELS, draws.real(), [(1.0, oracle)], view)
    torch.testing.assert_close(found, wanted, **PRECISION)
    # a class of one image is used whole; of the 20 cells of class 2 some are left alone
    cells = (found.unfold(2, 4, 4).unfold(3, 4, 4).abs().amax((1, 4, 5)) > 0).flatten(1).sum(1)
    assert [int(cells[LABELS == c].sum()) for c in range(CLASSES)] == [min(5, 4 * n) for n in IPC]


def test_the_draw_is_new_for_every_update():
    recorder = Recorder()
    storage, lr = Pixels("pixel", most_matched=2), 0.1
    fitted(
        GradientMatching(),
        recorder,
        ipc=6,
        parametrization=storage,
        inner=FreshNetwork(),
        sampling=RandomSampling(REAL_BATCH),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=lr),
        max_steps=4,
        trainer=DOUBLE,
    )
    draws, changed = KeyedDraws(), []
    for update in range(4):
        moved = (recorder.images[update + 1] != recorder.images[update]).flatten(1).any(1).view(CLASSES, 6)
        wanted = [sorted(kept(draws, update, 2)(c, 6)) for c in range(CLASSES)]
        assert [row.nonzero().flatten().tolist() for row in moved] == wanted
        changed.append(wanted)
    assert all(a != b for i, a in enumerate(changed) for b in changed[:i])


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize("init", [Noise(), RandomReal()], ids=["noise", "real"])
def test_more_cells_than_pixels_are_refused_before_anything_is_packed(init):
    with pytest.raises(SettingsError, match=r"MultiFormation.factor to be at most 8, .* 8 x 9 images, got 9"):
        fitted(parametrization=MultiFormation(9), init=init, data=TinyData((90, 90), image_size=(8, 9)), ipc=1)


def test_as_many_cells_as_pixels_are_taken():
    MultiFormation(8).check_size((8, 9))
    Pixels().check_size((1, 1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"decoding": "single"}, "MultiFormation.decoding to be 'uniform', 'multi' or 'bound', got 'single'"),
        ({"bound": 0}, "MultiFormation.bound to be 1 or more, got 0"),
        ({"most_matched": 0}, "MultiFormation.most_matched to be 1 or more, got 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        MultiFormation(**settings)


def test_one_image_left_of_a_class_is_too_few_for_variances():
    with pytest.raises(SettingsError, match="2 decoded synthetic images of each class, a class has 1"):
        fitted(CurvatureMatching(), ipc=3, parametrization=Pixels(most_matched=1))
