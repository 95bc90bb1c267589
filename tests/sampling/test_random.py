from __future__ import annotations

import pytest
import torch

from lit_condense.errors import SettingsError
from lit_condense.rng import RandomKey
from lit_condense.sampling import RandomSampling
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


def test_the_published_batch_is_256_and_none_is_an_error():
    assert RandomSampling().batch_size == 256
    with pytest.raises(SettingsError, match="batch_size"):
        RandomSampling(0)
