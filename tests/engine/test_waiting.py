"""Nothing in the loops of an update reads a number from the device, which would make the program wait for it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lit_condense.inner import DecreasingTraining, FreshNetwork, TrainOnSynthetic
from lit_condense.matching import ClassMeanGradientMatching, CurvatureMatching, FeatureMatching, GradientMatching
from lit_condense.synthetic.inner_training import InnerTraining
from lit_condense.synthetic.matcher import Matcher
from tests.helpers import fitted

READING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal"}
"""Operators whose result, or its shape, the host has to know before it can go on."""


class Reads(TorchDispatchMode):
    """Writes down the operators that read from the device. ``tolist`` and ``numpy`` never come by here on a CPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().split("::")[1].split(".")[0]
        if name in READING or (name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch):
    """Watch the three parts of an update: new network, matching, inner training."""
    reads, inside = Reads(), []

    def watched(part):
        def run(*args, **kwargs):
            inside.append(part)
            try:
                with reads:
                    return part(*args, **kwargs)
            finally:
                inside.pop()

        return run

    def recorded(name, published):
        def read(*args, **kwargs):
            if inside:
                reads.found.append(name)
            return published(*args, **kwargs)

        return read

    for owner, name in ((InnerTraining, "bring_in"), (Matcher, "__call__"), (InnerTraining, "advance")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    # it checks its argument, except on a GPU
    monkeypatch.setattr(F, "one_hot", lambda labels, n: (labels.unsqueeze(-1) == torch.arange(n)).long())
    for name in ("tolist", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, recorded(name, getattr(torch.Tensor, name)))
    return reads


@pytest.mark.parametrize(
    ("losses", "settings"),
    [
        ([GradientMatching], {"inner": TrainOnSynthetic(2, epochs=3)}),
        ([GradientMatching, ClassMeanGradientMatching], {"inner": DecreasingTraining(2, opening=(3, 2))}),
        ([GradientMatching, CurvatureMatching], {"inner": TrainOnSynthetic(2, epochs=1)}),
        ([FeatureMatching], {"inner": FreshNetwork()}),
    ],
    ids=["dc", "egm", "lcmat_c", "dm"],
)
def test_an_update_waits_for_nothing(reads, losses, settings):
    fitted(*(loss() for loss in losses), max_steps=4, **settings)
    assert reads.found == []


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_the_watch_sees_what_waits(reads, monkeypatch):
    published = GradientMatching.loss

    def impatient(self, real, synthetic):
        loss = published(self, real, synthetic)
        values = loss.detach().reshape(1)
        float(loss), values.tolist(), values[values > 0]
        return loss

    monkeypatch.setattr(GradientMatching, "loss", impatient)
    fitted(GradientMatching(), max_steps=1)
    assert {"_local_scalar_dense", "tolist", "index"} <= set(reads.found)
