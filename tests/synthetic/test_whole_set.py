"""Losses that see everything at once, and what a set learns beside its images."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F

from lit_condense import SyntheticSet, load_condensed
from lit_condense.errors import NonFiniteError, SettingsError
from lit_condense.evaluation import training
from lit_condense.inner import InnerNetwork, TrainOnReal
from lit_condense.matching import FeatureMatching, GradientMatching, Progress, WholeSetLoss, WithGradient
from lit_condense.parametrization import MultiFormation
from lit_condense.sharding import Share
from lit_condense.synthetic import Learnables
from lit_condense.synthetic.data import SyntheticData
from lit_condense.synthetic.whole_set import match_whole
from tests.helpers import DOUBLE, Recorder, TinyData, fitted, resumed, tiny_convnet
from tests.methods.helpers import KeyedDraws
from tests.synthetic.whole_losses import IMAGES, OwnGradient, SharedTrained, Trained

ALL = partial(Learnables, label_lr=0.5, inner_lr=0.1, inner_lr_rate=0.001)


def first_gradients(*losses, **settings):
    """The gradient of a run's first update in each leaf, in float64, and the module."""
    sgd = partial(torch.optim.SGD, lr=1.0)
    module = fitted(*losses, max_steps=1, trainer=DOUBLE, optimizer=sgd, **settings)
    return {name: leaf.grad for name, leaf in module.synthetic_data.leaves().items()}, module


def test_it_is_differentiated_through_training_in_images_soft_labels_and_step_size():
    images = Recorder()
    found, module = first_gradients(Trained(weight=2.0), images, learnables=ALL(confidence=0.8))
    draws, labels = KeyedDraws(), module.labels
    network, start = draws.network(), images.images[0].double().requires_grad_()
    own, rest = torch.tensor([0.8, 0.05], dtype=torch.float64).log()
    logits = ((own - rest) * F.one_hot(labels, 5)).requires_grad_()
    step_size = torch.tensor(0.1, dtype=torch.float32).double().requires_grad_()
    weights = dict(network.named_parameters())

    def forward(weights, x):
        return torch.func.functional_call(network, weights, (x,))

    for _ in range(2):
        loss = -(logits.softmax(1) * forward(weights, start).log_softmax(1)).sum(1).mean()
        slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        weights = {n: w - step_size * g for (n, w), g in zip(weights.items(), slopes, strict=True)}
    key = draws.key.fold("whole", 0, 0, "Trained", "real")
    chosen = draws.store.mixed(IMAGES, key)
    value = F.cross_entropy(
        forward(weights, draws.store.at(chosen).double()), draws.store.labels_at(chosen), reduction="sum"
    )
    wanted = torch.autograd.grad(2 * value, [start, logits, step_size])
    assert list(found) == ["images", "label_logits", "inner_lr"]
    for gradient, expected in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)  # the first logits are made in float32
    assert float(module.trainer.callback_metrics["loss/Trained"]) == pytest.approx(float(value.detach()), rel=1e-6)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_method_may_give_its_own_gradient(norm):
    graph, own = (
        first_gradients(loss(name="loss"), learnables=ALL(), network=tiny_convnet(norm))[0]
        for loss in (Trained, OwnGradient)
    )
    for name, gradient in graph.items():
        assert torch.equal(gradient, own[name]), name


def test_beside_other_losses_in_any_order_it_is_added():
    sides = [Trained(), GradientMatching(), FeatureMatching(joint=True, weight=0.1)]
    apart = [first_gradients(loss)[0]["images"] for loss in sides]
    for order in (sides, sides[::-1]):
        torch.testing.assert_close(first_gradients(*order)[0]["images"], sum(apart), rtol=1e-9, atol=1e-12)


def test_the_inner_network_is_left_as_it_was_and_storage_is_decoded_as_for_training():
    settings = {
        "network": tiny_convnet("batch"),
        "inner": TrainOnReal(9, images=0),
        "parametrization": MultiFormation(2),
    }
    module = fitted(Trained(), max_steps=3, **settings)
    other = fitted(FeatureMatching(), max_steps=3, **settings)
    weights = [[p.detach() for p in one.inner_network.network.parameters()] for one in (module, other)]
    assert all(map(torch.equal, *weights))
    assert len(module.training_set().labels) == 4 * len(module.labels)


class Wrong(WholeSetLoss):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def loss(self, whole):
        return self.function(whole.leaves["images"])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x, "a tensor of shape ()"),
        (lambda x: 1.0, "got float"),
        (lambda x: x.sum().detach(), "graph to the leaves"),
        (lambda x: torch.ones((), requires_grad=True) * 2, "depend on something that is learned"),
        (lambda x: WithGradient(x.sum().detach(), {"colour": x}), "colour"),
        (lambda x: WithGradient(x.sum().detach(), {"images": x[:1]}), "gradient of images"),
        (lambda x: WithGradient(2.0, {"images": x}), "its value"),
    ],
)
def test_what_a_loss_must_return_is_said_before_the_first_update(function, words):
    with pytest.raises(SettingsError) as caught:
        fitted(Wrong(function))
    assert words in str(caught.value)
    assert "Wrong.loss" in str(caught.value)


def test_a_loss_of_the_other_kind_of_scope_is_refused():
    for loss, scope in ((Trained(), "class"), (GradientMatching(), "whole")):
        loss.scope = scope
        with pytest.raises(SettingsError, match="derive from WholeSetLoss"):
            fitted(loss)


# ------------------------------------------------------------------------------------------------ what is learned


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_broken_run_goes_on_with_all_that_it_learns(tmp_path, stop):
    straight, on = resumed(tmp_path, stop, 4, Trained, learnables=ALL)
    for name, leaf in straight.synthetic_data.leaves().items():
        assert torch.equal(leaf, on.synthetic_data.leaves()[name]), name
    one, other = (m.trainer.optimizers[0].state_dict()["param_groups"] for m in (straight, on))
    assert [group["lr"] for group in one] == [group["lr"] for group in other] == [0.1, 0.5, 0.001]


def test_checkpoint_and_export_carry_it(tmp_path):
    kept = ModelCheckpoint(tmp_path, save_last=True)
    module = fitted(
        Trained(), kept, learnables=ALL(), parametrization=MultiFormation(2), trainer={"enable_checkpointing": True}
    )
    loaded = SyntheticSet.load_from_checkpoint(tmp_path / "last.ckpt")
    assert sorted(loaded.state_dict()) == ["_extra_state", "images", "inner_lr", "label_logits", "labels"]
    for name, leaf in module.synthetic_data.held().items():
        assert torch.equal(leaf, loaded.synthetic_data.held()[name]), name
    loaded.evaluate(TinyData())
    loaded.save(tmp_path / "set")
    back = load_condensed(tmp_path / "set")
    assert back.inner_lr == pytest.approx(float(module.synthetic_data.inner_lr))
    assert back.inner_lr != pytest.approx(0.1, abs=1e-7)
    soft = module.synthetic_data.label_logits.detach().softmax(1)
    assert len(back.images) == len(back.soft_labels) == 4 * len(soft)
    torch.testing.assert_close(back.soft_labels.sum(1), torch.ones(len(back.images)))
    stored, cells = torch.unique(soft, dim=0), torch.unique(back.soft_labels, dim=0)
    torch.testing.assert_close(cells, stored)
    assert torch.equal(back.soft_labels.argmax(1), back.labels)


def test_networks_are_trained_on_soft_labels(monkeypatch):
    """Between updates and in evaluations: with all probability on the class they are the hard ones."""
    seen = []
    step = InnerNetwork.train_step
    monkeypatch.setattr(
        InnerNetwork, "train_step", lambda self, loss, x, y: (seen.append(y), step(self, loss, x, y))[1]
    )
    batch = training.training_batch
    evaluated = []
    monkeypatch.setattr(training, "training_batch", lambda *a: (lambda r: (evaluated.append(r[1]), r)[1])(batch(*a)))
    module = fitted(GradientMatching(), learnables=Learnables(label_lr=1.0, confidence=0.7))
    assert {tuple(y.shape) for y in seen[1:]} == {(10, 5)}
    assert float(seen[-1].max()) == pytest.approx(0.7)
    module.evaluator().first_accuracies(module.network, [0], module.training_set(), 1)
    assert {tuple(y.shape) for y in evaluated} == {(10, 5)}


def test_hard_labels_and_nearly_hard_ones_give_the_same_set():
    hard, soft = (fitted(learnables=learnables) for learnables in (None, Learnables(label_lr=1.0, confidence=1 - 1e-7)))
    torch.testing.assert_close(hard.images, soft.images, rtol=1e-4, atol=1e-5)


def test_the_default_is_images_alone_and_says_nothing_new():
    module = fitted()
    assert list(module.synthetic_data.leaves()) == ["images"]
    assert module.synthetic_data.groups() == [module.images]
    assert "learnables" not in module.settings()["model"]
    assert SyntheticData().step_size() is None


@pytest.mark.parametrize("leaf", ["images", "label_logits", "inner_lr"])
def test_what_a_step_makes_infinite_is_put_back_leaf_by_leaf(leaf):
    class Steep(Trained):
        def loss(self, whole):
            return super().loss(whole) + whole.leaves[leaf].sum() * 1e30

    with pytest.raises(NonFiniteError, match=f"Update 0 made {leaf.replace('_', ' ')} that are NaN or infinite"):
        fitted(Steep(), learnables=ALL(label_lr=1e10, inner_lr_rate=1e10), optimizer=partial(torch.optim.SGD, lr=1e10))


@pytest.mark.filterwarnings("ignore:.*The update is skipped")
def test_an_infinite_gradient_of_a_step_size_skips_the_update_and_leaves_all_as_it_was():
    class Steep(Trained):
        def loss(self, whole):
            factor = torch.inf if whole.progress.update == 1 else 0.0
            return super().loss(whole) + (whole.leaves["inner_lr"] - whole.leaves["inner_lr"].detach()) * factor

    with pytest.raises(NonFiniteError, match="in update 1"):
        fitted(Steep(), learnables=ALL())
    module = fitted(Steep(), learnables=ALL(), non_finite="skip")
    assert module.skipped == 1
    assert all(bool(leaf.isfinite().all()) for leaf in module.synthetic_data.leaves().values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label_lr": 0.0}, "label_lr to be above 0, got 0.0"),
        ({"inner_lr": float("nan")}, "inner_lr to be above 0, got nan"),
        ({"inner_lr_rate": 0.1}, "inner_lr beside inner_lr_rate"),
        ({"confidence": 1.0}, "confidence to be between 0 and 1"),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(SettingsError, match=words):
        Learnables(**settings)


def test_a_shared_loss_is_the_sum_of_the_shares():
    module = fitted(Trained(), max_steps=1, learnables=ALL())
    gatherer, network, now = module._gatherer(0), module.inner_network.network, Progress(0, 0, 0)
    parts = [match_whole(gatherer, network, Share(r, 3), [(SharedTrained(), 2.0)], now) for r in range(3)]
    values, gradients = match_whole(gatherer, network, Share(), [(SharedTrained(), 2.0)], now)
    torch.testing.assert_close(sum(v["SharedTrained"] for v, _ in parts), values["SharedTrained"])
    for name, gradient in gradients.items():
        torch.testing.assert_close(sum(g[name] for _, g in parts), gradient)
    assert match_whole(gatherer, network, Share(1, 3), [(Trained(), 2.0)], now) == ({}, {})
