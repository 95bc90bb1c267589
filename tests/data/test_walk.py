from __future__ import annotations

from itertools import chain

import pytest
import torch

from lit_condense.data.walk import walked
from lit_condense.rng import RandomKey

KEY = RandomKey(3).fold("walk")


def batches(images, size, count, **settings):
    return [walked(images, size, number, KEY, **settings).tolist() for number in range(count)]


@pytest.mark.parametrize(("images", "size", "per_pass"), [(12, 4, 3), (14, 4, 4), (3, 8, 1), (5, 1, 5)])
def test_a_pass_holds_every_image_once_and_the_next_has_another_order(images, size, per_pass):
    found = batches(images, size, 3 * per_pass)
    passes = [list(chain(*found[p * per_pass : (p + 1) * per_pass])) for p in range(3)]
    assert all(sorted(one) == list(range(images)) for one in passes)
    assert len({tuple(one) for one in passes}) > 1
    assert all(len(batch) == min(size, images) for batch in found[: per_pass - 1])


def test_a_pass_is_the_keyed_shuffle_cut_up_by_hand():
    wanted = []
    for passed in range(2):
        order = torch.randperm(8, generator=KEY.fold("pass", passed).generator()).tolist()
        wanted += [order[:3], order[3:6], order[6:]]
    assert batches(8, 3, 6) == wanted


@pytest.mark.parametrize(("images", "size", "per_pass"), [(12, 4, 3), (13, 4, 3), (3, 8, 1)])
def test_what_is_left_at_the_end_of_a_pass_can_be_left_out(images, size, per_pass):
    found = batches(images, size, 2 * per_pass, keep_short=False)
    assert all(len(batch) == min(size, images) for batch in found)
    for p in range(2):
        together = list(chain(*found[p * per_pass : (p + 1) * per_pass]))
        assert len(set(together)) == len(together)


def test_a_batch_follows_from_its_number_alone():
    assert walked(50, 8, 11, KEY).tolist() == batches(50, 8, 12)[11]
    assert walked(50, 8, 11, KEY.fold(1)).tolist() != batches(50, 8, 12)[11]


def test_a_rest_of_one_image_joins_the_batch_before_it():
    found = batches(9, 4, 4)
    assert [len(batch) for batch in found] == [4, 5, 4, 5]
    assert [sorted(found[i] + found[i + 1]) for i in (0, 2)] == [list(range(9))] * 2
    assert [len(batch) for batch in batches(9, 4, 4, keep_short=False)] == [4] * 4
