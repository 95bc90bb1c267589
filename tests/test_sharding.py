from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_condense.sharding import Share
from tests.helpers import quiet_trainer


@settings(deadline=None)
@given(st.lists(st.integers(), max_size=30), st.integers(1, 9))
def test_the_ranks_take_every_item_exactly_once(work, world_size):
    taken = [Share(rank, world_size).take(range(len(work))) for rank in range(world_size)]
    assert sorted(item for part in taken for item in part) == list(range(len(work)))


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(1, 9))
def test_no_rank_has_more_than_one_item_more_than_another(count, world_size):
    sizes = [len(Share(rank, world_size).take(range(count))) for rank in range(world_size)]
    assert max(sizes) - min(sizes) <= 1


def test_a_rank_takes_every_so_manieth_item_in_order():
    assert Share(1, 3).take("abcdefgh") == ["b", "e", "h"]


def test_a_single_process_does_everything_itself():
    values = torch.tensor([1.0, 2.0])
    share = Share()
    assert share.take([3, 1, 2]) == [3, 1, 2]
    assert torch.equal(share.sum(values), torch.tensor([1.0, 2.0]))
    share.broadcast([values])
    assert values.tolist() == [1.0, 2.0]


def test_the_share_of_a_trainer_on_one_device_is_the_whole():
    assert Share.of(quiet_trainer()) == Share(0, 1)
