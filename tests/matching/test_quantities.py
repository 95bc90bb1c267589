"""Quantities are registered names: one's own go through an update as the built-in ones do."""

from __future__ import annotations

import pytest
import torch

from lit_condense.engine import Engine, RunningEngine
from lit_condense.errors import SettingsError
from lit_condense.inner import FreshNetwork
from lit_condense.matching import FeatureMatching, GradientMatching, MatchingLoss, Quantity, quantity, register
from lit_condense.matching.quantity import mean_by_shares
from tests.helpers import fitted
from tests.methods.helpers import PRECISION, matched, network_of


@pytest.fixture(autouse=True)
def _own_names(monkeypatch):
    """Names registered by a test are forgotten after it."""
    monkeypatch.setattr(quantity, "_REGISTERED", dict(quantity._REGISTERED))


class Penultimate(Quantity):
    """The built-in features, formed anew."""

    name = "penultimate"

    def form(self, network, images, labels, create_graph):
        return network.features(images)


class MeanPenultimate(Penultimate):
    """Their mean over the images, by a name."""

    name = "mean_penultimate"

    def form(self, network, images, labels, create_graph):
        return {"mean": network.features(images).mean(0)}

    def rejoined(self, chunks, shares):
        return mean_by_shares(chunks, shares)


class Weights(Quantity):
    """The built-in gradients, formed anew: with a second derivative behind them."""

    name = "weights"
    differentiates = True

    def form(self, network, images, labels, create_graph):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        parameters = dict(network.named_parameters())
        found = torch.autograd.grad(loss, list(parameters.values()), create_graph=create_graph)
        return dict(zip(parameters, found, strict=True))

    def rejoined(self, chunks, shares):
        return mean_by_shares(chunks, shares)


class OwnFeatures(MatchingLoss):
    needs = frozenset({"penultimate"})

    def loss(self, real, synthetic):
        return (real["penultimate"].mean(1) - synthetic["penultimate"].mean(1)).square().sum()


class OwnMeans(MatchingLoss):
    needs = frozenset({"mean_penultimate"})

    def loss(self, real, synthetic):
        return (real["mean_penultimate"]["mean"] - synthetic["mean_penultimate"]["mean"]).square().sum()


class OwnGradients(GradientMatching):
    needs = frozenset({"weights"})

    def _compared(self, side):
        return side["weights"]


@pytest.mark.parametrize("engine", [None, Engine("exact", "never", classes_per_block=3, real_chunk=4)])
@pytest.mark.parametrize(
    ("formed", "own", "built_in"),
    [
        (Penultimate, OwnFeatures, FeatureMatching),
        (MeanPenultimate, OwnMeans, FeatureMatching),
        (Weights, OwnGradients, GradientMatching),
    ],
)
def test_ones_own_quantity_that_is_a_built_in_one_gives_its_gradient(formed, own, built_in, engine):
    register(formed())
    values, gradient = matched(network_of(), [own(name="loss")], engine=engine)
    wanted, expected = matched(network_of(), [built_in(name="loss")], engine=engine)
    assert values["loss"] == pytest.approx(wanted["loss"], rel=1e-10)
    torch.testing.assert_close(gradient, expected, **PRECISION)


def test_it_stands_beside_built_in_losses_and_the_plan_says_that_both_sides_are_eager():
    register(Penultimate())
    own, built_in = (
        fitted(loss(name="loss"), GradientMatching(), inner=FreshNetwork()) for loss in (OwnFeatures, FeatureMatching)
    )
    torch.testing.assert_close(own.images, built_in.images)
    assert own.running.description == (
        "training: float32, eager; real and synthetic side: float32, eager, class by class (own quantities)"
    )
    always = fitted(OwnFeatures(), inner=FreshNetwork(), engine=Engine("exact", "always"), max_steps=1)
    assert always.running.description.startswith("training: float32, compiled; real and synthetic side: float32, eager")


def test_a_name_stands_for_one_quantity():
    register(Penultimate())
    register(Penultimate())  # the same again, as an import does

    class Other(Penultimate):
        pass

    with pytest.raises(SettingsError, match="'penultimate' stands for Penultimate"):
        register(Other())

    class Nameless(Penultimate):
        name = "two words"

    with pytest.raises(SettingsError, match="identifier, got 'two words'"):
        register(Nameless())


@pytest.mark.parametrize(
    "wrong", [lambda n, x: None, lambda n, x: x.long(), lambda n, x: {}], ids=["nothing", "whole numbers", "no tensor"]
)
def test_what_is_formed_must_be_tensors(wrong):
    class Wrong(Penultimate):
        def form(self, network, images, labels, create_graph):
            return wrong(network, images)

    register(Wrong())
    with pytest.raises(SettingsError, match=r"Wrong\.form to return a floating-point tensor"):
        fitted(OwnFeatures())


class Confident(MatchingLoss):
    """A term on the synthetic images alone."""

    needs_real = frozenset()
    needs_synthetic = frozenset({"logits"})

    def loss(self, real, synthetic):
        assert real.logits is None  # of what it needs there is nothing; other losses may read more
        return synthetic.logits.logsumexp(-1).sum()


class Declared(Confident):
    """The same, which reads the real side for nothing."""

    needs_real = frozenset({"logits"})

    def loss(self, real, synthetic):
        assert real.logits is not None
        return synthetic.logits.logsumexp(-1).sum()


def test_a_term_on_the_synthetic_side_costs_no_real_forward_pass(monkeypatch):
    values, gradient = matched(network_of(), [Declared(name="loss")])
    wanted = {"loss": pytest.approx(values["loss"], rel=1e-12)}
    monkeypatch.setattr(RunningEngine, "real_side", None)  # calling it would fail
    values, alone = matched(network_of(), [Confident(name="loss")])
    assert values == wanted
    torch.testing.assert_close(alone, gradient, **PRECISION)


def test_beside_a_loss_on_both_sides_it_is_added():
    both = matched(network_of(), [GradientMatching(), Confident()])[1]
    apart = matched(network_of(), [GradientMatching()])[1] + matched(network_of(), [Confident()])[1]
    torch.testing.assert_close(both, apart, **PRECISION)
    assert fitted(GradientMatching(), Confident()).trainer.global_step == 4


@pytest.mark.parametrize("side", ["needs_real", "needs_synthetic"])
def test_a_side_that_reads_what_there_is_not_is_refused(side):
    loss = Confident()
    setattr(loss, side, frozenset({"colour"}))
    with pytest.raises(SettingsError, match=rf"Confident\.{side} .*'colour'.*register"):
        fitted(loss)
