"""What a run will need is tried before its first update, at little cost and without a trace in the results."""

from __future__ import annotations

import time
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lit_condense import SelectedSet
from lit_condense.errors import ExportError, SettingsError
from lit_condense.evaluation import Evaluation
from lit_condense.inner import FreshNetwork, TrainOnReal, TrainOnSynthetic
from lit_condense.matching import FeatureMatching, GradientMatching
from lit_condense.selection import Choice, Forgetting, Herding, ProxyTraining, RandomSubset, Selection
from lit_condense.trial import evaluations as trial
from lit_condense.trial import first_update
from tests.helpers import Recorder, TinyData, fitted, quiet_trainer, tiny_convnet


class Flat(nn.Module):
    """A classifier of pixels with batch norm of its features, which cannot be trained on one image."""

    def __init__(self, in_channels, image_size, num_classes, norm=True):
        super().__init__()
        self.first = nn.Linear(in_channels * image_size[0] * image_size[1], 6)
        self.norm = nn.BatchNorm1d(6) if norm else nn.Identity()
        self.last = nn.Linear(6, num_classes)

    def forward(self, images):
        return self.last(self.norm(self.first(images.flatten(1))).relu())


class Auxiliary(Flat):
    """Returns a second classifier's logits in training mode, as Inception does."""

    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


class Named(Flat):
    """Returns a dict in training mode, as detection networks do."""

    def forward(self, images):
        logits = super().forward(images)
        return {"logits": logits} if self.training else logits


class Larger(Flat):
    """Runs on nothing but 2 images in evaluation mode, and in training mode on batches of 3 and more not at all."""

    def forward(self, images):
        if self.training and len(images) > 2:
            raise ValueError("the buffer holds 2 images")
        return super().forward(images)


WRONG = {
    "a tuple": (Auxiliary, ["Auxiliary", "in training mode", "tuple", "auxiliary outputs"]),
    "a dict": (Named, ["Named", "in training mode", "dict", "auxiliary outputs"]),
    "an error": (Larger, ["Larger", "cannot be trained", "the buffer holds 2 images"]),
    "too deep": (tiny_convnet(depth=4), ["ConvNet", "8x8", "lower depth"]),
}


class Updates(Callback):
    """Counts the updates or steps that were begun."""

    def __init__(self):
        self.begun = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.begun += 1


def refused(words, error=SettingsError, run=fitted, **settings):
    """Assert that a run ends in one message with all words before the first update."""
    updates = Updates()
    with pytest.raises(error) as caught:
        run(GradientMatching(), updates, **settings)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert updates.begun == 0


def select(*callbacks, **settings):
    """Run a small selection."""
    small = {"network": Flat, "proxy": ProxyTraining(epochs=2, batch_size=8), "ipc": 2, "selection": Herding()}
    module = SelectedSet(**{**small, **settings})
    callbacks = [c for c in callbacks if not isinstance(c, GradientMatching)]
    quiet_trainer(*callbacks, max_steps=-1).fit(module, datamodule=TinyData())
    return module


def judged(*networks, **settings):
    return Evaluation(epochs=1, repeats=1, quick_repeats=1, networks=list(networks) or None, **settings)


@pytest.mark.parametrize("run", [fitted, select])
@pytest.mark.parametrize("wrong", WRONG)
def test_an_evaluation_network_that_would_fail_fails_at_once(wrong, run):
    network, words = WRONG[wrong]
    refused(words, run=run, evaluation=judged(tiny_convnet(), network))


@pytest.mark.parametrize("run", [fitted, select])
@pytest.mark.parametrize("wrong", [name for name in WRONG if name != "too deep"])
def test_so_does_the_network_of_the_run(wrong, run):
    network, words = WRONG[wrong]
    refused(words, run=run, network=network, evaluation=judged(tiny_convnet()))


def test_a_test_tries_every_architecture_before_it_trains_the_first(monkeypatch):
    module = fitted()
    module.evaluation = judged(tiny_convnet(), Auxiliary)
    monkeypatch.setattr(
        "lit_condense.sets.evaluated_set.EvaluatedSet._evaluate", lambda *_: pytest.fail("it was trained")
    )
    with pytest.raises(SettingsError, match=r"Auxiliary.*in training mode"):
        module.trainer.test(module, datamodule=TinyData(), verbose=False)


# ------------------------------------------------------------------------------------------------------ one image


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampling": None, "inner": TrainOnSynthetic(2, 2, batch_size=1)}, ["batch of one image", "TrainOnSynthetic"]),
        ({"inner": TrainOnReal(2, images=4, batch_size=1)}, ["batch of one image", "TrainOnReal"]),
        ({"ipc": 1, "inner": FreshNetwork()}, ["batches that are matched", "more than 1 value"]),
    ],
)
def test_batch_norm_on_a_batch_of_one_image_is_named(settings, words):
    refused(["Flat", *words], network=Flat, **settings)


def test_frozen_batch_norm_matches_a_class_of_one_image():
    assert fitted(network=Flat, ipc=1, evaluation=judged(Flat)).trainer.global_step == 4


def test_no_pass_of_a_run_leaves_one_image_over():
    # 33 images: 8 batches of 4 and one more, in inner training, in an evaluation and in proxy
    data = TinyData((7, 7, 7, 6, 6))
    inner = TrainOnSynthetic(2, 2, batch_size=4)
    evaluation = judged(Flat, baselines=[Herding()], proxy=ProxyTraining(epochs=1, batch_size=4))
    module = fitted(network=Flat, ipc=[7, 7, 7, 6, 6], inner=inner, evaluation=evaluation, data=data)
    assert module.trainer.global_step == 4


# ------------------------------------------------------------------------------------------------------ baselines


class Half(Selection):
    """Keeps too few images."""

    networks = 1

    def choose(self, candidates, count, key):
        return Choice(torch.arange(count // 2))


class Heavy(RandomSubset):
    """Says that it has weights, and gives none."""

    weighted = True


@pytest.mark.parametrize("own", [Half(), Heavy()])
@pytest.mark.parametrize("run", [fitted, select])
def test_a_baseline_of_ones_own_is_held_to_its_contract_at_once(own, run):
    refused([f"{type(own).__name__}.choose"], run=run, evaluation=judged(baselines=[own]))


def test_a_selection_of_ones_own_is_tried_before_its_networks_are_trained():
    refused(["Half.choose", "different positions"], run=select, selection=Half())


def test_where_proxy_models_of_baselines_are_kept_is_tried():
    proxy = ProxyTraining(epochs=1, cache="/dev/null/cache")
    evaluation = judged(tiny_convnet(), baselines=[Herding()], proxy=proxy)
    refused(["/dev/null/cache"], error=ExportError, evaluation=evaluation)


def test_the_proxy_models_of_baselines_are_tried():
    proxy = ProxyTraining(epochs=1, batch_size=1)
    evaluation = judged(tiny_convnet(), baselines=[Forgetting()], proxy=proxy)
    refused(["Flat", "batch of one image", "evaluation.proxy"], network=Flat, evaluation=evaluation)
    refused(["Flat", "batch of one image", "proxy"], run=select, proxy=proxy)


# ------------------------------------------------------------------------------------------------------ no trace


class Dropping(Flat):
    def forward(self, images):
        return nn.functional.dropout(super().forward(images), 0.5, self.training)


FIRST_UPDATE = [(first_update, name) for name in ("first_blocks", "inner_training", "losses")]


def without_trials(monkeypatch):
    for module, name in [*FIRST_UPDATE, (trial, "evaluations"), (trial, "proxies")]:
        monkeypatch.setattr(module, name, lambda *_: None)


@pytest.mark.parametrize("network", [tiny_convnet("batch"), Dropping])
def test_a_run_ends_in_the_same_bytes_without_the_trial(network, monkeypatch):
    def run():
        images = Recorder()
        torch.manual_seed(1)
        losses = [GradientMatching(), FeatureMatching(weight=0.01)]
        module = fitted(*losses, images, network=network, evaluation=judged(baselines=[Herding()]))
        return torch.stack(images.images), torch.get_rng_state(), module

    tried, state, module = run()
    without_trials(monkeypatch)
    images, untried_state, other = run()
    assert torch.equal(tried, images)
    assert torch.equal(state, untried_state)
    own, others = module.inner_network.network.state_dict(), other.inner_network.network.state_dict()
    assert all(torch.equal(own[name], others[name]) for name in own)


def test_a_selection_ends_in_the_same_images_without_the_trial(monkeypatch):
    chosen = select(network=Dropping, selection=Forgetting()).indices
    without_trials(monkeypatch)
    assert torch.equal(select(network=Dropping, selection=Forgetting()).indices, chosen)


def test_the_trial_of_a_small_run_takes_no_time_worth_mentioning(monkeypatch):
    spent = []

    def timed(published):
        def call(*args, **kwargs):
            started = time.process_time()
            try:
                return published(*args, **kwargs)
            finally:
                spent.append(time.process_time() - started)

        return call

    for module, name in [*FIRST_UPDATE, (trial, "evaluations")]:
        monkeypatch.setattr(module, name, timed(getattr(module, name)))
    fitted(evaluation=judged(tiny_convnet(), partial(tiny_convnet(), width=8), baselines=[Herding()]))
    assert len(spent) == 4
    assert sum(spent) < 2  # a tenth of that on an idle core
