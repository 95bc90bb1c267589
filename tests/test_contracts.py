"""Parts of one's own that return the wrong thing: one sentence each, before the first update or at it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lit_condense.augmentation import Augmentation, NoAugmentation
from lit_condense.errors import SettingsError
from lit_condense.init import Noise
from lit_condense.inner import FreshNetwork, TrainOnReal, TrainOnSynthetic
from lit_condense.matching import GradientMatching, MatchingLoss
from lit_condense.parametrization import Pixels
from lit_condense.sampling import RandomSampling
from tests.helpers import fitted


class Updates(Callback):
    """Counts the updates that were begun."""

    begun = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.begun += 1


def refused(words, *callbacks, updates=0, **settings):
    """Assert that a run ends in one message with all words, after so many updates were begun."""
    counting = Updates()
    with pytest.raises(SettingsError) as caught:
        fitted(*(callbacks or [GradientMatching()]), counting, **settings)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message
    assert counting.begun == updates


# ------------------------------------------------------------------------------------------------------ losses


class Own(MatchingLoss):
    """The distance of gradients, spoilt by a function of the two sides."""

    def __init__(self, spoilt, **declared):
        super().__init__()
        self.spoilt = spoilt
        for name, value in declared.items():
            setattr(self, name, value)

    def loss(self, real, synthetic):
        pairs = zip(real.gradients.values(), synthetic.gradients.values(), strict=True)
        return self.spoilt(sum((a - b).square().sum() for a, b in pairs), real, synthetic)


WRONG_LOSSES = {
    "a vector": (lambda total, real, synthetic: total.expand(3), ["shape (3,)", "shape ()"]),
    "one entry": (lambda total, real, synthetic: total[None], ["shape (1,)", "shape ()"]),
    "a number": (lambda total, real, synthetic: float(total.detach()), ["got float"]),
    "nothing": (lambda total, real, synthetic: None, ["got None"]),
    "a tuple": (lambda total, real, synthetic: (total, total), ["got tuple"]),
    "a whole number": (lambda total, real, synthetic: total.long(), ["int64"]),
    "no graph": (lambda total, real, synthetic: total.detach(), ["without a graph", "detach()"]),
    "other side": (
        lambda total, real, synthetic: sum(g.sum() for g in real.gradients.values()),
        ["without a graph"],
    ),
    "of its own": (
        lambda total, real, synthetic: nn.Parameter(torch.ones(())) * 2,
        ["depend on the synthetic quantities", "gradients"],
    ),
}


@pytest.mark.parametrize("scope", ["class", "mean", "set"])
@pytest.mark.parametrize("wrong", WRONG_LOSSES)
def test_a_loss_that_is_no_number_with_a_graph(wrong, scope):
    spoilt, words = WRONG_LOSSES[wrong]
    refused(["Own.loss", *words], Own(spoilt, scope=scope))


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"needs": frozenset({"gradient"})}, ["Own.needs", "'features', 'gradients', 'logits'", "gradient"]),
        ({"needs": "features"}, ["Own.needs", "frozenset", "'features'"]),
        ({"needs": None}, ["Own.needs", "None"]),
        ({"scope": "classes"}, ["Own.scope", "'class', 'mean', 'set'", "classes"]),
        ({"scope": "mean", "needs": frozenset({"features"})}, ["scope 'mean'", "gradients only", "features"]),
        ({"weight_at": lambda progress: None}, ["Own.weight_at", "finite number", "None"]),
        ({"weight_at": lambda progress: float("nan")}, ["Own.weight_at", "finite number", "nan"]),
    ],
)
def test_a_loss_that_declares_what_there_is_not(declared, words):
    refused(words, Own(lambda total, real, synthetic: total, **declared))


def test_a_loss_may_write_into_its_arguments():
    def scaled(total, real, synthetic):
        return sum(g.mul_(2).square().sum() for g in synthetic.gradients.values())

    assert fitted(Own(scaled)).trainer.global_step == 4


# ------------------------------------------------------------------------------------------------------ optimizers


class Nothing:
    """No optimizer."""

    def __init__(self, parameters, lr=0.1):
        self.param_groups = [{"lr": lr}]


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (torch.optim.LBFGS, ["the images", "LBFGS", "closure", "SGD"]),
        (torch.optim.SparseAdam, ["steps images", "dense gradients"]),
        (Nothing, ["torch optimizer of the images", "Nothing"]),
    ],
)
def test_an_optimizer_of_the_images_that_does_not_step_along_a_gradient(optimizer, words):
    refused(words, optimizer=optimizer)


class ClosingLoop(TrainOnSynthetic):
    def optimizer(self, parameters):
        return torch.optim.LBFGS(parameters)


def test_an_optimizer_of_the_inner_network_that_wants_a_closure():
    refused(["the inner network", "LBFGS", "closure"], inner=ClosingLoop(2, 2))


# ------------------------------------------------------------------------------------------------------ images


class OwnAugmentation(Augmentation):
    def __init__(self, function, drawn=None):
        self.function, self.drawn = function, drawn

    def draw(self, key, image_size, samples):
        return self.drawn or {}

    def apply(self, images, draw):
        return self.function(images)


class Drawing(NoAugmentation):
    def __init__(self, drawn):
        self.drawn = drawn

    def draw(self, key, image_size, samples):
        return self.drawn


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda images: images[:, :, :6, :6], ["shape (6, 1, 8, 8)", "(6, 1, 6, 6)"]),
        (lambda images: images[:1], ["(1, 1, 8, 8)"]),
        (lambda images: images.double(), ["float32", "float64"]),
        (lambda images: (images, None), ["tuple"]),
        (lambda images: None, ["None"]),
        (lambda images: images.detach(), ["differentiable", "without a graph"]),
        (lambda images: images.to("meta"), ["on cpu", "on meta"]),
    ],
)
def test_an_augmentation_that_returns_other_images(function, words):
    refused(["OwnAugmentation.apply", *words], augmentation=OwnAugmentation(function))


@pytest.mark.parametrize("drawn", [None, [0.5], {"flip": torch.ones(1)}, {"flip": (True,)}], ids=str)
def test_an_augmentation_whose_draw_cannot_be_applied(drawn):
    refused(["Drawing.draw", "dict", "tuples of tensors"], augmentation=Drawing(drawn))


def test_an_augmentation_with_an_operation_that_there_is_not():
    refused(["Drawing.draw", "sepia", "brightness"], augmentation=Drawing({"sepia": (torch.ones(1),)}))


def test_an_augmentation_of_inner_training_is_held_to_it_too():
    inner = TrainOnReal(2, images=4, batch_size=2, augmentation=OwnAugmentation(lambda images: images[:1]))
    refused(["OwnAugmentation.apply", "(2, 1, 8, 8)", "(1, 1, 8, 8)"], inner=inner, updates=1)


class OwnPixels(Pixels):
    """Pixels, one of whose methods is replaced."""

    def __init__(self, **replaced):
        super().__init__()
        for name, function in replaced.items():
            setattr(self, name, function)


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"decode": lambda stored, n: stored[:1]}, ["decode", "(2, 1, 8, 8)", "(1, 1, 8, 8)"]),
        ({"decode": lambda stored, n: stored[..., :4]}, ["decode", "(2, 1, 8, 4)"]),
        ({"decode": lambda stored, n: stored.half()}, ["decode", "float16"]),
        ({"decode": lambda stored, n: stored.round().detach()}, ["decode", "differentiable", "rounds"]),
        ({"decode": lambda stored, n: [stored]}, ["decode", "list"]),
        ({"decode_labels": lambda labels: labels.repeat(2)}, ["decode_labels", "2 int64 labels", "(4,)"]),
        ({"decode_labels": lambda labels: labels.float()}, ["decode_labels", "float32"]),
        ({"decoded_count": lambda stored: 0}, ["decoded_count", "1 or more", "0"]),
        ({"decoded_count": lambda stored: 2.0}, ["decoded_count", "whole numbers", "2.0"]),
        ({"matched_count": lambda stored: 9}, ["matched_count", "at most the first", "9"]),
    ],
)
def test_a_parametrization_that_decodes_to_something_else(replaced, words):
    refused(["OwnPixels", *words], parametrization=OwnPixels(**replaced))


class OwnStart(Noise):
    def __init__(self, function):
        self.function = function

    def start(self, *arguments):
        return self.function(super().start(*arguments))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda images: images[:3], ["(10, 1, 8, 8)", "(3, 1, 8, 8)"]),
        (lambda images: images.byte(), ["floating-point", "uint8"]),
        (lambda images: images / 0, ["finite"]),
        (lambda images: images.numpy(), ["ndarray"]),
    ],
)
def test_a_start_with_other_images(function, words):
    refused(["OwnStart.start", *words], init=OwnStart(function))


# ------------------------------------------------------------------------------------------------------ sampling


class OwnSampling(RandomSampling):
    def __init__(self, function, size=4):
        super().__init__(4)
        self.function, self.given = function, size

    def size(self, real, class_index):
        return self.given

    def select(self, real, class_index, key):
        return self.function(super().select(real, class_index, key), real, class_index)


@pytest.mark.parametrize(
    ("function", "size", "words"),
    [
        (lambda found, real, c: found[:2], 4, ["4 indices", "(2,)"]),
        (lambda found, real, c: found.float(), 4, ["int64", "float32"]),
        (lambda found, real, c: found.tolist(), 4, ["int64", "list"]),
        (lambda found, real, c: found[None], 4, ["(4,)", "(1, 4)"]),
        (lambda found, real, c: torch.arange(4) + 1000, 4, ["class 0", "1000"]),
        (lambda found, real, c: -found - 1, 4, ["class 0", "not"]),
        (lambda found, real, c: real.indices_of(3)[:4], 4, ["images of class 0", "indices_of"]),
        (lambda found, real, c: found, 0, ["OwnSampling.size", "1 or more", "0"]),
        (lambda found, real, c: found, 4.0, ["OwnSampling.size", "whole number", "4.0"]),
    ],
)
def test_a_sampling_that_chooses_something_else(function, size, words):
    refused(["OwnSampling", *words], sampling=OwnSampling(function, size))


class OwnWeights(RandomSampling):
    """Weighs its images by a function of the chosen ones, once the run has begun or from the start."""

    def __init__(self, function, begun=False):
        super().__init__(4)
        self.function, self.wrong = function, not begun

    def refresh(self, *args):
        self.wrong = True

    def weights_of(self, real, class_index, chosen):
        return self.function(chosen) if self.wrong else None


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda chosen: torch.ones(3), ["floating-point", "(4,)", "(3,)"]),
        (lambda chosen: torch.ones(4, 1), ["(4,)", "(4, 1)"]),
        (lambda chosen: torch.ones(4, dtype=torch.int64), ["floating-point", "int64"]),
        (lambda chosen: [1.0] * 4, ["floating-point", "list"]),
        (lambda chosen: torch.tensor([1.0, 0.0, 1.0, -2.0]), ["finite numbers above 0", "[0.0, -2.0]", "2 of 4"]),
        (lambda chosen: torch.tensor([1.0, float("inf"), float("nan"), 1.0]), ["above 0", "inf", "class 0"]),
    ],
)
def test_a_sampling_that_weighs_its_images_wrongly(function, words, begun):
    refused(["OwnWeights.weights", *words], sampling=OwnWeights(function, begun), updates=int(begun))


def test_a_sampling_that_weighs_its_images_equally_is_one_without_weights():
    weighed = fitted(sampling=OwnWeights(lambda chosen: torch.ones(4)), trainer={"precision": "64-true"})
    plain = fitted(sampling=RandomSampling(4), trainer={"precision": "64-true"})
    torch.testing.assert_close(weighed.images, plain.images, rtol=1e-9, atol=1e-11)
    uneven = torch.tensor([2.0, 1.0, 0.5, 0.5])
    other = fitted(sampling=OwnWeights(lambda chosen: uneven), trainer={"precision": "64-true"})
    assert (other.images - plain.images).abs().max() > 1e-3


# ------------------------------------------------------------------------------------------------------ inner loops


class OwnLoop(TrainOnSynthetic):
    """Trains by a function of the inner network."""

    def __init__(self, function, updates=2, new=False):
        super().__init__(2, 2)
        self.function, self.given, self.new = function, updates, new

    @property
    def trains_new(self):
        return self.new

    def updates_per_network(self, ipc):
        return self.given

    def begin(self, inner, context, key):
        return self.function(inner)

    def advance(self, inner, context, progress, key):
        return self.function(inner)


def replaced(inner):
    inner.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))


def left_in_evaluation_mode(inner):
    inner.network.eval()


@pytest.mark.parametrize(("new", "method"), [(False, "advance"), (True, "begin")])
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda inner: inner.network, ["in place", "return nothing", "ConvNet"]),
        (replaced, ["another Sequential in its place"]),
        (left_in_evaluation_mode, ["training mode", "network.train()"]),
    ],
)
def test_an_inner_loop_that_leaves_another_network(function, words, new, method):
    refused([f"OwnLoop.{method}", *words], inner=OwnLoop(function, new=new), updates=1)


@pytest.mark.parametrize("updates", [0, None, 1.5, "2"])
def test_an_inner_loop_whose_networks_serve_no_number_of_updates(updates):
    refused(["OwnLoop.updates_per_network", "whole number", repr(updates)], inner=OwnLoop(lambda inner: None, updates))


def test_parts_of_ones_own_that_do_what_they_must_are_taken():
    module = fitted(
        Own(lambda total, real, synthetic: total),
        augmentation=OwnAugmentation(lambda images: images * 1.1),
        parametrization=OwnPixels(decode=lambda stored, n: stored.tanh()),
        sampling=OwnSampling(lambda found, real, c: found),
        inner=OwnLoop(lambda inner: None, new=True),
        init=OwnStart(lambda images: images / 2),
        optimizer=partial(torch.optim.Adam, lr=0.01),
    )
    assert module.trainer.global_step == 4
    assert fitted(inner=FreshNetwork()).trainer.global_step == 4
