"""The sets behind the tables of README and docs: every row ships its own, and they give what their cards say."""

from __future__ import annotations

import functools
import json

import pytest
import torch

from lit_condense.data import Digits
from lit_condense.evaluation import Evaluation, Evaluator, SmallSet
from lit_condense.export import load_condensed
from lit_condense.export.condensed_set import FILE_NAME, SHIPPED, shipped
from lit_condense.networks import ConvNet
from lit_condense.rng import RandomKey

JUDGED_AGAIN = ("dc_digits_ipc1", "dc_digits_ipc10")
"""Their data come with scikit-learn."""

NETWORKS = 3


def test_every_card_has_its_set_and_its_picture_beside_it():
    folders = {path.parent for path in SHIPPED.glob("**/card.json")}
    assert folders == {path.parent for path in SHIPPED.glob(f"**/{FILE_NAME}")}
    assert folders


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_set_loads_by_name_and_is_what_its_card_says(name):
    images, labels, card = load_condensed(name)
    assert tuple(images.shape[1:]) == tuple(card["data"]["image_shape"])
    assert len(images) == len(labels)
    assert torch.bincount(labels).tolist() == [
        decoded * len(labels) // sum(card["ipc"]) for decoded in card["ipc"]
    ]  # several images are decoded from each stored one
    judged = card["evaluation"]["condensed"][0]
    assert len(judged["accuracies"]) == judged["networks"]
    assert "start" in card["evaluation"]
    beside = json.loads((SHIPPED / name / "card.json").read_text())
    assert beside == card


@pytest.mark.parametrize("name", JUDGED_AGAIN)
def test_a_shipped_set_in_half_precision_scores_what_its_card_says(name):
    condensed = load_condensed(name)
    data = Digits()
    # by another number of threads sums round differently, and half precision rounds too: one image of 355 may flip
    found = judged_again(condensed, data)
    said = condensed.card["evaluation"]["condensed"][0]["accuracies"][:NETWORKS]
    assert found == pytest.approx(said, abs=0.012)
    assert sum(found) / NETWORKS == pytest.approx(sum(said) / NETWORKS, abs=0.006)


def judged_again(condensed, data):
    images, labels, card = condensed
    protocol = card["evaluation"]["condensed"][0]["recipe"]["protocol"]
    cpu = torch.device("cpu")
    judge = Evaluator(Evaluation(protocol), data.test, data.dataset_name, RandomKey(card["seed"]), cpu)
    # the name of a network is part of the key that its initial weights are drawn by
    changed = card["method"]["model"]["network"]["init_args"]
    network = functools.partial(ConvNet, width=changed["width"], depth=changed["depth"])
    normalised = SmallSet(data.real.normalization.normalize(images), labels)
    repeats = card["evaluation"]["condensed"][0]["networks"]
    return judge.accuracies(network, range(NETWORKS), lambda _: normalised, repeats)[0]
