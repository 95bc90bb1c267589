"""Starts have a room of their own; the names that they had before keep working for one release."""

from __future__ import annotations

import pytest

import lit_condense.init
from lit_condense import parametrization
from tests.cli_helpers import cli, write_config


@pytest.mark.parametrize("name", parametrization.MOVED)
def test_an_old_name_is_the_new_class_and_says_where_it_is(name):
    with pytest.warns(FutureWarning, match=rf"has moved to lit_condense\.init\.{name}"):
        assert getattr(parametrization, name) is getattr(lit_condense.init, name)


def test_nothing_else_is_found_there():
    with pytest.raises(AttributeError, match="no attribute 'Noize'"):
        _ = parametrization.Noize


def test_a_config_with_an_old_name_still_runs(tmp_path):
    start = {"class_path": "lit_condense.parametrization.RandomReal"}
    with pytest.warns(FutureWarning, match=r"lit_condense\.init\.RandomReal"):
        done = cli("fit", *write_config(tmp_path, init=start))
    assert type(done.model.init) is lit_condense.init.RandomReal
