from __future__ import annotations

from itertools import chain

import pytest
import torch

from lit_condense.errors import SettingsError
from lit_condense.matching import Progress
from lit_condense.rng import RandomKey
from lit_condense.sampling import RandomSampling
from lit_condense.sharding import Share
from tests.helpers import TINY_SIZES, TinyData

REAL = TinyData().real
KEY = RandomKey(0).fold("real", 3)


def test_a_batch_has_the_asked_size_or_the_whole_smaller_class():
    sampling = RandomSampling(6)
    for c, size in enumerate(TINY_SIZES):
        expected = min(6, size)
        assert sampling.size(REAL, c) == expected
        assert len(sampling.select(REAL, c, KEY)) == expected


@pytest.mark.parametrize("class_index", range(5))
def test_a_batch_holds_different_images_of_its_class(class_index):
    for update in range(20):
        chosen = RandomSampling(6).select(REAL, class_index, KEY.fold(update))
        assert len(set(chosen.tolist())) == len(chosen)
        assert (REAL.labels[chosen] == class_index).all()


def test_every_image_is_as_likely_as_every_other():
    draws = 600
    counts = torch.zeros(len(REAL))
    for update in range(draws):
        counts[RandomSampling(3).select(REAL, 0, KEY.fold(update))] += 1
    expected = draws * 3 / TINY_SIZES[0]
    assert counts[REAL.indices_of(0)].sub(expected).abs().max() < 5 * (expected * 2 / 3) ** 0.5


def test_the_key_alone_decides_the_batch():
    sampling = RandomSampling(6)
    assert torch.equal(sampling.select(REAL, 0, KEY), RandomSampling(6).select(REAL, 0, KEY))
    assert not torch.equal(sampling.select(REAL, 0, KEY), sampling.select(REAL, 0, KEY.fold(1)))


def test_a_larger_batch_begins_with_the_smaller_one():
    # so that the batch size of one run does not reshuffle another's draws
    small, large = (RandomSampling(n).select(REAL, 0, KEY) for n in (3, 6))
    assert torch.equal(large[:3], small)


def test_batches_can_go_through_each_class_in_epochs_without_what_is_left():
    sampling, drawn = RandomSampling(3, batches="epochs"), []
    for update in range(12):
        sampling.refresh(REAL, None, Progress(update, update // 4, update % 4), KEY.fold(update), Share())
        drawn.append([sampling.select(REAL, c, RandomKey(0).fold("real", update, c)).tolist() for c in range(5)])
    for c, size in enumerate(TINY_SIZES):
        per_pass = max(1, size // 3)
        for first in range(0, 12 - per_pass + 1, per_pass):
            together = list(chain(*(drawn[update][c] for update in range(first, first + per_pass))))
            assert len(set(together)) == len(together) == per_pass * min(3, size)
            assert (REAL.labels[torch.tensor(together)] == c).all()
        order = torch.randperm(size, generator=RandomKey(0).fold("walk", "class", c, "pass", 0).generator())
        assert drawn[0][c] == REAL.indices_of(c)[order[:3]].tolist()


def test_a_walk_goes_on_where_a_run_does():
    one, other = (RandomSampling(3, batches="epochs") for _ in range(2))
    for update in range(6):
        one.refresh(REAL, None, Progress(update, 0, update), KEY, Share())
    other.refresh(REAL, None, Progress(5, 0, 5), KEY, Share())
    assert torch.equal(one.select(REAL, 0, KEY), other.select(REAL, 0, KEY))


def test_the_published_batch_is_256_and_none_is_an_error():
    assert RandomSampling().batch_size == 256
    with pytest.raises(SettingsError, match="batch_size"):
        RandomSampling(0)
    with pytest.raises(SettingsError, match=r"RandomSampling\.batches to be 'anew' or 'epochs', got 'all'"):
        RandomSampling(batches="all")
