"""Images drawn by the norms of their last-layer gradients: probabilities, weights, and that nothing is biased."""

from __future__ import annotations

import io

import pytest
import torch

from lit_condense.augmentation import AlwaysOn, NoAugmentation
from lit_condense.engine import Engine
from lit_condense.engine.compilation import DOUBLE_BACKWARD_COMPILES
from lit_condense.errors import SettingsError
from lit_condense.functional.curvature import last_layer_gradient_variance
from lit_condense.inner import Pool, TrainOnReal
from lit_condense.matching import (
    ClassMeanGradientMatching,
    CurvatureMatching,
    FeatureMatching,
    GradientMatching,
    MatchingLoss,
    Progress,
    Quantity,
    quantity,
    register,
)
from lit_condense.matching.features import class_means
from lit_condense.networks.features import Features, network_features
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.rng import RandomKey
from lit_condense.sampling import Importance, RandomSampling, Representative
from lit_condense.sampling.contract import check_weighed
from lit_condense.sharding import Share
from lit_condense.synthetic import Gatherer
from tests.cli_helpers import card_of, cli, refusal, tiny_config, write_config
from tests.helpers import TinyData, fitted, resumed
from tests.methods.helpers import (
    NormalisedImages,
    Parts,
    WholeClasses,
    labels_of,
    network_of,
    real_of,
    stored_of,
)
from tests.oracles import importance as oracle

COUNTS = (4, 3, 5, 2, 3)
"""Images of each class; with batches of 2, class 3 is used whole."""
IPC = (2,) * len(COUNTS)
REAL = NormalisedImages(real_of(COUNTS))
NETWORK = network_of()
KEY = RandomKey(2).fold("sampling", 10)
NEEDS = frozenset({"gradients", "features", "logits"})
EXACT = {"rtol": 0, "atol": 1e-10}


def progress_of(match, network=0):
    return Progress(103 * network + match, network, match)  # 103: a network's life is no multiple of the interval


def refreshed(sampling, network=NETWORK, progress=progress_of(0), share=Share(), real=REAL):  # noqa: B008 - both are frozen
    sampling.refresh(real, network_features(network), progress, KEY, share)
    return sampling


def chances_of(c, uniform=0.1):
    return oracle.probabilities(oracle.last_layer_norms(NETWORK, real_of(COUNTS)[c], c), uniform)


def probabilities(sampling, c, real=REAL):
    """What the sampling says of every image of a class, from what each counts."""
    return 1 / (real.class_sizes[c] * sampling.weights_of(real, c, real.indices_of(c)))


# ------------------------------------------------------------------ probabilities and weights


@pytest.mark.parametrize("chunk", [1, 4, 500])
@pytest.mark.parametrize("uniform", [0.0, 0.1, 0.7])
def test_probabilities_are_the_literal_ones(uniform, chunk):
    sampling = refreshed(Importance(2, uniform=uniform, chunk=chunk))
    for c in (0, 1, 2, 4):
        wanted = torch.tensor(chances_of(c, uniform), dtype=torch.float64)
        torch.testing.assert_close(probabilities(sampling, c), wanted, rtol=1e-9, atol=0)
        assert wanted.max() > 1.02 * wanted.min()


def test_a_share_of_1_draws_all_alike():
    sampling = refreshed(Importance(2, uniform=1.0))
    for c in (0, 1, 2, 4):
        torch.testing.assert_close(probabilities(sampling, c), torch.full((COUNTS[c],), 1 / COUNTS[c]).double())


def test_no_image_counts_more_than_the_inverse_of_the_uniform_share():
    def one_sided(images):
        logits = torch.zeros(len(images), 5)
        logits[:, 0] = images.flatten(1)[:, 0] * 30
        return images.flatten(1)[:, :2], logits

    sampling = Importance(2, uniform=0.2)
    sampling.refresh(REAL, Features(one_sided), progress_of(0), KEY, Share())
    weights = torch.cat([sampling.weights_of(REAL, c, REAL.indices_of(c)) for c in (0, 1, 2, 4)])
    assert 4 < weights.max() <= 5


@pytest.mark.parametrize("class_index", [0, 2])
def test_images_are_drawn_as_often_as_their_probabilities_say(class_index):
    sampling, draws, size = refreshed(Importance(2, uniform=0.1)), 3000, 2
    expected = torch.tensor(chances_of(class_index), dtype=torch.float64)
    counts = torch.zeros(len(REAL), dtype=torch.float64)
    for update in range(draws):
        counts += torch.bincount(sampling.select(REAL, class_index, KEY.fold(update)), minlength=len(REAL))
    assert counts.sum() == counts[REAL.indices_of(class_index)].sum() == draws * size
    deviation = (draws * size * expected * (1 - expected)).sqrt()
    off = counts[REAL.indices_of(class_index)] - draws * size * expected
    assert (off.abs() < 5 * deviation).all()


def test_the_key_alone_decides_the_draw():
    one, other = (refreshed(Importance(2)) for _ in range(2))
    drawn = [one.select(REAL, 2, KEY.fold(u)) for u in range(20)]
    assert all(torch.equal(d, other.select(REAL, 2, KEY.fold(u))) for u, d in enumerate(drawn))
    assert len({tuple(d.tolist()) for d in drawn}) > 3


def test_a_class_that_fits_a_batch_is_used_whole_and_counts_as_ever():
    sampling = refreshed(Importance(3))
    for c in (1, 3, 4):
        assert sampling.size(REAL, c) == COUNTS[c]
        assert torch.equal(sampling.select(REAL, c, KEY), REAL.indices_of(c))
        assert sampling.weights_of(REAL, c, REAL.indices_of(c)) is None
    assert sampling.size(REAL, 0) == 3


def test_before_the_first_look_all_images_are_as_likely():
    sampling = Importance(2)
    chosen = sampling.select(REAL, 0, KEY)
    assert chosen.shape == (2,)
    assert (REAL.labels[chosen] == 0).all()
    assert sampling.weights_of(REAL, 0, chosen).tolist() == [1.0, 1.0]


def test_of_a_subset_probabilities_and_weights_are_those_of_a_class_of_its_size():
    seen = set()
    for number in range(12):
        key = KEY.fold(number)
        sampling = Importance(2, subset=3, uniform=0.1)
        sampling.refresh(REAL, network_features(NETWORK), progress_of(0), key, Share())
        members = REAL.indices_of(2)
        chances = sampling.state_dict()["probabilities"][members]
        (inside,) = chances.nonzero(as_tuple=True)
        wanted = oracle.probabilities(oracle.last_layer_norms(NETWORK, real_of(COUNTS)[2][inside], 2), 0.1)
        torch.testing.assert_close(chances[inside], torch.tensor(wanted, dtype=torch.float64), rtol=1e-9, atol=0)
        drawn = sampling.select(REAL, 2, key)
        assert torch.isin(drawn, members[inside]).all()
        literal = oracle.counts(wanted, torch.searchsorted(inside, torch.searchsorted(members, drawn)).tolist())
        assert sampling.weights_of(REAL, 2, drawn).tolist() == pytest.approx(literal, rel=1e-9)
        seen.add(tuple(inside.tolist()))
    assert len(seen) > 3  # drawn anew at every look: any image may be in it
    assert {place for inside in seen for place in inside} == set(range(5))


# ------------------------------------------------------------------ nothing is biased


class Drawn(Importance):
    """The same, with a draw that a test decides: positions in each class."""

    drawn: tuple[int, ...] = ()

    def select(self, real, class_index, key):
        return real.indices_of(class_index)[list(self.drawn)]


def gatherer_of(sampling, real=REAL):
    return Gatherer(
        real, stored_of(IPC), labels_of(IPC), IPC, sampling, Pixels(), NoAugmentation(), RandomKey(0), update=3
    )


def engine_of(size, chunk=None, compile="never"):
    return Engine("exact", compile, real_chunk=chunk).start(NETWORK, REAL.at(torch.arange(size)), NEEDS)


def flat(side):
    return torch.cat([g.flatten() for g in side.gradients.values()])


def real_side(running, sampling, c):
    return running.real_side(gatherer_of(sampling).block([c]), NEEDS)


def check_expectation(c, size, running):
    """The expectation over every possible draw of what the engine makes of it is what the whole class gives."""
    sampling = refreshed(Drawn(size, uniform=0.1))
    gradient, features, curvature = 0.0, 0.0, 0.0
    for drawn, chance in oracle.every_draw(chances_of(c), size):
        sampling.drawn = drawn
        side = real_side(running, sampling, c)
        gradient = gradient + chance * flat(side)
        features = features + chance * class_means(side)[0]
        seen = side.features[0], side.logits[0], side.labels[0], side.weights[0]
        curvature = curvature + chance * last_layer_gradient_variance(*seen)
    images = real_of(COUNTS)[c]
    rows = oracle.image_gradients(NETWORK, images, c)
    torch.testing.assert_close(gradient, rows.mean(0), **EXACT)
    torch.testing.assert_close(features, NETWORK.features(images).detach().mean(0), **EXACT)
    of_layer = oracle.sample_gradients(NETWORK, images, c).detach()
    torch.testing.assert_close(curvature, oracle.variance(of_layer), **EXACT)
    whole = engine_of(size).real_side(gatherer_of(WholeClasses()).block([c]), NEEDS)
    torch.testing.assert_close(gradient, flat(whole), **EXACT)


@pytest.mark.parametrize("class_index", [0, 1, 4])
def test_over_all_draws_gradient_features_and_variance_are_those_of_the_class(class_index):
    check_expectation(class_index, 2, engine_of(2))


@pytest.mark.parametrize("chunk", [1, 2])
def test_over_all_draws_chunks_of_the_real_side_give_those_of_the_class(chunk):
    check_expectation(0, 3, engine_of(3, chunk))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunk", [None, 1])
def test_over_all_draws_a_compiled_real_side_gives_those_of_the_class(chunk):
    torch.compiler.reset()
    running = engine_of(2, chunk, "always")
    check_expectation(0, 2, running)
    assert running.first_order.compiled


@pytest.mark.parametrize("drawn", [(0, 2), (1, 1), (3, 0)])
def test_what_a_draw_gives_is_the_literal_weighted_mean(drawn):
    sampling = refreshed(Drawn(2))
    sampling.drawn = drawn
    side, chances, images = real_side(engine_of(2), sampling, 0), chances_of(0), real_of(COUNTS)[0]
    wanted = oracle.weighted_mean(oracle.image_gradients(NETWORK, images, 0), chances, drawn)
    torch.testing.assert_close(flat(side), wanted, **EXACT)
    assert side.weights[0].tolist() == pytest.approx(oracle.counts(chances, drawn), rel=1e-9)
    rows = oracle.sample_gradients(NETWORK, images, 0).detach()
    found = last_layer_gradient_variance(side.features[0], side.logits[0], side.labels[0], side.weights[0])
    torch.testing.assert_close(found, oracle.weighted_variance(rows, chances, drawn), **EXACT)


@pytest.mark.parametrize("drawn", [(0, 2), (1, 1)])
def test_losses_on_features_and_curvature_take_what_the_images_count(drawn):
    sampling = refreshed(Drawn(2))
    sampling.drawn = drawn
    real, chances, images = real_side(engine_of(2), sampling, 0), chances_of(0), real_of(COUNTS)[0]
    synthetic = engine_of(2).real_side(gatherer_of(WholeClasses()).block([3]), NEEDS)
    other = oracle.sample_gradients(NETWORK, real_of(COUNTS)[3], 3).detach()
    variance = oracle.weighted_variance(oracle.sample_gradients(NETWORK, images, 0).detach(), chances, drawn)
    wanted = (variance - other.var(0)).abs().sum()
    torch.testing.assert_close(CurvatureMatching().loss(real, synthetic), wanted, **EXACT)
    mean = oracle.weighted_mean(NETWORK.features(images).detach(), chances, drawn)
    wanted = (mean - NETWORK.features(real_of(COUNTS)[3]).detach().mean(0)).square().sum()
    torch.testing.assert_close(FeatureMatching().loss(real, synthetic), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [None, 1])
def test_the_mean_over_many_draws_nears_the_class_and_would_not_without_weights(chunk):
    sampling, running, draws = Importance(2), engine_of(2, chunk), 1000
    uneven = torch.full((len(REAL),), 0.5, dtype=torch.float64)
    uneven[REAL.indices_of(2)] = torch.tensor([1, 1, 2, 3, 3]).double() / 10  # no matter which they are
    sampling.load_state_dict({"probabilities": uneven, "looked": (0, 0)})
    gatherer, rows = gatherer_of(sampling), oracle.image_gradients(NETWORK, real_of(COUNTS)[2], 2)
    wanted, found, unweighted = rows.mean(0), [], []
    for update in range(draws):
        chosen = sampling.select(REAL, 2, KEY.fold(update))
        unweighted.append(rows[torch.searchsorted(REAL.indices_of(2), chosen)].mean(0))
        keyed = Gatherer(**{**vars(gatherer), "update": update})
        found.append(flat(running.real_side(keyed.block([2]), NEEDS)))
    found, unweighted = torch.stack(found), torch.stack(unweighted)
    expected = float(found.var(0).sum().div(draws).sqrt())  # of the error of a mean without bias
    assert float((found.mean(0) - wanted).norm()) < 2 * expected
    assert float((unweighted.mean(0) - wanted).norm()) > 3 * expected


def test_weights_of_1_change_no_variance():
    features, logits = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    labels, ones = torch.arange(6) % 4, torch.ones(6)
    torch.testing.assert_close(
        last_layer_gradient_variance(features, logits, labels, ones),
        last_layer_gradient_variance(features, logits, labels),
        rtol=1e-10,
        atol=1e-14,
    )


def test_a_mean_over_classes_and_the_whole_set_see_the_same_weights():
    sampling = refreshed(Importance(2))  # class 3 is used whole: its images count 1 among the others
    gatherer = gatherer_of(sampling)
    whole, blocks = gatherer.whole(), [gatherer.block([c]) for c in range(5)]
    assert [block.real_weights is None for block in blocks] == [False, False, False, True, False]
    wanted = torch.cat([torch.ones(1, 2).double() if b.real_weights is None else b.real_weights for b in blocks], dim=1)
    assert torch.equal(whole.real_weights, wanted)
    joint = engine_of(2).real_side(whole, NEEDS)
    alone = [class_means(engine_of(2).real_side(block, NEEDS))[0] for block in blocks]
    torch.testing.assert_close(class_means(joint), torch.stack(alone), **EXACT)
    mixed = gatherer.block([2, 3])  # both bring two images
    assert torch.equal(mixed.real_weights, torch.cat([blocks[2].real_weights, torch.ones(1, 2).double()]))
    assert gatherer.block([0], with_real=False).real_weights is None
    assert gatherer_of(WholeClasses()).whole().real_weights is None


# ------------------------------------------------------------------ when it looks, and what it keeps


@pytest.mark.parametrize("interval", [1, 3, 10])
def test_it_looks_at_every_interval_and_holds_in_between(interval):
    sampling, changed, before = Importance(2, interval=interval), [], None
    for match in range(12):
        torch.manual_seed(match)
        network = network_of("layer")
        for parameter in network.parameters():
            parameter.data += 0.01 * torch.randn(parameter.shape)
        now = probabilities(refreshed(sampling, network, progress_of(match)), 0)
        if before is not None and not torch.equal(before, now):
            changed.append(match)
        before = now
    assert changed == [m for m in range(1, 12) if m % interval == 0]


@pytest.mark.parametrize("kind", [Importance, Representative])
def test_networks_that_take_turns_are_each_looked_at_unless_the_run_is_counted(kind):
    turns = [Progress(update, update % 3, update) for update in range(9)]
    for every_network, wanted in ((True, list(range(9))), (False, [0, 4, 8])):
        sampling = kind(2, 4, every_network=every_network)
        assert [one.update for one in turns if sampling._looks.due(one)] == wanted
    one = kind(2, 4)
    assert [u for u in range(9) if one._looks.due(Progress(u, 0, u))] == [0, 4, 8]


@pytest.mark.parametrize("kind", [Importance, Representative])
def test_an_object_that_served_one_run_begins_another_anew(kind):
    sampling = kind(4, interval=3)
    fitted(sampling=sampling)
    other = fitted(sampling=sampling, data=TinyData((12,) * 5)).images
    assert torch.equal(other, fitted(sampling=kind(4, interval=3), data=TinyData((12,) * 5)).images)


@pytest.mark.parametrize("stop", [2, 5])
def test_a_broken_run_with_a_pool_goes_on(tmp_path, stop):
    settings = {"inner": lambda: Pool(5, 2, steps=2, batch_size=8), "sampling": lambda: Importance(2, 3, subset=4)}
    resumed(tmp_path, stop, 8, FeatureMatching, **settings)


def test_a_new_network_is_looked_at_unless_the_run_is_counted():
    for every_network, new in ((True, True), (False, False)):
        sampling = Importance(2, every_network=every_network)
        first = probabilities(refreshed(sampling), 0)
        second = probabilities(refreshed(sampling, network_of("layer"), progress_of(0, network=1)), 0)
        assert torch.equal(first, second) != new


def test_the_state_goes_through_a_file_without_pickled_code():
    sampling, file = refreshed(Importance(2)), io.BytesIO()
    torch.save(sampling.state_dict(), file)
    file.seek(0)
    other = Importance(2)
    other.load_state_dict(torch.load(file, weights_only=True))
    for c in range(5):
        assert torch.equal(other.select(REAL, c, KEY), sampling.select(REAL, c, KEY))
    assert torch.equal(probabilities(other, 0), probabilities(sampling, 0))
    other.load_state_dict(Importance(2).state_dict())
    assert other.weights_of(REAL, 0, other.select(REAL, 0, KEY)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_ranks_share_the_classes_and_all_have_the_probabilities_of_one(ranks):
    def on(share):
        return refreshed(Importance(2, chunk=4), share=share).state_dict()["probabilities"]

    for found in Parts(ranks).run(on):
        torch.testing.assert_close(found, on(Share()), rtol=1e-12, atol=0)


# ------------------------------------------------------------------ in a run


LOOP = {"updates": 4, "images": 20, "batch_size": 8, "lr": 0.1}
METHODS = {
    "dc": ([GradientMatching()], {}),
    "dsa": ([GradientMatching()], {"augmentation": AlwaysOn()}),
    "egm": ([GradientMatching("row_cosine_norm", name="intra"), ClassMeanGradientMatching("row_cosine_norm")], {}),
    "idc": (
        [GradientMatching("squared_l2", layers="convolutions")],
        {"parametrization": MultiFormation(2), "inner": TrainOnReal(**LOOP)},
    ),
    "lcmat": ([GradientMatching(), CurvatureMatching()], {}),
    "dm": ([FeatureMatching(joint=True)], {}),
}


@pytest.mark.parametrize("method", METHODS)
def test_it_plugs_into_every_method(method):
    losses, settings = METHODS[method]
    module = fitted(*losses, sampling=Importance(5, interval=2), **settings)
    other = fitted(*losses, sampling=RandomSampling(5), **settings)
    assert module.images.isfinite().all()
    assert not torch.equal(module.images, other.images)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_compiled_run_with_weights_is_the_eager_one():
    torch.compiler.reset()

    def run(compile):
        losses = [GradientMatching(), CurvatureMatching(), FeatureMatching()]
        return fitted(*losses, sampling=Importance(5, interval=2), engine=Engine("exact", compile), max_steps=3)

    eager, compiled = run("never"), run("always")
    assert compiled.running.first_order.compiled
    assert compiled.running.image_gradient.compiled == DOUBLE_BACKWARD_COMPILES
    torch.testing.assert_close(compiled.images, eager.images, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_broken_run_goes_on_with_the_probabilities_it_had(tmp_path, stop):
    resumed(
        tmp_path,
        stop,
        6,
        sampling=lambda: Importance(4, interval=3),
        inner=lambda: TrainOnReal(**LOOP),
    )


DIGITS = {"class_path": "Importance", "init_args": {"batch_size": 4, "interval": 2, "uniform": 0.2}}


def test_a_config_condenses_the_digits_with_it(tmp_path):
    path = tiny_config(tmp_path)["out"]
    command = cli("fit", *write_config(tmp_path, sampling=DIGITS))
    assert isinstance(command.model.sampling, Importance)
    assert command.model.sampling.state_dict()["probabilities"].std() > 1e-3
    assert card_of(path)["update"] == 4


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, r"Importance\.batch_size to be 1 or more, got 0"),
        ({"interval": 0}, r"Importance\.interval to be 1 or more, got 0"),
        ({"chunk": -1}, r"Importance\.chunk to be 1 or more, got -1"),
        ({"uniform": -0.1}, r"Importance\.uniform, a share, to be between 0 and 1, got -0\.1"),
        ({"uniform": 1.01}, r"between 0 and 1, got 1\.01"),
        ({"uniform": float("nan")}, "between 0 and 1, got nan"),
        ({"subset": 63}, r"Importance\.subset to be at least batch_size \(64\), got 63\. Raise it"),
    ],
)
def test_settings_that_mean_nothing(settings, words):
    with pytest.raises(SettingsError, match=words):
        Importance(**settings)


def test_a_config_with_a_share_outside_is_one_message(capsys, tmp_path):
    sampling = {**DIGITS, "init_args": {"uniform": 1.5}}
    assert "Importance.uniform, a share, to be between 0 and 1, got 1.5" in refusal(
        capsys, "fit", *write_config(tmp_path, sampling=sampling)
    )


def sure(images):
    """Features and logits of a network that knows class 0 without any doubt."""
    logits = torch.full((len(images), 5), -1e4)
    logits[:, 0] = 1e4
    return images.flatten(1), logits


def test_an_image_that_can_never_be_drawn_is_refused_and_a_uniform_share_saves_it():
    with pytest.raises(SettingsError, match=r"class 0 to have .* but 4 of 4 .* norm 0 .* Raise uniform, for instance"):
        Importance(2, uniform=0.0).refresh(REAL, Features(sure), progress_of(0), KEY, Share())
    sampling = Importance(2, uniform=0.1)
    sampling.refresh(REAL, Features(sure), progress_of(0), KEY, Share())
    assert probabilities(sampling, 0).tolist() == [0.25] * 4


def test_a_network_that_has_run_away_is_left_to_the_update():
    sampling = Importance(2, uniform=0.0)

    def lost(images):
        return images.flatten(1), torch.full((len(images), 5), float("nan"))

    sampling.refresh(REAL, Features(lost), progress_of(0), KEY, Share())
    assert probabilities(sampling, 0).tolist() == [0.25] * 4


class Penultimate(Quantity):
    name = "penultimate"

    def form(self, network, images, labels, create_graph):
        return network.features(images)


class Own(MatchingLoss):
    """A loss on what it is told to read."""

    def __init__(self, needs, weighs=False):
        super().__init__()
        self.needs = frozenset({needs})
        self.reads_weights = weighs

    def loss(self, real, synthetic):
        (name,) = self.needs
        return (real[name].mean(1) - synthetic[name].mean(1)).square().sum()


class OfSyntheticAlone(Own):
    needs_real = frozenset()

    def loss(self, real, synthetic):
        (name,) = self.needs
        return synthetic[name].mean(1).square().sum()


@pytest.fixture
def _own_quantity(monkeypatch):
    monkeypatch.setattr(quantity, "_REGISTERED", dict(quantity._REGISTERED))
    register(Penultimate())


@pytest.mark.usefixtures("_own_quantity")
def test_a_quantity_of_ones_own_does_not_know_the_weights():
    with pytest.raises(SettingsError, match=r"a quantity of one's own does not know .* Own, which reads penultimate"):
        fitted(Own("penultimate"), sampling=Importance(5))
    with pytest.raises(SettingsError, match="does not know the weights"):
        check_weighed(Importance(5), [Own("penultimate", weighs=True)])
    check_weighed(RandomSampling(5), [Own("penultimate")])
    fitted(GradientMatching(), OfSyntheticAlone("penultimate"), sampling=Importance(5))


def test_a_loss_of_ones_own_that_does_not_weigh_features():
    with pytest.raises(
        SettingsError, match=r"Own to weigh .* \(features\), because Importance .* reads_weights = True"
    ):
        fitted(Own("features"), sampling=Importance(5))
    check_weighed(Importance(5), [Own("features", weighs=True), OfSyntheticAlone("features"), GradientMatching()])
    check_weighed(RandomSampling(5), [Own("features")])


def test_data_of_any_size_are_looked_at():
    real = TinyData((3, 3)).real
    sampling = Importance(5)  # every class is used whole: no image goes through a network
    sampling.refresh(real, Features(lambda images: pytest.fail("looked at")), progress_of(0), KEY, Share())
    assert sampling.state_dict()["probabilities"].tolist() == pytest.approx([1 / 3] * 6)
