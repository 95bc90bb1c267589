"""DREAM: representative real images and a clustered start (Liu et al., 2023), in a run."""

from __future__ import annotations

import copy

import pytest
import torch

from lit_condense.functional.kmeans import plus_plus
from lit_condense.init import Clustered
from lit_condense.inner import TrainOnReal
from lit_condense.matching import GradientMatching
from lit_condense.networks import build_network
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.rng import RandomKey
from lit_condense.sampling import Representative
from tests.helpers import DOUBLE, TinyData, fitted, tiny_convnet
from tests.methods.helpers import PRECISION, KeyedDraws, labels_of, one_update
from tests.oracles import clustering, dc, methods

SIZES = (18, 15, 4)
"""Class 2 is smaller than the batch."""
BATCH = 6


class Watched(Representative):
    """Keeps, for each update, the network it was shown and the images that stood for each class."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.shown, self.used = {}, {}

    def refresh(self, real, features, progress, key, share):
        self.shown[progress.update] = copy.deepcopy(features.with_logits.__self__.forward.network), key
        super().refresh(real, features, progress, key, share)

    def select(self, real, class_index, key):
        chosen = super().select(real, class_index, key)
        if key.path[0] == "real":  # and not the engine asking for a shape
            self.used.setdefault(key.path[1], {})[class_index] = chosen.clone()
        return chosen


LOOP = {"updates": 4, "images": 40, "batch_size": 8, "lr": 0.1}


@pytest.fixture(scope="module")
def watched():
    sampling = Watched(BATCH, interval=2)
    fitted(inner=TrainOnReal(**LOOP), sampling=sampling, data=TinyData(SIZES), max_steps=8, trainer=DOUBLE)
    return sampling


def test_batches_are_chosen_every_interval_and_with_every_network_and_held_in_between(watched):
    def same(update, other):
        return all(torch.equal(watched.used[update][c], watched.used[other][c]) for c in range(3))

    assert [same(u - 1, u) for u in range(1, 8)] == [True, False, True, False, True, False, True]


@pytest.mark.parametrize("update", [0, 2, 4, 6])
def test_the_choice_is_made_in_the_features_of_the_network_as_it_is_then(watched, update):
    network, key = watched.shown[update]
    real = TinyData(SIZES).real
    for c in (0, 1):
        members = real.indices_of(c)
        with torch.no_grad():
            features = methods.features_of(network, real.at(members).double())
        start = plus_plus(features, BATCH, key.fold("kmeans", c).generator()).tolist()
        centres, _ = clustering.lloyd(features, start)
        chosen = [members.tolist().index(i) for i in watched.used[update][c].tolist()]
        assert len(set(chosen)) == BATCH
        assert clustering.excess(features, centres, chosen) < 1e-9
    assert sorted(watched.used[update][2].tolist()) == real.indices_of(2).tolist()


def test_the_networks_shown_were_trained_in_between(watched):
    first, later, fresh = (watched.shown[u][0].classifier.weight for u in (0, 2, 4))
    assert not torch.equal(first, later)
    wanted = KeyedDraws(TinyData(SIZES)).network(1)
    torch.testing.assert_close(fresh, wanted.classifier.weight, rtol=1e-6, atol=1e-7)


def test_the_chosen_images_are_what_is_matched():
    sampling, ipc, data = Watched(BATCH), (2, 1, 2), TinyData(SIZES)
    gradient, start, _ = one_update(
        GradientMatching(), inner=TrainOnReal(**LOOP), sampling=sampling, data=data, ipc=list(ipc)
    )
    real = [data.real.at(sampling.used[0][c]).double() for c in range(3)]
    _, wanted = methods.image_gradient(
        sampling.shown[0][0], start, labels_of(ipc), real, [(1.0, methods.intra(dc.row_cosine))]
    )
    torch.testing.assert_close(gradient, wanted, **PRECISION)


def nearest_real(image, candidates):
    """Position of the candidate that an image is a copy of."""
    distance = (candidates - image).abs().flatten(1).amax(1)
    assert distance.min() < 1e-6
    return int(distance.argmin())


@pytest.mark.parametrize(("norm", "seeding"), [("instance", "kmeans++"), ("layer", "kmeans++"), ("instance", "random")])
@pytest.mark.parametrize("factor", [1, 2])
def test_a_clustered_start_is_the_literal_choice_of_one_untrained_network(factor, norm, seeding):
    real, ipc, key, factory = TinyData((18, 15, 13)).real, (2, 1, 3), RandomKey(5).fold("init"), tiny_convnet(norm)
    storage = Pixels("pixel") if factor == 1 else MultiFormation(factor)
    start = Clustered(chunk=7, seeding=seeding).start(storage, real, ipc, factory, key)
    network = build_network(factory, 1, (8, 8), 3, key.fold("network"))
    for c, count in enumerate(ipc):
        members = real.indices_of(c)
        with torch.no_grad():
            features = methods.features_of(network, real.at(members))
        generator = key.fold("kmeans", c).generator()
        seeds = (
            plus_plus(features, count * factor**2, generator).tolist()
            if seeding == "kmeans++"
            else torch.randperm(len(members), generator=generator)[: count * factor**2].tolist()
        )
        centres, _ = clustering.lloyd(features.double(), seeds)
        # nearest neighbour keeps every second pixel of an image in its cell
        shrunk = real.pixels_at(members)[:, :, ::factor, ::factor]
        cells = start[sum(ipc[:c]) : sum(ipc[: c + 1])].unfold(2, 8 // factor, 8 // factor)
        cells = cells.unfold(3, 8 // factor, 8 // factor)
        # block k of the choice fills cell k of all images of the class
        order = [cells[n, :, i, j] for i in range(factor) for j in range(factor) for n in range(count)]
        chosen = [nearest_real(image, shrunk) for image in order]
        assert len(set(chosen)) == count * factor**2
        assert clustering.excess(features.double(), centres, chosen) < 1e-4


def test_a_clustered_start_covers_a_class_better_than_most_random_ones():
    real, key = TinyData((40, 40)).real, RandomKey(5)
    start = Clustered().start(Pixels("pixel"), real, (5, 5), tiny_convnet(), key)
    network = build_network(tiny_convnet(), 1, (8, 8), 2, key.fold("network"))
    for c in range(2):
        members = real.indices_of(c)
        with torch.no_grad():
            features = methods.features_of(network, real.at(members))
        chosen = [nearest_real(image, real.pixels_at(members)) for image in start[5 * c : 5 * c + 5]]
        random = [
            clustering.inertia(features, features[torch.randperm(40, generator=key.fold(i).generator())[:5]])
            for i in range(20)
        ]
        assert clustering.inertia(features, features[chosen]) < sorted(random)[10]
