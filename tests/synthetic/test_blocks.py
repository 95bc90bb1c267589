from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_condense.engine import Engine
from lit_condense.errors import SettingsError
from lit_condense.synthetic.blocks import cut_classes


@st.composite
def works(draw):
    """Some classes of a data set, in order, the sizes of all its classes, and a block size."""
    sizes = draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=12))
    rank, world = draw(st.integers(0, 2)), draw(st.integers(1, 3))
    return list(range(len(sizes)))[rank::world], sizes, draw(st.integers(1, 14))


@settings(deadline=None)
@given(works())
def test_every_class_is_in_exactly_one_block_and_the_order_stays(work):
    classes, sizes, per_block = work
    assert [c for block in cut_classes(classes, sizes, per_block) for c in block] == classes


@settings(deadline=None)
@given(works())
def test_no_block_is_empty_or_larger_than_asked(work):
    classes, sizes, per_block = work
    assert all(1 <= len(block) <= per_block for block in cut_classes(classes, sizes, per_block))


@settings(deadline=None)
@given(works())
def test_classes_of_a_block_bring_the_same_numbers_of_images(work):
    classes, sizes, per_block = work
    assert all(len({sizes[c] for c in block}) == 1 for block in cut_classes(classes, sizes, per_block))


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 40))
def test_equal_classes_need_as_few_blocks_as_possible(count, per_block):
    assert len(cut_classes(range(count), [(256, 10)] * count, per_block)) == -(-count // per_block)


def test_a_smaller_class_has_its_own_block():
    sizes = [(6, 2), (6, 2), (4, 2), (6, 2), (6, 2)]
    assert cut_classes(range(5), sizes, 5) == [[0, 1], [2], [3, 4]]


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"mode": "quick"}, "mode"), ({"compile": True}, "compile"), ({"classes_per_block": 0}, "classes_per_block")],
)
def test_wrong_settings_of_the_engine_are_refused(settings, named):
    with pytest.raises(SettingsError, match=named):
        Engine(**settings)
