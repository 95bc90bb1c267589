from __future__ import annotations

import ast
import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_condense import rng
from lit_condense.errors import SettingsError
from lit_condense.rng import RandomKey, run_seed

# what `printf "(7, 'real', 12, 4)" | b2sum --length 64` prints
KNOWN_NUMBERS = {
    RandomKey(0): 0xC8238C97D6320A49,
    RandomKey(0).fold("network", 3): 0x68DAED7E3B21479D,
    RandomKey(7).fold("real", 12, 4): 0xBD7B79DAD4E9D7D9,
    RandomKey(123456789012345).fold("a", "b"): 0x8D9F8DEF76738968,
}

paths = st.lists(st.one_of(st.integers(-5, 5), st.text(max_size=3)), max_size=4).map(tuple)


def global_draws():
    return torch.rand(2).tolist(), random.random(), np.random.rand()  # noqa: NPY002 - global on purpose


def global_states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


@pytest.mark.parametrize("key", KNOWN_NUMBERS, ids=str)
def test_numbers_never_change_between_versions_and_machines(key):
    assert key.number() == KNOWN_NUMBERS[key]


def test_the_generator_starts_from_the_number():
    key = RandomKey(7).fold("real", 12, 4)
    assert key.generator().initial_seed() == key.number()
    assert torch.rand(4, generator=key.generator()).equal(torch.rand(4, generator=key.generator()))


def test_the_whole_state_of_a_generator_follows_from_the_key():
    key = RandomKey(7).fold("real", 12, 4)
    # NumPy's generator is the same Mersenne Twister, and takes 624 words as they are
    words = np.frombuffer(hashlib.shake_256(b"(7, 'real', 12, 4)").digest(4 * 624), dtype="<u4")
    oracle = np.random.RandomState()
    oracle.set_state(("MT19937", words, 624))
    expected = oracle.randint(0, 2**32, 2000, dtype=np.uint32) % 1000
    assert torch.randint(0, 1000, (2000,), generator=key.generator()).tolist() == expected.tolist()


def keys_that_share_32_bits():
    """Two keys whose numbers end in the same 32 bits: by the birthday rule among some 80,000 keys."""
    seen = {}
    for i in range(2_000_000):
        key = RandomKey(0).fold("draw", i)
        other = seen.setdefault(key.number() % 2**32, key)
        if other is not key:
            return other, key
    raise AssertionError("expected a pair")


def test_keys_that_share_the_low_32_bits_draw_differently():
    one, other = keys_that_share_32_bits()
    assert one.number() % 2**32 == other.number() % 2**32
    assert one.number() != other.number()
    low = [torch.rand(8, generator=torch.Generator().manual_seed(key.number())) for key in (one, other)]
    assert low[0].equal(low[1])  # why a seed is not enough
    assert not torch.rand(8, generator=one.generator()).eq(torch.rand(8, generator=other.generator())).any()
    with one.isolated():
        first = global_draws()
    with other.isolated():
        second = global_draws()
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_another_layout_of_the_state_is_refused(monkeypatch):
    rng._empty_state.cache_clear()
    monkeypatch.setattr(rng, "WORDS_AT", 32)
    try:
        with pytest.raises(SettingsError, match="Mersenne Twister"):
            RandomKey(0).generator()
    finally:
        rng._empty_state.cache_clear()


@settings(deadline=None)
@given(st.integers(0, 2**32), paths)
def test_numbers_are_valid_seeds(seed, path):
    assert 0 <= RandomKey(seed, path).number() < 2**64


@settings(deadline=None)
@given(st.integers(0, 3), paths, st.integers(0, 3), paths)
def test_different_keys_have_different_numbers(seed, path, other_seed, other_path):
    same = (seed, path) == (other_seed, other_path)
    assert (RandomKey(seed, path).number() == RandomKey(other_seed, other_path).number()) == same


@settings(deadline=None)
@given(paths, paths)
def test_folding_at_once_or_step_by_step_is_the_same(first, second):
    assert RandomKey(1).fold(*first).fold(*second) == RandomKey(1).fold(*first, *second)


def test_a_number_and_its_text_are_different_parts():
    assert RandomKey(0).fold(1).number() != RandomKey(0).fold("1").number()


def test_a_key_is_not_changed_by_folding():
    key = RandomKey(3).fold("a")
    key.fold("b")
    assert key == RandomKey(3, ("a",))


def test_isolated_restores_every_global_generator():
    before = global_states()
    with RandomKey(1).isolated():
        global_draws()
    assert global_states() == before


def test_isolated_restores_after_an_error():
    before = global_states()
    with pytest.raises(RuntimeError, match="stop"), RandomKey(1).isolated():
        global_draws()
        raise RuntimeError("stop")
    assert global_states() == before


def test_draws_inside_isolated_follow_from_the_key_alone():
    with RandomKey(1).isolated():
        first = global_draws()
    global_draws()
    with RandomKey(1).isolated():
        again = global_draws()
    with RandomKey(2).isolated():
        other = global_draws()
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_isolated_blocks_nest():
    with RandomKey(1).isolated():
        global_draws()
        expected = global_draws()
    with RandomKey(1).isolated():
        global_draws()
        with RandomKey(2).isolated():
            global_draws()
        assert global_draws() == expected


def test_generators_leave_the_global_ones_alone():
    before = global_states()
    torch.randn(5, generator=RandomKey(1).generator())
    assert global_states() == before


def test_the_seed_is_the_given_one_else_that_of_seed_everything_else_zero(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "41")
    assert run_seed(5) == 5
    assert run_seed(0) == 0
    assert run_seed(None) == 41
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert run_seed(None) == 0


def first_words():
    """The first word of every path that the library folds into a run's key, read from its source."""
    for path in sorted((Path(rng.__file__).parent).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fold"):
                continue
            receiver = node.func.value
            of_run = isinstance(receiver, ast.Attribute) and receiver.attr in ("key", "_key")
            made = isinstance(receiver, ast.Call) and getattr(receiver.func, "id", "") == "RandomKey"
            if of_run or made:
                assert isinstance(node.args[0], ast.Constant), ast.unparse(node)
                yield node.args[0].value


def test_the_purposes_of_draws_are_a_closed_list():
    # the trial gets the run's key as an argument
    assert {*first_words(), "trial"} == set(rng.PURPOSES)
