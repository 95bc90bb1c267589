"""What decides the result of a run, and what does not."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from lightning import seed_everything
from torch import nn

from lit_condense.augmentation import AlwaysOn, NoAugmentation, OneOf
from lit_condense.engine import Engine
from lit_condense.evaluation import Evaluation
from lit_condense.parametrization import Pixels
from tests.helpers import DOUBLE, VALIDATING, fitted, tiny_convnet


def same_bytes(module, other):
    return torch.equal(module.images, other.images) and torch.equal(module.labels, other.labels)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    first, again, other = fitted(seed=3), fitted(seed=3), fitted(seed=4)
    assert same_bytes(first, again)
    assert not torch.equal(first.images, other.images)


def test_the_seed_is_that_of_seed_everything_unless_one_is_given(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # put back afterwards, whatever seed_everything writes
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    seed_everything(7, verbose=False)
    by_environment, given = fitted(seed=None), fitted(seed=3)
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    random.setstate(states[2])
    assert by_environment.seed == 7
    assert same_bytes(by_environment, fitted(seed=7))
    assert same_bytes(given, fitted(seed=3))


def test_what_was_drawn_before_does_not_matter():
    torch.rand(5)
    first = fitted()
    torch.rand(17)
    assert same_bytes(first, fitted())


@pytest.mark.parametrize("trainer", [{}, VALIDATING], ids=["without validation", "with validation"])
def test_a_fit_leaves_the_global_generators_as_they_were(trainer):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    fitted(trainer=trainer)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]


def assert_quick_evaluation_is_of_the_set(module):
    """What the last validation logged is what the networks that it names say of the set as it is now."""
    judge, current = module.evaluator(), module.training_set()
    found = [judge.accuracy(module.network, i, current)[0] for i in range(module.evaluation.quick_repeats)]
    assert float(module.trainer.callback_metrics["val/acc"]) == pytest.approx(sum(found) / len(found))


@pytest.mark.parametrize("protocol", ["dc", "dsa", "idc"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_evaluating_during_a_run_does_not_change_the_set(protocol, norm):
    network = tiny_convnet(norm)
    judged = fitted(trainer=VALIDATING, network=network, evaluation=Evaluation(protocol, epochs=3, quick_repeats=1))
    assert_quick_evaluation_is_of_the_set(judged)
    assert same_bytes(judged, fitted(network=network))


@pytest.mark.parametrize("space", ["normalized", "pixel"])
def test_validation_works_in_every_space(space):
    judged = fitted(trainer=VALIDATING, parametrization=Pixels(space))
    assert_quick_evaluation_is_of_the_set(judged)


@pytest.mark.parametrize("ipc", [2, [2, 1, 2, 2, 2]])
def test_the_block_size_does_not_change_the_images(ipc):
    one, *others = (fitted(ipc=ipc, engine=Engine(classes_per_block=k), trainer=DOUBLE) for k in (1, 2, 5))
    for other in others:
        torch.testing.assert_close(one.images, other.images, rtol=1e-12, atol=1e-12)


# Lightning changes the default number type in the steps of a 64-true run: a draw without a dtype would be another one.
@pytest.mark.parametrize("augmentation", [NoAugmentation(), OneOf(), AlwaysOn()], ids=["none", "dsa", "idc"])
def test_double_precision_is_the_same_run_with_more_digits(augmentation):
    single, double = (fitted(augmentation=augmentation, trainer=t).images.double() for t in ({}, DOUBLE))
    torch.testing.assert_close(double, single, rtol=1e-4, atol=1e-4)


def test_double_precision_can_be_evaluated():
    judged = fitted(trainer={**VALIDATING, **DOUBLE})
    assert_quick_evaluation_is_of_the_set(judged)


class Dropping(nn.Module):
    """A foreign network whose forward pass draws from the global generators."""

    def __init__(self, in_channels, image_size, num_classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(in_channels * image_size[0] * image_size[1], 8), nn.Dropout(0.5), nn.Linear(8, 5)
        )

    def forward(self, images):
        return self.layers(images)


def test_networks_that_draw_from_the_global_generators_follow_the_seed():
    before = torch.get_rng_state()
    first = fitted(network=Dropping)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert same_bytes(first, fitted(network=Dropping))
    assert not torch.equal(first.images, fitted(network=Dropping, seed=4).images)


# Block size, ranks and the two passes of scope mean change the order in which batches go through the network.
def test_the_block_size_does_not_change_what_such_networks_draw():
    one, all_at_once = (fitted(network=Dropping, engine=Engine(classes_per_block=k)) for k in (1, 5))
    torch.testing.assert_close(one.images, all_at_once.images, rtol=1e-5, atol=1e-5)
