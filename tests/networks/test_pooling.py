from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_condense.networks.pooling import HalvingAverage


@pytest.mark.parametrize("size", [(4, 4), (8, 6), (5, 7), (2, 9), (1, 4)], ids=str)
def test_it_averages_as_the_library_does_with_both_derivatives(size):
    maps = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def results(pool):
        pooled = pool(maps)
        (first,) = torch.autograd.grad(pooled.pow(3).sum(), maps, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), maps)
        return pooled, first, second

    if min(size) < 2:
        assert HalvingAverage()(maps).numel() == 0
        return
    for ours, theirs in zip(results(HalvingAverage()), results(nn.AvgPool2d(2)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
