from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from lit_condense.data import Normalization, TensorImages
from lit_condense.errors import DataError, SettingsError
from lit_condense.functional.geometry import symmetric_divergence
from lit_condense.rng import RandomKey
from lit_condense.selection import (
    CAL,
    Candidates,
    ContextualDiversity,
    Herding,
    KCenterGreedy,
    KMeansNearest,
    ProxyOutputs,
)
from lit_condense.settings import settings_of

KEY = RandomKey(5).fold("selection")
IMAGES = 40


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def real_images(classes=3, size=2):
    pixels = torch.rand(IMAGES, 1, size, size, generator=torch.Generator().manual_seed(9))
    names = [str(c) for c in range(classes)]
    return TensorImages(pixels, torch.arange(IMAGES) % classes, classes, Normalization((0.4,), (0.3,)), names)


REAL = real_images()


def linear_network(classes=3, pixels=4, seed=3):
    layer = nn.Linear(pixels, classes)
    with torch.no_grad():
        layer.weight.copy_(normal(classes, pixels, seed=seed))
        layer.bias.copy_(normal(classes, seed=seed + 1))
    return nn.Sequential(nn.Flatten(), layer).eval()


def candidates_of(features=None, logits=None, labels=None, networks=1, network=None, forgetting=None, n=10, real=REAL):
    """The first n images; what is not given is random, and the views of further networks are other random numbers."""
    given = [x for x in (features, logits, labels, forgetting) if x is not None]
    n = len(given[0]) if given else n
    views = []
    for index in range(networks):
        z = normal(n, 4, seed=10 + index) if features is None or index else features
        f = 2 * normal(n, 3, seed=50 + index) if logits is None or index else logits
        views.append(ProxyOutputs(network or linear_network(real.num_classes), z, f))
    return Candidates(
        real,
        torch.arange(n),
        torch.arange(n) % 3 if labels is None else labels,
        views,
        torch.arange(n) % 4 - 1 if forgetting is None else forgetting,
    )


def rearranged(candidates, order):
    """The same candidates, shown in another order (or some of them)."""
    views = [ProxyOutputs(v.network, v.features[order], v.logits[order]) for v in candidates.views]
    some = [x[order] for x in (candidates.indices, candidates.labels, candidates.forgetting)]
    return Candidates(candidates.real, some[0], some[1], views, some[2])


def chosen_images(method, candidates, count, key=KEY):
    """The indices of the images, in the order they were picked."""
    return candidates.indices[method.choose(candidates, count, key).positions].tolist()


def assert_chooses_as_many_as_asked(method, candidates):
    """Every count from 1 to all of them; no image twice; one candidate; nothing drawn from the global generator."""
    n, before = len(candidates), torch.get_rng_state()
    for count in range(1, n + 1):
        choice = method.choose(candidates, count, KEY)
        assert choice.weights is None
        assert choice.positions.dtype == torch.int64
        assert choice.positions.shape == (count,)
        assert len(set(choice.positions.tolist())) == count
        assert set(choice.positions.tolist()) <= set(range(n))
    assert method.choose(rearranged(candidates, torch.tensor([n - 1])), 1, KEY).positions.tolist() == [0]
    assert torch.equal(torch.get_rng_state(), before)


def assert_order_of_candidates_makes_no_difference(method, candidates):
    wanted = chosen_images(method, candidates, 6)
    for seed in range(4):
        order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))
        assert chosen_images(method, rearranged(candidates, order), 6) == wanted


def with_duplicates(candidates):
    """The same candidates, of which the second half looks like the first half."""
    half = torch.arange(len(candidates)) % (len(candidates) // 2)
    twins = rearranged(candidates, half)
    return Candidates(twins.real, candidates.indices, twins.labels, twins.views, twins.forgetting)


METHODS = [
    Herding(),
    Herding("deepcore"),
    KCenterGreedy(),
    KCenterGreedy("medoid"),
    ContextualDiversity(),
]


@pytest.fixture(params=METHODS, ids=lambda m: str(settings_of(m)).rpartition(".")[2])
def method(request):
    return request.param


# ------------------------------------------------------------------ what every method promises


def test_exactly_as_many_different_candidates_as_asked_for(method):
    assert_chooses_as_many_as_asked(method, candidates_of())
    assert_chooses_as_many_as_asked(method, with_duplicates(candidates_of()))


def test_the_order_of_the_candidates_makes_no_difference(method):
    assert_order_of_candidates_makes_no_difference(method, candidates_of())
    assert_order_of_candidates_makes_no_difference(method, with_duplicates(candidates_of()))


def test_a_longer_choice_begins_with_the_shorter_one(method):
    assert chosen_images(method, candidates_of(), 7)[:3] == chosen_images(method, candidates_of(), 3)


def test_the_same_key_gives_the_same_choice(method):
    again = RandomKey(KEY.seed, KEY.path)
    assert chosen_images(method, candidates_of(), 5) == chosen_images(method, candidates_of(), 5, again)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_candidates_without_finite_values_are_refused(method, bad):
    values = normal(8, 3)
    values[[2, 5], 1] = bad
    candidates = candidates_of(features=values, logits=values)
    message = rf"^{type(method).__name__} needs .* 2 of 8 candidates .*lower its learning rate"
    with pytest.raises(DataError, match=message):
        method.choose(candidates, 3, KEY)


@pytest.mark.parametrize("cls", [Herding, KCenterGreedy, CAL])
def test_features_too_large_to_square_are_refused(cls):
    features = normal(8, 3)
    features[4] = 1e19
    with pytest.raises(DataError, match=rf"^{cls.__name__} needs finite features, but those of 1 of 8 candidates"):
        cls().choose(candidates_of(features), 8, KEY)


# ------------------------------------------------------------------ herding


def literal_herding(features, count, best):
    z, chosen = features.double(), []
    mean = z.mean(0)
    for t in range(count):
        wanted = (t + 1) * mean - sum((z[s] for s in chosen), torch.zeros_like(mean))
        left = [x for x in range(len(z)) if x not in chosen]
        chosen.append(best(left, key=lambda x: float((wanted - z[x]).norm())))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_herding_is_the_argmin_of_its_definition_and_deepcores_the_argmax(seed):
    features = normal(12, 3, seed=seed)
    for variant, best in {"definition": min, "deepcore": max}.items():
        assert chosen_images(Herding(variant), candidates_of(features), 12) == literal_herding(features, 12, best)


def slope_of_error(variant, features, counts):
    """Slope of the error of the mean over k, both logarithmic."""
    chosen = chosen_images(Herding(variant), candidates_of(features), max(counts))
    errors = [float((features[chosen[:k]].mean(0) - features.mean(0)).norm()) for k in counts]
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (counts, errors))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_herdings_mean_falls_about_as_one_over_k_and_that_of_the_argmax_does_not(seed):
    features, counts = normal(2000, 5, seed=seed), list(range(2, 101))
    assert -1.25 < slope_of_error("definition", features, counts) < -0.8
    assert slope_of_error("deepcore", features, counts) > -0.5


def test_herding_takes_the_first_image_of_equals():
    assert chosen_images(Herding(), candidates_of(torch.ones(6, 2)), 4) == [0, 1, 2, 3]
    # the mean is 0: the four corners are equally near
    corners = torch.tensor([[2.0, 0], [1, 1], [-1, 1], [-1, -1], [1, -1], [-2, 0]])
    assert chosen_images(Herding(), candidates_of(corners), 2) == [1, 3]


# ------------------------------------------------------------------ k-centre


def radius(features, centres):
    distances = (features.double()[:, None] - features.double()[list(centres)]).norm(dim=2)
    return float(distances.amin(1).max())


@pytest.mark.parametrize("start", ["random", "medoid"])
@pytest.mark.parametrize("seed", range(4))
def test_the_covering_radius_is_at_most_twice_the_smallest_possible(seed, start):
    features = normal(10, 2, seed=seed)
    for count in range(1, 6):
        smallest = min(radius(features, some) for some in itertools.combinations(range(10), count))
        found = chosen_images(KCenterGreedy(start), candidates_of(features), count, KEY.fold(seed))
        assert radius(features, found) <= 2 * smallest + 1e-6


def literal_farthest_first(distance, n, first, count):
    chosen = [first]
    while len(chosen) < count:
        left = [x for x in range(n) if x not in chosen]
        chosen.append(max(left, key=lambda x: min(distance(x, c) for c in chosen)))
    return chosen


@pytest.mark.parametrize("start", ["random", "medoid"])
def test_each_next_centre_is_the_farthest_from_those_before(start):
    features = normal(12, 3, seed=7)
    found = chosen_images(KCenterGreedy(start), candidates_of(features), 12)
    wanted = literal_farthest_first(lambda a, b: float((features[a] - features[b]).norm()), 12, found[0], 12)
    assert found == wanted


@pytest.mark.parametrize("method", [KCenterGreedy(), ContextualDiversity()], ids=["k-centre", "diversity"])
def test_the_first_image_is_drawn_by_key(method):
    starts = [chosen_images(method, candidates_of(n=4), 1, KEY.fold(i))[0] for i in range(400)]
    assert all(70 <= starts.count(i) <= 130 for i in range(4))  # 100 expected, standard deviation 8.7


@pytest.mark.parametrize("seed", range(4))
def test_the_medoid_has_the_smallest_sum_of_squared_distances(seed):
    features = normal(11, 3, seed=seed)
    sums = [sum(float((a - b).square().sum()) for b in features) for a in features]
    for key in (KEY, KEY.fold(1)):
        assert chosen_images(KCenterGreedy("medoid"), candidates_of(features), 1, key) == [sums.index(min(sums))]


def test_k_centre_resolves_small_differences_of_large_features():
    # products in float32 would lose them: squares near 2**26 are 4 or 8 apart
    features = 4096 + torch.tensor([0, 1, 2, 3, 5, 8, 13, 21.0])[:, None] * torch.ones(1, 4) / 128
    # nearest to the mean is 8; then 21 is 13 away, 0 is 8 away and 13 is 5 away
    assert chosen_images(KCenterGreedy("medoid"), candidates_of(features), 4) == [5, 7, 0, 6]


# ------------------------------------------------------------------ contextual diversity


def literal_divergence(p, q):
    return sum(0.5 * a * math.log(a / b) + 0.5 * b * math.log(b / a) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_contextual_diversity_is_farthest_first_in_the_symmetric_divergence(seed):
    logits = 2 * normal(10, 4, seed=seed)
    p = logits.double().softmax(1).tolist()
    found = chosen_images(ContextualDiversity(), candidates_of(logits=logits), 10)
    assert found == literal_farthest_first(lambda a, b: literal_divergence(p[a], p[b]), 10, found[0], 10)


def test_the_symmetric_divergence_is_the_mean_of_both_directions():
    p, q = (normal(6, 5, seed=s).double().softmax(1) for s in (1, 2))
    wanted = torch.tensor([literal_divergence(a, b) for a, b in zip(p.tolist(), q.tolist(), strict=True)])
    torch.testing.assert_close(symmetric_divergence(p.log(), q.log()), wanted.double())


def test_probabilities_that_round_to_zero_leave_the_divergence_finite():
    sure = torch.tensor([[500.0, 0, 0], [0, 500, 0], [0, 0, 900]]).log_softmax(1)
    found = symmetric_divergence(sure[:, None], sure[None])
    # (p - q) (log p - log q) / 2 at two places, each of size 500 (or one of 900)
    torch.testing.assert_close(found, torch.tensor([[0.0, 500, 700], [500, 0, 700], [700, 700, 0]]))


def test_contextual_diversity_takes_the_most_different_prediction_of_certain_ones():
    logits = torch.tensor([[500.0, 0, 0], [499, 0, 0], [0, 500, 0], [0, 0, 900], [0, 0, 899]])
    for i in range(5):
        found = chosen_images(ContextualDiversity(), candidates_of(logits=logits), 3, KEY.fold(i))
        assert {int(logits[x].argmax()) for x in found} == {0, 1, 2}


# ------------------------------------------------------------------ settings


def test_settings_out_of_range_are_refused():
    with pytest.raises(SettingsError, match=r"Herding.variant to be 'definition' or 'deepcore', got 'paper'"):
        Herding("paper")
    with pytest.raises(SettingsError, match=r"KCenterGreedy.start to be 'random' or 'medoid', got 'mean'"):
        KCenterGreedy("mean")


def test_settings_can_be_read_back_and_the_published_definition_is_the_default():
    assert settings_of(Herding())["init_args"] == {"variant": "definition"}
    assert settings_of(KCenterGreedy())["init_args"] == {"start": "random"}
    assert (Herding().networks, KCenterGreedy().networks, ContextualDiversity().networks) == (1, 1, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_k_means_refuses_features_that_are_not_finite(bad):
    features = normal(10, 4)
    features[3, 0] = bad
    candidates = candidates_of(features)
    with pytest.raises(DataError, match="KMeansNearest"):
        KMeansNearest("features").choose(candidates, 3, KEY)
