from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from lit_condense.augmentation import Augmentation, NoAugmentation
from lit_condense.data import Normalization, TensorImages
from lit_condense.evaluation import SmallSet, training
from lit_condense.evaluation.protocols import recipe_for
from lit_condense.networks import MLP, build_network
from lit_condense.rng import RandomKey
from tests.helpers import tiny_convnet
from tests.oracles import evaluation as oracle
from tests.oracles.dc import Sgd, train_step

KEY = RandomKey(4).fold("evaluation", 0)
IMAGES = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.arange(10) % 5
SET = SmallSet(IMAGES, LABELS)
EPOCHS = 6


def network_of(factory=None):
    return build_network(factory or tiny_convnet(), 1, (8, 8), 5, KEY).double()


def plain(protocol, batch_size=None, epochs=EPOCHS):
    """A protocol's recipe without what it draws, except the order."""
    recipe = recipe_for(protocol, "cifar10", False, epochs)
    recipe = replace(recipe, augmentation=NoAugmentation(), cutmix=0.0)
    return recipe if batch_size is None else replace(recipe, batch_size=batch_size)


def order(index):
    return torch.randperm(10, generator=KEY.fold("order", index).generator())


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


class Steps:
    """The weights at the beginning of each training step of a network, and the batches it saw."""

    def __init__(self, network):
        self.weights, self.batches = [], []
        network.register_forward_pre_hook(self._seen)

    def _seen(self, network, inputs):
        if network.training:
            self.weights.append(weights(network))
            self.batches.append(inputs[0].detach().clone())


def literal(train, network, batch_size):
    trajectory = [weights(network)]
    train(network, IMAGES, LABELS, EPOCHS, order, lambda: trajectory.append(weights(network)), batch_size)
    return trajectory


@pytest.mark.parametrize("batch_size", [None, 4], ids=["one batch", "three batches"])
@pytest.mark.parametrize(
    ("protocol", "train", "published"),
    [("dc", oracle.train_dc, 256), ("egm", oracle.train_egm, 256), ("idc", oracle.train_idc, 64)],
)
def test_training_is_the_literal_recipe_step_by_step(protocol, train, published, batch_size):
    network = network_of()
    wanted = literal(train, copy.deepcopy(network), batch_size or published)
    steps = Steps(network)
    count = training.train_network(network, SET, plain(protocol, batch_size), KEY)
    assert count == len(wanted) - 1 == (7 if protocol == "dc" else 6) * (1 if batch_size is None else 3)
    for found, expected in zip([*steps.weights, weights(network)], wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_the_protocol_dc_needs_no_changes_to_be_without_augmentation():
    network = network_of()
    wanted = literal(oracle.train_dc, copy.deepcopy(network), 256)
    training.train_network(network, SET, recipe_for("dc", "cifar10", False, EPOCHS), KEY)
    torch.testing.assert_close(weights(network), wanted[-1], rtol=1e-12, atol=1e-14)


def test_a_capped_training_takes_fewer_steps_and_drops_the_rate_in_proportion():
    # 7 passes of 3 batches with a drop before step 15 become 14 steps with a drop before step 10
    network = network_of()
    sgd, wanted = Sgd(0.01, 0.9, 5e-4), copy.deepcopy(network)
    for step in range(14):
        if step == 10:
            sgd = Sgd(0.001, 0.9, 5e-4)
        chosen = order(step // 3)[4 * (step % 3) : 4 * (step % 3) + 4]
        train_step(wanted, sgd, IMAGES[chosen], LABELS[chosen])
    assert training.train_network(network, SET, plain("dc", batch_size=4), KEY, max_steps=14) == 14
    torch.testing.assert_close(weights(network), weights(wanted), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("protocol", ["dc", "dsa", "idc", "egm", "mtt"])
def test_the_key_alone_decides_the_training(protocol):
    results = []
    for key in (KEY, KEY, KEY.fold("other")):
        network = network_of().float()
        before = torch.get_rng_state()
        recipe = replace(recipe_for(protocol, "cifar10", True, 4), batch_size=4)
        training.train_network(network, SmallSet(IMAGES.float(), LABELS), recipe, key)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(weights(network))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


class Recording(Augmentation):
    """Doubles the images and writes down what was asked."""

    def __init__(self):
        self.draws = []

    def draw(self, key, image_size, samples):
        self.draws.append((key, image_size, samples))
        return {}

    def apply(self, images, draw):
        return 2 * images


def test_every_batch_is_augmented_by_its_own_draw_for_each_image():
    augmentation, network = Recording(), network_of()
    steps = Steps(network)
    training.train_network(network, SET, replace(plain("dc", 4, epochs=1), augmentation=augmentation), KEY)
    assert [samples for _, _, samples in augmentation.draws] == [4, 4, 2] * 2
    assert len({key for key, _, _ in augmentation.draws}) == 6
    assert torch.equal(steps.batches[0], 2 * IMAGES[order(0)[:4]])


def test_cutmix_mixes_about_half_of_the_batches():
    network = network_of()
    steps = Steps(network)
    recipe = replace(plain("idc", epochs=60), cutmix=0.5)
    training.train_network(network, SET, recipe, KEY)
    whole = {tuple(image.flatten().tolist()) for image in IMAGES}
    changed = sum(any(tuple(i.flatten().tolist()) not in whole for i in batch) for batch in steps.batches)
    # a mixed batch may get an empty box or itself as partner, hence the low lower bound
    assert 12 <= changed <= 40


def test_the_batches_of_a_pass_cover_the_set_exactly_once():
    network = network_of()
    steps = Steps(network)
    training.train_network(network, SET, plain("dc", 4, epochs=2), KEY)
    for number in range(3):
        seen = torch.cat(steps.batches[3 * number : 3 * number + 3])
        distances = (seen[:, None] - IMAGES).abs().amax((2, 3, 4))
        assert sorted(distances.argmin(1).tolist()) == list(range(10))
        assert distances.min(1).values.max() == 0


def test_the_accuracy_is_what_a_hand_count_says():
    generator = torch.Generator().manual_seed(6)
    images = torch.randint(0, 256, (523, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (523,), generator=generator)
    store = TensorImages(images, labels, 3, Normalization((0.5,), (0.25,)), ("a", "b", "c"), "test")
    network = build_network(MLP, 1, (4, 4), 3, KEY)
    expected = oracle.accuracy(network, store.at(torch.arange(523)), labels)
    assert 0.2 < expected < 0.5
    assert training.test_accuracy(network, store) == pytest.approx(expected, abs=1e-7)


def test_the_accuracy_is_measured_in_evaluation_mode():
    store = TensorImages(torch.rand(40, 1, 8, 8), torch.arange(40) % 5, 5, None, tuple("abcde"), "test")
    network = build_network(tiny_convnet("batch"), 1, (8, 8), 5, KEY)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = training.test_accuracy(network, store)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert found == pytest.approx(oracle.accuracy(network.eval(), store.at(torch.arange(40)), store.labels), abs=1e-7)
