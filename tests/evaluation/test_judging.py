from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from lit_condense.errors import SettingsError
from lit_condense.evaluation import Evaluation, Evaluator, Score, SmallSet
from lit_condense.evaluation.protocols import recipe_for
from lit_condense.networks import MLP
from lit_condense.rng import RandomKey
from lit_condense.selection import EL2N, Glister, KMeansNearest, ProxyTraining, RandomSubset
from lit_condense.selection.task import ProxyTask
from lit_condense.sharding import Share
from tests.helpers import TinyData, fitted, tiny_convnet

IPC = [2, 1, 3, 2, 2]
DATA = TinyData()
CPU = torch.device("cpu")


def judge(seed=0, **settings):
    return Evaluator(Evaluation(**{"epochs": 3, **settings}), DATA.test, "tiny", RandomKey(seed), CPU)


def small_set(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return SmallSet(torch.randn(10, 1, 8, 8, generator=generator), torch.arange(10) % 5)


@pytest.fixture(scope="module")
def condensed():
    """A set that still has its trainer and data."""
    return fitted(ipc=IPC, max_steps=2)


def test_the_spread_of_a_score_is_the_sample_standard_deviation():
    score = Score("ConvNet", (0.5, 0.7, 0.9), 1.0)
    assert score.mean == pytest.approx(0.7)
    assert score.std == pytest.approx(0.2)  # the population's would be 0.1633
    assert score.standard_error == pytest.approx(0.2 / 3**0.5)


@pytest.mark.parametrize(("networks", "quantile"), [(2, 12.7062), (5, 2.7764), (20, 2.0930)])
def test_the_interval_of_a_score_is_students(networks, quantile):
    """Quantiles of the t distribution, 97.5 %, from its table."""
    accuracies = torch.linspace(0.4, 0.6, networks).tolist()
    score = Score("ConvNet", tuple(accuracies), 1.0)
    low, high = score.interval
    assert (low + high) / 2 == pytest.approx(0.5)
    assert (high - low) / 2 == pytest.approx(quantile * score.std / networks**0.5, rel=1e-4)
    assert score.as_plain()["accuracy_interval"] == [low, high]


def test_one_network_has_no_spread():
    assert Score("ConvNet", (0.5,), 1.0).interval is None
    assert Score("ConvNet", (0.5,), 1.0).as_plain()["accuracy_interval"] is None
    assert Score("ConvNet", (0.5,), 1.0).std == 0
    assert Score("ConvNet", (0.5,), 1.0).standard_error == 0


def test_a_score_says_how_it_came_about_as_plain_data():
    score = judge().score(tiny_convnet(), lambda _: small_set(), 2, Share())
    plain = score.as_plain()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["networks"] == len(plain["accuracies"]) == 2
    assert plain["accuracy_mean"] == score.mean
    assert plain["accuracy_std"] == score.std
    assert "N - 1" in plain["std_definition"]
    assert plain["recipe"]["protocol"] == "dc"
    assert plain["recipe"]["steps"] == plain["recipe"]["passes"] == 4


def test_network_i_is_trained_on_set_i_and_counts_at_place_i():
    asked = []

    def set_for(index):
        asked.append(index)
        return small_set(index)

    scores = judge().score(tiny_convnet(), set_for, 3, Share())
    assert asked == [0, 1, 2]
    assert list(scores.accuracies) == [judge().accuracy(tiny_convnet(), i, small_set(i))[0] for i in range(3)]


def trained_weights(the_judge, factory, index, data):
    """Return the weights of an evaluation network after its training."""
    kept = []

    def keeping(**shape):
        kept.append(factory(**shape))
        return kept[-1]

    the_judge.accuracy(keeping, index, data)
    return torch.cat([p.detach().flatten() for p in kept[-1].parameters()])


def test_judging_again_trains_the_same_network():
    first, again, other, other_seed = (
        trained_weights(judge(seed), tiny_convnet(), i, small_set()) for seed, i in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, other_seed)


def test_a_set_and_its_baseline_meet_networks_with_the_same_first_weights():
    started = [[], []]
    for place, data in zip(started, (small_set(0), small_set(1)), strict=True):

        def factory(place=place, **shape):
            network = MLP(width=4, **shape)
            place.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
            return network

        judge().accuracy(factory, 0, data)
    assert not torch.equal(started[0][-1], started[0][-2])  # a trial network comes before
    assert torch.equal(started[0][-1], started[1][-1])


class Dropping(nn.Sequential):
    def __init__(self, in_channels, image_size, num_classes):
        cells = in_channels * image_size[0] * image_size[1]
        super().__init__(nn.Flatten(), nn.Dropout(0.5), nn.Linear(cells, num_classes))


@pytest.mark.parametrize("networks", [1, 9])
def test_layers_that_draw_from_the_global_generators_follow_the_key_too(networks):
    found = []
    for _ in range(2):
        torch.rand(3)  # moves the global generator between the two
        kept = []

        def factory(kept=kept, **shape):
            kept.append(Dropping(**shape))
            return kept[-1]

        judge().accuracies(factory, range(networks), lambda _: small_set(), networks)
        found.append(torch.cat([p.detach().flatten() for network in kept for p in network.parameters()]))
    assert torch.equal(*found)


def test_judging_works_the_same_inside_inference_mode():
    outside = trained_weights(judge(), tiny_convnet(), 0, small_set())
    data = small_set()
    with torch.inference_mode():
        inside = trained_weights(judge(), tiny_convnet(), 0, data)
    assert torch.equal(outside, inside)


def test_judging_leaves_the_global_generators_alone():
    before = torch.get_rng_state()
    judge(protocol="idc").accuracy(tiny_convnet(), 0, small_set())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_limit_of_steps_is_kept_and_reported():
    _, recipe = judge(epochs=50).accuracy(tiny_convnet(), 0, small_set(), max_steps=7)
    assert recipe["steps"] == 7


def matches(images, real):
    """Return where the drawn images stand among the real ones; each must be one of them."""
    distances = (images[:, None] - real.at(torch.arange(len(real)))).abs().amax((2, 3, 4))
    assert distances.min(1).values.max() == 0
    return distances.argmin(1)


def test_the_random_baseline_draws_different_real_images_of_the_right_classes(condensed):
    real = condensed.data.real
    for network in range(3):
        drawn = condensed.baselines.drawn(RandomSubset())(network)
        places = matches(drawn.at(torch.arange(len(drawn.labels))), real)
        assert len(set(places.tolist())) == sum(IPC)
        assert torch.equal(real.labels[places], drawn.labels)
        assert torch.bincount(drawn.labels).tolist() == IPC


def test_every_network_has_its_own_random_images(condensed):
    drawn = condensed.baselines.drawn(RandomSubset())
    places = [tuple(sorted(matches(drawn(i).images, condensed.data.real).tolist())) for i in range(4)]
    assert len(set(places)) == 4


def test_the_random_images_follow_from_the_seed(condensed):
    same, other = (fitted(ipc=IPC, max_steps=2, seed=seed).baselines.drawn(RandomSubset())(1).images for seed in (3, 4))
    assert torch.equal(condensed.baselines.drawn(RandomSubset())(1).images, same)
    assert not torch.equal(condensed.baselines.drawn(RandomSubset())(1).images, other)


def test_a_scored_baseline_trains_its_network_once_and_keeps_the_images_with_the_highest_scores(monkeypatch):
    proxy = ProxyTraining(epochs=1, lr=0.01)
    module = fitted(ipc=IPC, max_steps=2, evaluation=Evaluation(epochs=3, proxy=proxy))
    trained = []
    train = ProxyTraining.train
    monkeypatch.setattr(ProxyTraining, "train", lambda *args: trained.append(args[2]) or train(*args))
    drawn = module.baselines.drawn(EL2N(networks=1))
    assert trained == [0]
    assert drawn(0) is drawn(3)
    real = module.data.real
    places = matches(drawn(0).images, real).tolist()
    task = ProxyTask(real, module.network, module.seed)
    view = proxy.view(proxy.restore(task, proxy.train_all(task, 1)[0]), real, torch.arange(len(real)))
    errors = (view.logits.double().softmax(1) - nn.functional.one_hot(real.labels)).norm(dim=1)
    for c, count in enumerate(IPC):
        members = real.indices_of(c)
        highest = members[errors[members].argsort(descending=True)[:count]]
        assert {p for p in places if real.labels[p] == c} == set(highest.tolist())


def test_a_baseline_that_looks_at_all_images_is_shown_them():
    module = fitted(ipc=IPC, max_steps=2, evaluation=Evaluation(epochs=3, proxy=ProxyTraining(epochs=1, lr=0.01)))
    drawn = module.baselines.drawn(Glister(validation="all"))(0)
    assert len(set(matches(drawn.images, module.data.real).tolist())) == sum(IPC)
    assert torch.bincount(drawn.labels).tolist() == IPC


def test_two_baselines_of_one_name_are_refused():
    with pytest.raises(SettingsError, match="different methods"):
        Evaluation(baselines=[KMeansNearest(), KMeansNearest()])


def test_the_k_means_baseline_is_real_images_of_the_right_classes(condensed):
    drawn = condensed.baselines.drawn(KMeansNearest())(0)
    places = matches(drawn.images, condensed.data.real)
    assert len(set(places.tolist())) == sum(IPC)
    assert torch.bincount(drawn.labels).tolist() == IPC


def test_cutmix_can_be_set_apart_from_the_protocol():
    assert judge(protocol="idc").recipe(nn.Identity()).cutmix == 0.5
    assert judge(protocol="idc", cutmix=0.0).recipe(nn.Identity()).cutmix == 0
    with pytest.raises(SettingsError, match=r"probability in \[0, 1\], got 1.5"):
        Evaluation(cutmix=1.5)


@pytest.mark.parametrize("name", ["MNIST", "Svhn", "digits"])
@pytest.mark.parametrize("protocol", ["dsa", "idc"])
def test_digits_are_never_mirrored_however_the_folder_is_spelt(name, protocol):
    assert "flip" not in recipe_for(protocol, name, convnet_bn=False).augmentation.operations
