"""DM: squared distances of class-mean features in fresh networks (Zhao and Bilen, WACV 2023)."""

from __future__ import annotations

import pytest
import torch

from lit_condense.engine import Engine
from lit_condense.errors import SettingsError
from lit_condense.inner import FreshNetwork
from lit_condense.matching import FeatureMatching, MatchingLoss, Quantities
from lit_condense.parametrization import MultiFormation
from tests.helpers import Emptying, TinyData, fitted, tiny_convnet
from tests.methods.helpers import (
    CLASSES,
    EQUAL,
    NORMALIZATION,
    PRECISION,
    REAL_COUNTS,
    UNEQUAL,
    KeyedDraws,
    labels_of,
    matched,
    network_of,
    noise,
    one_update,
    real_of,
    stored_of,
)
from tests.oracles import methods, multi_formation

NORMS = ("instance", "batch", "layer")
TAG = "FeatureMatching"


def literal(norm, term, ipc=UNEQUAL, counts=REAL_COUNTS, view=lambda c, images: images):
    return methods.image_gradient(
        network_of(norm), stored_of(ipc), labels_of(ipc), real_of(counts), [(1.0, term)], view
    )


def assert_literal(found, wanted):
    assert found[0] == {TAG: pytest.approx(wanted[0][0], rel=1e-10)}
    torch.testing.assert_close(found[1], wanted[1], **PRECISION)
    assert wanted[1].abs().max() > 1e-6


@pytest.mark.parametrize("per_block", [1, 3, 5])
@pytest.mark.parametrize("norm", NORMS)
def test_loss_and_image_gradient_are_the_literal_ones(norm, per_block):
    # batch norm in training mode: each class has its own statistics
    assert_literal(matched(network_of(norm), [FeatureMatching()], per_block), literal(norm, methods.dm))


@pytest.mark.parametrize("per_block", [1, 5])
def test_the_other_distance_is_the_sum_of_absolute_differences(per_block):
    found = matched(network_of(), [FeatureMatching(distance="l1")], per_block)
    assert_literal(found, literal("instance", methods.dm_l1))


def test_an_unknown_distance_is_refused():
    with pytest.raises(SettingsError, match=r"FeatureMatching.distance to be 'squared_l2' or 'l1', got 'cosine'"):
        FeatureMatching(distance="cosine")


@pytest.mark.parametrize("per_block", [1, 3, 5])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("counts", [REAL_COUNTS, (6,) * CLASSES, (6, 1, 2, 4, 6)], ids=str)
def test_jointly_all_classes_share_one_forward_pass_a_side(norm, counts, per_block):
    found = matched(network_of(norm), [FeatureMatching(joint=True)], per_block, counts=counts)
    assert_literal(found, literal(norm, methods.dm_joint, counts=counts))


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("joint", [False, True])
def test_ranks_add_up_to_the_literal_update(ranks, joint):
    term = methods.dm_joint if joint else methods.dm
    found = matched(network_of("batch"), [FeatureMatching(joint)], 2, ranks=ranks)
    assert_literal(found, literal("batch", term))


def test_only_batch_norm_tells_joint_from_class_by_class():
    for norm in NORMS:
        apart, joint = (matched(network_of(norm), [FeatureMatching(j)], 1, EQUAL)[1] for j in (False, True))
        assert torch.allclose(apart, joint, rtol=1e-9, atol=1e-13) == (norm != "batch")


@pytest.mark.parametrize("joint", [False, True])
def test_multi_formation_is_decoded_class_by_class(joint):
    grey = torch.full((2,), 0.5, dtype=torch.float64)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (NORMALIZATION.mean, NORMALIZATION.std))
    found = matched(network_of("batch"), [FeatureMatching(joint)], 3, storage=MultiFormation(2))
    wanted = literal(
        "batch",
        methods.dm_joint if joint else methods.dm,
        view=lambda c, images: (multi_formation.decode(images, 2, grey) - mean) / std,
    )
    assert_literal(found, wanted)


def test_squares_are_summed_over_features_and_classes_and_never_averaged():
    def side(*means):
        # two images a class around each mean
        features = torch.stack([torch.stack([m - 1, m + 1]) for m in means])
        return Quantities({"features": features}, labels=torch.arange(len(means))[:, None].expand(-1, 2))

    real = side(torch.zeros(3), torch.ones(3))
    synthetic = side(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 5.0]))
    for joint in (False, True):
        assert float(FeatureMatching(joint).loss(real, synthetic)) == 1 + 4 + 9 + 16


@pytest.mark.parametrize("joint", [False, True])
def test_the_weights_are_never_differentiated(joint, monkeypatch):
    asked = []
    real_grad = torch.autograd.grad

    def spying(outputs, inputs, *args, **kwargs):
        asked.extend([inputs] if isinstance(inputs, torch.Tensor) else inputs)
        return real_grad(outputs, inputs, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", spying)
    network = network_of("instance")
    with_graph = matched(network, [FeatureMatching(joint)])
    weights = {id(p) for p in network.parameters()}
    assert asked
    assert not any(id(tensor) in weights for tensor in asked)
    monkeypatch.undo()

    network.requires_grad_(False)
    try:
        values, gradient = matched(network, [FeatureMatching(joint)])
    finally:
        network.requires_grad_(True)
    assert values == with_graph[0]
    assert torch.equal(gradient, with_graph[1])


def test_nothing_is_asked_for_but_features():
    assert FeatureMatching.needs == {"features"}


@pytest.mark.parametrize("joint", [False, True])
def test_a_run_with_batch_norm_lets_each_batch_have_its_own_statistics(joint):
    ipc, factory = [2, 1, 2, 3, 2], tiny_convnet("batch")
    gradient, start, _ = one_update(FeatureMatching(joint), ipc=ipc, network=factory, inner=FreshNetwork())
    draws = KeyedDraws(factory=factory)
    term = methods.dm_joint if joint else methods.dm
    _, wanted = methods.image_gradient(draws.network(), start, labels_of(ipc), draws.real(), [(1.0, term)])
    torch.testing.assert_close(gradient, wanted, **PRECISION)
    assert wanted.abs().max() > 1e-4


class NetworkSpy(MatchingLoss):
    """Keeps a number of the network that each update sees: the sum of a fixed real class's features."""

    needs = frozenset({"features"})

    def __init__(self):
        super().__init__(weight=1.0)
        self.seen = []

    def loss(self, real, synthetic):
        self.seen.append(float(real.features.sum()))
        return synthetic.features.sum() * 0


def test_every_update_has_a_fresh_network():
    spy = NetworkSpy()
    fitted(
        spy,
        Emptying(spy.seen),
        inner=FreshNetwork(),
        max_steps=4,
        data=TinyData((5,) * 3),
        engine=Engine(classes_per_block=3),
    )
    assert len(spy.seen) == 4
    assert len({round(value, 3) for value in spy.seen}) == 4


def test_features_are_those_before_the_classifier():
    images = noise(3, 2, 8, 8)
    network = network_of("instance")
    wanted = methods.features_of(network, images)
    assert wanted.shape == (3, network.classifier.in_features)
    torch.testing.assert_close(network.classifier(wanted), network(images))
