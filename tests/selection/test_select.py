from __future__ import annotations

import pytest
import torch

from lit_condense.errors import SettingsError
from lit_condense.networks import build_network
from lit_condense.rng import RandomKey
from lit_condense.selection import Budget, Choice, ProxyTraining, RandomSubset, Selection, select, select_now
from lit_condense.selection.task import ProxyTask
from lit_condense.sharding import Share
from tests.helpers import TinyData, tiny_convnet

SIZES = (9, 7, 1, 4, 20)
REAL = TinyData(SIZES).real
KEY = RandomKey(3).fold("here")
PROXY = ProxyTraining(epochs=1, batch_size=16)


class Watching(Selection):
    """Keeps the last candidates, last one first, and writes down what it was shown."""

    def __init__(self, networks=2, weighted=False):
        self.networks = networks
        self.weighted = weighted
        self.seen = []

    def choose(self, candidates, count, key):
        self.seen.append((candidates, count, key))
        positions = torch.arange(len(candidates)).flip(0)[:count]
        return Choice(positions, 1.0 + candidates.indices[positions] if self.weighted else None)


class Wrong(Selection):
    networks = 0

    def __init__(self, positions, weights=None, weighted=False):
        self.positions, self.weights, self.weighted = positions, weights, weighted

    def choose(self, candidates, count, key):
        return Choice(torch.tensor(self.positions), self.weights)


def chosen_now(selection, budget, key=KEY, proxy=PROXY):
    return select_now(selection, proxy, REAL, budget, tiny_convnet(), key)


def test_a_balanced_selection_chooses_inside_each_class():
    selection = Watching()
    kept = chosen_now(selection, Budget(ipc=[3, 2, 1, 4, 5]))
    assert torch.bincount(REAL.labels[kept.indices]).tolist() == [3, 2, 1, 4, 5]
    assert REAL.labels[kept.indices].tolist() == sorted(REAL.labels[kept.indices].tolist())
    by_class = [(REAL.labels == c).nonzero().flatten() for c in range(5)]
    wanted = torch.cat([m.flip(0)[:n] for m, n in zip(by_class, [3, 2, 1, 4, 5], strict=True)])
    assert torch.equal(kept.indices, wanted)
    assert [count for _, count, _ in selection.seen] == [3, 2, 1, 4, 5]
    assert len({key for _, _, key in selection.seen}) == 5
    assert kept.weights is None


def test_an_unbalanced_selection_chooses_among_all_and_is_put_class_by_class():
    selection = Watching(weighted=True)
    kept = chosen_now(selection, Budget(fraction=0.5, balanced=False))
    ((candidates, count, _),) = selection.seen
    assert (len(candidates), count, len(kept.indices)) == (41, 20, 20)
    assert sorted(kept.indices.tolist()) == list(range(21, 41))
    labels = REAL.labels[kept.indices]
    assert labels.tolist() == sorted(labels.tolist())
    for c in range(5):  # in a class, the order they were picked in
        assert kept.indices[labels == c].tolist() == sorted(kept.indices[labels == c].tolist(), reverse=True)
    assert torch.equal(kept.weights, 1.0 + kept.indices)


def test_a_method_is_shown_its_candidates_through_every_network():
    selection = Watching(networks=2)
    chosen_now(selection, Budget(ipc=1))
    trained = PROXY.train_all(ProxyTask(REAL, tiny_convnet(), 3), 2)
    for c, (candidates, _, _) in enumerate(selection.seen):
        members = (REAL.labels == c).nonzero().flatten()
        assert torch.equal(candidates.indices, members)
        assert candidates.labels.tolist() == [c] * SIZES[c]
        assert torch.equal(candidates.forgetting, trained[0].forgetting[members])
        assert len(candidates.views) == 2
        for one, view in zip(trained, candidates.views, strict=True):
            network = build_network(tiny_convnet(), 1, (8, 8), 5, KEY)
            network.load_state_dict(one.weights)
            torch.testing.assert_close(view.logits, network.eval()(REAL.at(members)), rtol=1e-5, atol=1e-5)


def test_a_method_that_asks_for_them_is_shown_all_images_through_the_first_network():
    selection = Watching(networks=2)
    chosen_now(selection, Budget(ipc=1))
    assert all(candidates.validation is None for candidates, _, _ in selection.seen)
    selection = Watching(networks=2)
    selection.validates = True
    chosen_now(selection, Budget(ipc=1))
    assert len(selection.seen) == 5
    for candidates, _, _ in selection.seen:
        assert torch.equal(candidates.validation.labels, REAL.labels)
        assert len(candidates.validation.view.features) == len(REAL)
        seen = candidates.validation.view.logits[candidates.indices]
        torch.testing.assert_close(seen, candidates.view.logits, rtol=1e-5, atol=1e-5)


def test_a_view_knows_the_learning_rate_and_the_batch_of_its_network():
    selection = Watching(networks=1)
    chosen_now(selection, Budget(ipc=1), proxy=ProxyTraining(epochs=1, lr=0.03, batch_size=24))
    assert (selection.seen[0][0].view.lr, selection.seen[0][0].view.batch_size) == (0.03, 24)


def test_a_method_without_networks_is_shown_none():
    selection = Watching(networks=0)
    chosen_now(selection, Budget(ipc=1), proxy=ProxyTraining(epochs=10**9))
    assert selection.seen[0][0].views == []
    assert selection.seen[0][0].forgetting is None


def test_the_networks_are_named_by_the_seed_alone_and_the_draws_by_the_key():
    weights, subsets = [], []
    for key in (KEY, KEY.fold("elsewhere"), RandomKey(4).fold("here")):
        selection = Watching(networks=1)
        chosen_now(selection, Budget(ipc=1), key)
        weights.append(selection.seen[0][0].view.logits)
        subsets.append(chosen_now(RandomSubset(), Budget(ipc=[5, 5, 1, 2, 5]), key).indices)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(subsets[0], subsets[1])
    again = chosen_now(RandomSubset(), Budget(ipc=[5, 5, 1, 2, 5]), KEY).indices
    assert torch.equal(subsets[0], again)


def test_ranks_choose_in_different_classes_and_put_together_what_one_chooses(monkeypatch):
    task, budget = ProxyTask(REAL, tiny_convnet(), 3), Budget(ipc=[3, 2, 1, 4, 5])
    trained = PROXY.train_all(task, 2)
    alone = select(Watching(weighted=True), trained, PROXY, task, budget, KEY)
    parts, asked = [], []
    monkeypatch.setattr(Share, "sum", lambda share, values: parts.append(values) or values)
    for rank in range(2):
        selection = Watching(weighted=True)
        select(selection, trained, PROXY, task, budget, KEY, Share(rank, 2))
        asked.append([int(candidates.labels[0]) for candidates, _, _ in selection.seen])
    assert asked == [[0, 2, 4], [1, 3]]
    assert torch.equal(parts[0] + parts[2], alone.indices)
    assert torch.equal(parts[1] + parts[3], alone.weights)


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Wrong([]), "2 different positions"),
        (Wrong([0]), "2 different positions"),
        (Wrong([0, 0]), "2 different positions"),
        (Wrong([0, 99]), "2 different positions"),
        (Wrong([0, -1]), "2 different positions"),
        (Wrong([0, 1], torch.ones(2)), "weights exactly"),
        (Wrong([0, 1], None, weighted=True), "weights exactly"),
        (Wrong([0, 1], torch.ones(3), weighted=True), "2 finite weights"),
        (Wrong([0, 1], torch.tensor([1.0, -1.0]), weighted=True), "2 finite weights"),
        (Wrong([0, 1], torch.tensor([1.0, torch.nan]), weighted=True), "2 finite weights"),
    ],
    ids=range(10),
)
def test_a_method_that_breaks_its_contract_is_refused(selection, words):
    with pytest.raises(SettingsError, match=f"Wrong.choose .*{words}"):
        chosen_now(selection, Budget(ipc=[2, 2, 1, 2, 2]))
