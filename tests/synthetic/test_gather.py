"""What an update gathers, how often, and where the gradient of a block belongs."""

from __future__ import annotations

import pytest
import torch

from lit_condense.augmentation import OneOf
from lit_condense.engine import Engine
from lit_condense.matching import ClassMeanGradientMatching, FeatureMatching, GradientMatching
from lit_condense.parametrization import MultiFormation, Pixels
from lit_condense.rng import RandomKey
from lit_condense.sampling import RandomSampling
from lit_condense.sharding import Share
from lit_condense.synthetic import Gatherer
from tests.helpers import TinyData, fitted

REAL = TinyData().real
COUNTS = [2, 1, 3, 2, 2]


def gatherer(parametrization=None, update=4):
    stored = torch.randn(sum(COUNTS), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.repeat_interleave(torch.arange(5), torch.tensor(COUNTS))
    storage, key = parametrization or Pixels(), RandomKey(3)
    return Gatherer(REAL, stored, labels, COUNTS, RandomSampling(4), storage, OneOf(), key, update)


def seen(block):
    return block.to_network_input(block.stored).detach()


@pytest.mark.parametrize("storage", [Pixels(), MultiFormation(2, most_matched=3)], ids=["pixels", "cells"])
def test_a_block_of_classes_is_their_own_blocks_side_by_side(storage):
    gather = gatherer(storage)
    both, alone = gather.block([0, 4]), [gather.block([c]) for c in (0, 4)]
    for name in ("real_images", "real_labels", "stored", "synthetic_labels"):
        assert torch.equal(getattr(both, name), torch.cat([getattr(block, name) for block in alone])), name
    assert torch.equal(seen(both), torch.cat([seen(block) for block in alone]))
    assert both.keys == alone[0].keys + alone[1].keys
    assert both.real_labels.tolist() == [[0] * 4, [4] * 4]
    assert both.synthetic_labels.tolist() == [[0] * len(seen(both)[0]), [4] * len(seen(both)[1])]


@pytest.mark.parametrize("storage", [Pixels(), MultiFormation(2, most_matched=3)], ids=["pixels", "cells"])
def test_without_its_real_images_a_block_is_the_same(storage):
    gather = gatherer(storage)
    full, half = gather.block([3]), gather.block([3], with_real=False)
    assert half.real_images is None
    assert half.real_labels is None
    assert torch.equal(seen(half), seen(full))
    assert half.keys == full.keys


def test_the_update_names_the_draws():
    one, again, other = (gatherer(MultiFormation(2, most_matched=3), update) for update in (4, 4, 5))
    assert torch.equal(one.block([2]).real_images, again.block([2]).real_images)
    assert not torch.equal(one.block([2]).real_images, other.block([2]).real_images)
    assert torch.equal(seen(one.block([2])), seen(again.block([2])))
    assert not torch.equal(seen(one.block([2])), seen(other.block([2])))


def test_the_whole_is_one_block_of_all_classes():
    gather = gatherer()
    whole, alone = gather.whole(), [gather.block([c]) for c in range(5)]
    assert torch.equal(whole.stored, gather.stored)
    assert torch.equal(whole.real_images[0], torch.cat([block.real_images[0] for block in alone]))
    assert torch.equal(seen(whole)[0], torch.cat([seen(block)[0] for block in alone]))
    assert torch.equal(whole.synthetic_labels[0], gather.labels)
    assert len(whole.keys) == 1


def test_what_belongs_to_blocks_goes_back_to_the_rows_of_their_classes_and_adds_up():
    gather = gatherer()
    ones = torch.ones(1, 1, 8, 8)
    part = torch.cat([1 * ones, 2 * ones, 3 * ones, 4 * ones])
    total = gather.scatter([([0, 4], part), ([2], 10 * torch.cat([ones] * 3)), (range(5), torch.ones(10, 1, 8, 8))])
    assert total[:, 0, 0, 0].tolist() == [2, 3, 1, 11, 11, 11, 1, 1, 4, 5]
    assert not gather.scatter([]).any()


@pytest.mark.parametrize(("rank", "mine"), [(0, [[0], [2], [4]]), (1, [[1], [3]])])
def test_a_rank_has_its_classes_cut_into_blocks_of_one_size(rank, mine):
    # neighbours of different sizes cannot be stacked
    assert gatherer().blocks(Share(rank, 2), per_block=3) == mine
    assert gatherer().blocks(Share(), 3) == [[0], [1], [2], [3, 4]]


class Asked(RandomSampling):
    """Writes down for which draws it is asked."""

    def __init__(self):
        super().__init__(4)
        self.paths = []

    def select(self, real, class_index, key):
        self.paths.append(key.path)
        return super().select(real, class_index, key)


@pytest.mark.parametrize(
    "losses",
    [
        [GradientMatching()],
        [ClassMeanGradientMatching()],
        [GradientMatching(), ClassMeanGradientMatching()],
        [FeatureMatching(joint=True)],
    ],
    ids=["class", "mean", "class and mean", "set"],
)
def test_the_real_images_of_a_class_are_gathered_once_an_update(losses):
    sampling = Asked()
    fitted(*losses, sampling=sampling, engine=Engine(classes_per_block=3), max_steps=3)
    # the trial before the first update, and a look at every index at it, ask too
    drawn = [path for path in sampling.paths if path[0] == "real" and path[1] > 0]
    assert sorted(drawn) == [("real", update, c) for update in (1, 2) for c in range(5)]
