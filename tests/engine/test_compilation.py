"""Compiled regions: what they cost is counted, what cannot be compiled runs without, many runs fit in a process."""

from __future__ import annotations

import warnings

import pytest
import torch

from lit_condense.engine import compilation
from lit_condense.engine.compilation import DOUBLE_BACKWARD_COMPILES, Clock, CompiledFunction


def doubled(x):
    return 2 * x


def untraceable(x):
    torch._dynamo.graph_break()
    return 2 * x


def test_without_compiling_a_region_is_its_function():
    clock = Clock()
    assert CompiledFunction(doubled, False, clock)(torch.ones(2)).tolist() == [2, 2]
    assert clock.seconds == 0


def test_the_clock_counts_the_calls_that_compile_and_no_others():
    clock = Clock()
    region = CompiledFunction(doubled, True, clock)
    assert region(torch.ones(3)).tolist() == [2, 2, 2]
    first = clock.taken()
    assert first > 0
    region(torch.zeros(3))
    assert clock.taken() == 0
    region(torch.zeros(4))
    assert clock.taken() > 0


def test_what_cannot_become_one_graph_runs_without_and_says_so_once():
    clock = Clock()
    region = CompiledFunction(untraceable, True, clock, fullgraph=True)
    with pytest.warns(UserWarning, match=r"torch.compile does not work here \(.+\); going on without it, slower"):
        assert region(torch.ones(2)).tolist() == [2, 2]
    assert not region.compiled
    assert clock.taken() > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert region(torch.ones(5)).tolist() == [2] * 5
    assert clock.taken() == 0


def test_a_region_that_may_break_is_compiled_in_parts():
    region = CompiledFunction(untraceable, True, Clock())
    assert region(torch.ones(2)).tolist() == [2, 2]
    assert region.compiled


def test_settings_of_dynamo_are_put_back():
    before = torch._dynamo.config.recompile_limit
    CompiledFunction(doubled, True, Clock())(torch.ones(7))
    assert torch._dynamo.config.recompile_limit == before


def test_more_shapes_than_dynamo_allows_are_all_compiled():
    def squared(x):
        return x * x

    clock, compiled = Clock(), []
    for size in range(1, 12):
        CompiledFunction(squared, True, clock)(torch.ones(size))
        compiled.append(clock.taken() > 0)
    assert compiled == [True] * 11


@pytest.mark.skipif(not DOUBLE_BACKWARD_COMPILES, reason="needs torch 2.11")
def test_both_derivatives_fit_in_one_region():
    weight = torch.tensor([2.0, -1.0], requires_grad=True)

    def twice(x):
        x = x.detach().requires_grad_()
        gradient = torch.autograd.grad((weight * x).pow(3).sum(), weight, create_graph=True)[0]
        return torch.autograd.grad(gradient.sum(), x)[0].detach()

    region = CompiledFunction(twice, True, Clock(), fullgraph=True)
    x = torch.tensor([1.0, 3.0])
    # d/dx of 3 w^2 x^3 is 9 w^2 x^2
    torch.testing.assert_close(region(x), 9 * weight.detach() ** 2 * x**2)
    assert region.compiled


def test_more_versions_of_one_graph_than_allowed_go_on_without(monkeypatch):
    monkeypatch.setattr(compilation, "WANTED", {**compilation.WANTED, "recompile_limit": 1, "cache_size_limit": 1})
    clock = Clock()
    region = CompiledFunction(lambda x: 2 * x + 1, True, clock, fullgraph=True, otherwise=lambda x: x - x)
    with pytest.warns(UserWarning, match="going on without") as said:
        found = [region(torch.ones(n)).sum().item() for n in range(2, 6)]
    assert len(said) == 1
    assert found[0] == 6
    assert found[-1] == 0  # what is called instead
    assert not region.compiled
    assert clock.failed
    assert not CompiledFunction(lambda x: x, True, clock).compiled  # of the same run: it does not try again
