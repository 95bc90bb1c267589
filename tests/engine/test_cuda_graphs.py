"""Recorded work: what is replayed is what would be called. A stand-in replays here, a GPU in tests/test_gpu.py."""

from __future__ import annotations

import pytest
import torch

from lit_condense.engine import cuda_graphs
from lit_condense.engine.cuda_graphs import MOST_RECORDINGS, WARM_UPS, CudaGraphed, copied
from tests.distributed.cases import run

LOSSES = ("class", "mean", "contrastive", "curvature", "features", "everything", "importance")
RECORDED = (*LOSSES, "momentum", "real", "dream")
"""Runs of every kind of loss, and of a network trained on either side."""


def stand_in(call):
    """What a CUDA graph does: reads the arguments where they were, writes the outputs where they are."""
    for _ in range(WARM_UPS):
        call()
    outputs = call()

    def replay():
        for kept_output, output in zip(outputs, call(), strict=True):
            if kept_output is not None:
                kept_output.data.copy_(output)

    return replay, outputs


@pytest.fixture
def replayed(monkeypatch):
    """Count recordings of a stand-in, which a CPU can make."""
    recordings = []

    def counted(call):
        recordings.append(call)
        return stand_in(call)

    monkeypatch.setattr(cuda_graphs, "cuda_graph", counted)
    return recordings


def scaled(weight):
    return lambda x: (x * weight, None, x.sum().view(1))


def test_it_replays_with_other_arguments_and_weights_changed_in_place(replayed):
    weight = torch.tensor([2.0, 3.0])
    function = CudaGraphed(scaled(weight), [weight], recorded=True)
    first = function(torch.tensor([1.0, 1.0]))
    assert torch.equal(first[0], torch.tensor([2.0, 3.0]))
    lasting = copied(first)
    weight.mul_(10)
    again = function(torch.tensor([1.0, 2.0]))
    assert [t if t is None else t.tolist() for t in again] == [[20.0, 60.0], None, [3.0]]
    assert first[0].tolist() == [20.0, 60.0]  # overwritten, as documented
    assert [t if t is None else t.tolist() for t in lasting] == [[2.0, 3.0], None, [2.0]]
    assert len(replayed) == 1


def test_every_shape_has_a_recording_and_moved_weights_need_new_ones(replayed):
    weight = torch.nn.Parameter(torch.ones(1))
    function = CudaGraphed(lambda x: ((x * weight).detach(),), [weight], recorded=True)
    for length in (1, 2, 1, 2):
        function(torch.ones(length))
    assert len(replayed) == 2
    weight.data = torch.full((1,), 5.0)
    assert function(torch.ones(2))[0].tolist() == [5.0, 5.0]
    assert len(replayed) == 3
    for length in range(1, MOST_RECORDINGS + 3):
        assert len(function(torch.ones(length))[0]) == length
    assert len(replayed) == 2 + MOST_RECORDINGS


def test_where_recording_fails_it_calls_and_says_so_once(monkeypatch, recwarn):
    def fails(call):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(cuda_graphs, "cuda_graph", fails)
    function = CudaGraphed(lambda x: (2 * x,), [], recorded=True)
    assert [function(torch.ones(1))[0].item() for _ in range(3)] == [2.0] * 3
    assert not function.recorded
    told = [str(w.message) for w in recwarn if "CUDA graph" in str(w.message)]
    assert len(told) == 1
    assert "operation not permitted when stream is capturing" in told[0]


@pytest.mark.parametrize("case", RECORDED)
def test_a_recorded_run_is_the_run(case, replayed, monkeypatch):
    called = run(case)
    assert not replayed
    monkeypatch.setattr("lit_condense.engine.execution_plan.RECORDED", {"cpu"})
    found = run(case)
    assert replayed
    torch.testing.assert_close(found["images"], called["images"], rtol=0, atol=1e-6)
    assert found["logged"] == pytest.approx(called["logged"], rel=1e-5, nan_ok=True)
