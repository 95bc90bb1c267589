from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_condense.errors import CheckpointError, NonFiniteError, SettingsError
from lit_condense.networks import MLP, ConvNet, build_network
from lit_condense.rng import RandomKey
from lit_condense.selection import ProxyTraining
from lit_condense.selection.cache import NetworkCache
from lit_condense.selection.task import History, ProxyTask
from tests.helpers import TinyData, tiny_convnet

REAL = TinyData().real
TASK = ProxyTask(REAL, tiny_convnet(), seed=3)
SETTINGS = {"epochs": 3, "lr": 0.2, "momentum": 0.8, "weight_decay": 0.01, "batch_size": 16}


def literal_training(index, epochs, nesterov=True):
    """SGD written out: the network, and for each epoch which images it was right about when it saw them."""
    key = RandomKey(3).fold("scoring", index)
    network = build_network(tiny_convnet(), 1, (8, 8), 5, key.fold("network"))
    images, labels = REAL.at(torch.arange(len(REAL))), REAL.labels
    momenta = [torch.zeros_like(p) for p in network.parameters()]
    right = torch.zeros(epochs, len(REAL), dtype=torch.bool)
    for epoch in range(epochs):
        order = torch.randperm(len(REAL), generator=key.fold("order", epoch).generator())
        for chosen in (order[0:16], order[16:32], order[32:]):
            logits = network(images[chosen])
            right[epoch, chosen] = logits.argmax(1) == labels[chosen]
            gradients = torch.autograd.grad(F.cross_entropy(logits, labels[chosen]), list(network.parameters()))
            with torch.no_grad():
                for p, g, m in zip(network.parameters(), gradients, momenta, strict=True):
                    g = g + 0.01 * p
                    m.mul_(0.8).add_(g)
                    p.sub_(0.2 * (g + 0.8 * m if nesterov else m))
    return network, right


@pytest.mark.parametrize("nesterov", [True, False])
def test_a_proxy_model_is_trained_as_written_out(nesterov):
    wanted, _ = literal_training(index=1, epochs=3, nesterov=nesterov)
    trained = ProxyTraining(**SETTINGS, nesterov=nesterov).train(TASK, 1)
    assert trained.index == 1
    for name, weight in wanted.state_dict().items():
        torch.testing.assert_close(trained.weights[name], weight, rtol=1e-4, atol=1e-6)


def literal_counts(right):
    """Forgetting events of ``right`` (epochs, images), counted one by one."""
    epochs, images = right.shape
    counts = []
    for image in range(images):
        events = sum(bool(right[e, image] and not right[e + 1, image]) for e in range(epochs - 1))
        counts.append(events if right[:, image].any() else -1)
    return counts


def test_forgetting_events_of_any_history_are_counted_one_by_one():
    right = torch.rand(9, 60, generator=torch.Generator().manual_seed(0)) < torch.linspace(0, 1, 60)
    history = History.new(60, torch.device("cpu"))
    for epoch in right:
        for chosen in torch.split(torch.arange(60).flip(0), 16):
            history.record(chosen, epoch[chosen])
    expected = literal_counts(right)
    assert {-1, 0, 1, 2, 3} <= set(expected)
    assert history.forgotten.tolist() == expected


def test_forgetting_is_counted_in_the_forward_passes_of_the_training():
    _, right = literal_training(index=0, epochs=2)
    expected = literal_counts(right)
    assert len(set(expected)) == 3
    assert ProxyTraining(**{**SETTINGS, "epochs": 2}).train(TASK, 0).forgetting.tolist() == expected


def test_the_plain_loop_is_the_same_on_every_call_and_every_network_is_another():
    proxy = ProxyTraining(**SETTINGS)
    first, again = proxy.train_all(TASK, 2), proxy.train_all(TASK, 2)
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
        assert torch.equal(one.forgetting, other.forgetting)
    weights = [torch.cat([w.flatten() for w in one.weights.values()]) for one in first]
    assert not torch.equal(*weights)


def test_training_leaves_the_global_generators_alone_and_works_in_inference_mode():
    before = torch.get_rng_state()
    outside = ProxyTraining(**SETTINGS).train_all(TASK, 1)[0]
    with torch.inference_mode():
        inside = ProxyTraining(**SETTINGS).train_all(TASK, 1)[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(outside.weights[name], inside.weights[name]) for name in outside.weights)


def test_without_epochs_the_networks_are_as_they_start():
    (trained,) = ProxyTraining(epochs=0).train_all(TASK, 1)
    start = build_network(tiny_convnet(), 1, (8, 8), 5, RandomKey(3).fold("scoring", 0, "network"))
    assert all(torch.equal(trained.weights[name], value) for name, value in start.state_dict().items())
    assert trained.forgetting.tolist() == [-1] * len(REAL)


@pytest.mark.parametrize("chunk", [1, 7, 500])
def test_a_view_is_what_the_network_says_in_evaluation_mode(chunk):
    task = ProxyTask(REAL, tiny_convnet("batch"), seed=3)
    proxy = ProxyTraining(**{**SETTINGS, "epochs": 1}, chunk=chunk)
    network = proxy.restore(task, proxy.train(task, 0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    indices = torch.tensor([5, 0, 37, 12, 9, 30, 2, 21, 8])
    view = proxy.view(network, REAL, indices)
    alone = [network.eval()(REAL.at(i.unsqueeze(0))) for i in indices]
    torch.testing.assert_close(view.logits, torch.cat(alone), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(view.logits, network.classifier(view.features), rtol=1e-5, atol=1e-5)
    assert not view.logits.requires_grad
    assert not view.network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# ---------------------------------------------------------------- the cache


@pytest.fixture
def cached(tmp_path):
    return ProxyTraining(**SETTINGS, cache=str(tmp_path / "networks"))


def path_of(proxy, index):
    return NetworkCache(proxy.cache).path(proxy.description(TASK, index))


def forbid_training(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a network was trained that is in the cache")

    monkeypatch.setattr(ProxyTraining, "step", refuse)


def test_a_cached_network_is_the_uncached_one_and_is_not_trained_again(cached, monkeypatch):
    plain = ProxyTraining(**SETTINGS).train_all(TASK, 2)
    first = cached.train_all(TASK, 2)
    assert path_of(cached, 0).is_file()
    assert path_of(cached, 1).is_file()
    forbid_training(monkeypatch)
    again = cached.train_all(TASK, 2)
    for uncached, trained, read in zip(plain, first, again, strict=True):
        assert uncached.weights.keys() == trained.weights.keys() == read.weights.keys()
        assert all(torch.equal(uncached.weights[name], read.weights[name]) for name in read.weights)
        assert torch.equal(uncached.forgetting, read.forgetting)


def test_what_only_changes_memory_or_place_shares_the_cache(cached, monkeypatch, tmp_path):
    cached.train_all(TASK, 1)
    shutil.copytree(cached.cache, tmp_path / "elsewhere")
    forbid_training(monkeypatch)
    ProxyTraining(**SETTINGS, chunk=3, cache=str(tmp_path / "elsewhere")).train_all(TASK, 1)


@pytest.mark.parametrize(
    "change", [{"epochs": 2}, {"lr": 0.1}, {"momentum": 0.7}, {"weight_decay": 0.0}, {"batch_size": 8}], ids=str
)
def test_other_training_settings_are_another_network(cached, change):
    other = ProxyTraining(**{**SETTINGS, **change}, cache=cached.cache)
    assert other.description(TASK, 0) != cached.description(TASK, 0)
    cached.train_all(TASK, 1)
    assert other.ready(TASK, 0) is None


@pytest.mark.parametrize(
    "task",
    [
        ProxyTask(REAL, tiny_convnet(), seed=4),
        ProxyTask(REAL, tiny_convnet(width=5), seed=3),
        ProxyTask(REAL, MLP, seed=3),
        ProxyTask(TinyData((9, 7, 9, 4, 8)).real, tiny_convnet(), seed=3),
        ProxyTask(TinyData(normalization=REAL.normalization.__class__((0.5,), (0.3,))).real, tiny_convnet(), seed=3),
    ],
    ids=["seed", "width", "architecture", "data", "normalization"],
)
def test_other_data_seeds_and_architectures_are_another_network(cached, task):
    cached.train_all(TASK, 1)
    assert cached.ready(task, 0) is None
    assert cached.ready(TASK, 0) is not None
    assert cached.ready(TASK, 1) is None


def test_a_partial_that_says_the_defaults_shares_the_cache(cached):
    spelled = ProxyTask(REAL, tiny_convnet(activation="relu"), seed=3)
    assert cached.description(spelled, 0) == cached.description(TASK, 0)


@pytest.mark.parametrize(
    "content",
    [b"", b"no network", "cut", {"format": 1}, {"format": 7}, "other"],
    ids=["empty", "foreign", "cut", "parts missing", "format", "of another name"],
)
def test_a_broken_file_is_one_clear_error(cached, content):
    cached.train_all(TASK, 2)
    path = path_of(cached, 0)
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif content == "other":
        shutil.copy(path_of(cached, 1), path)
    elif isinstance(content, dict):
        torch.save({**content, "description": ""}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="Delete the file") as refusal:
        cached.train_all(TASK, 1)
    assert str(path) in str(refusal.value)


def test_weights_that_do_not_fit_are_one_clear_error(cached):
    (trained,) = cached.train_all(TASK, 1)
    del trained.weights["classifier.bias"]
    with pytest.raises(CheckpointError, match=r"classifier\.bias"):
        cached.restore(TASK, trained)


def test_a_network_without_a_name_of_its_own_cannot_be_cached(cached):
    nameless = ProxyTask(REAL, lambda **shape: ConvNet(width=4, depth=1, **shape), seed=3)
    with pytest.raises(SettingsError, match=r"ProxyTraining\.cache"):
        cached.train_all(nameless, 1)
    assert len(ProxyTraining(epochs=1).train_all(nameless, 1)) == 1


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": -1},
        {"batch_size": 0},
        {"chunk": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"weight_decay": -1e-9},
        {"momentum": 0.0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        ProxyTraining(**settings)


def test_momentum_0_is_plain_descent():
    assert ProxyTraining(momentum=0.0, nesterov=False).momentum == 0


class Exploding(nn.Module):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__()
        self.classifier = nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)

    def forward(self, images):
        return self.classifier(1e30 * images.flatten(1))


def test_a_loss_that_is_not_finite_stops_the_training_and_says_what_to_do():
    task = ProxyTask(REAL, Exploding, seed=3)
    with pytest.raises(NonFiniteError, match=r"proxy model 2 .* Lower proxy.lr"):
        ProxyTraining(epochs=2, lr=1e30).train(task, 2)
