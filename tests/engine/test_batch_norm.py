"""Batch norm while gradients are matched: frozen on statistics of real images (dc_dsa.md, section 1)."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lit_condense.engine import Block, Engine
from lit_condense.inner import TrainOnSynthetic
from lit_condense.matching import GradientMatching, Progress
from lit_condense.rng import RandomKey
from tests.helpers import TinyData, fresh_inner_network, tiny_convnet
from tests.oracles import dc as oracle

STATISTICS = RandomKey(5).fold("statistics", 0)
KEEP = {"real_batch": 0.0, "running_average": 0.9}


def inner_network(sizes=(9, 7, 9, 4, 9), norm="batch"):
    real = TinyData(sizes).real
    return fresh_inner_network(TrainOnSynthetic(), real, tiny_convnet(norm)), real


def layers(network):
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def statistics_batch(real, key=STATISTICS):
    """Sixteen images a class, or the whole class where it is smaller."""
    return real.at(torch.cat([real.random_of_class(c, 16, key.fold(c)) for c in range(real.num_classes)])).double()


def assert_same_statistics(found, wanted):
    for layer, expected in zip(layers(found), layers(wanted), strict=True):
        torch.testing.assert_close(layer.running_mean, expected.running_mean, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(layer.running_var, expected.running_var, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("sizes", [(9, 7, 9, 4, 9), (20, 18, 5)], ids=["small classes", "more than 16"])
@pytest.mark.parametrize("statistics", KEEP)
def test_the_running_statistics_come_from_one_mixed_real_batch(statistics, sizes):
    inner, real = inner_network(sizes)
    for round_number in range(2):  # a second time, with statistics of training in between
        wanted = copy.deepcopy(inner.network)
        key = STATISTICS.fold(round_number)
        oracle.freeze_batch_norm(wanted, statistics_batch(real, key), KEEP[statistics])
        with inner.frozen_batch_norm(statistics, key):
            assert_same_statistics(inner.network, wanted)
        inner.network(torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def test_the_first_running_average_is_a_tenth_of_the_way_to_the_batch():
    inner, real = inner_network()
    first = layers(inner.network)[0]
    maps = inner.network.blocks[0].conv(statistics_batch(real)).detach()
    mean, variance = oracle.channel_statistics(maps)
    with inner.frozen_batch_norm("running_average", STATISTICS):
        torch.testing.assert_close(first.running_mean, 0.1 * mean, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(first.running_var, 0.9 + 0.1 * variance, rtol=1e-11, atol=1e-13)


def test_the_statistics_of_the_batch_are_mean_and_unbiased_variance():
    inner, real = inner_network()
    first = layers(inner.network)[0]
    maps = inner.network.blocks[0].conv(statistics_batch(real)).detach()
    with inner.frozen_batch_norm("real_batch", STATISTICS):
        torch.testing.assert_close(first.running_mean, maps.mean((0, 2, 3)), rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(first.running_var, maps.var((0, 2, 3), unbiased=True), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("statistics", KEEP)
def test_both_sides_of_the_match_use_the_frozen_statistics(statistics):
    inner, real = inner_network()
    running = Engine("exact", compile="never").start(inner.network, real.at(real.indices_of(0)).double())
    wanted = copy.deepcopy(inner.network)
    oracle.freeze_batch_norm(wanted, statistics_batch(real), KEEP[statistics])
    stored = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batch = real.at(real.indices_of(3)).double()
    block = Block(
        real_images=batch[None],
        real_labels=torch.full((1, len(batch)), 3),
        stored=stored.clone().requires_grad_(),
        to_network_input=lambda images: images[None],
        synthetic_labels=torch.full((1, 2), 3),
    )
    with inner.frozen_batch_norm(statistics, STATISTICS):
        result = running.run(block, [GradientMatching()], Progress(0, 0, 0))
        # matching itself must not move the statistics
        assert_same_statistics(inner.network, wanted)

    leaf = stored.clone().requires_grad_()
    target = [g.detach() for g in oracle.network_gradient(wanted, batch, 3)]
    loss = oracle.row_cosine(target, oracle.network_gradient(wanted, leaf, 3, create_graph=True))
    assert result.losses["GradientMatching"].item() == pytest.approx(float(loss.detach()), rel=1e-10)
    torch.testing.assert_close(result.gradient, torch.autograd.grad(loss, leaf)[0], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("statistics", KEEP)
def test_batch_norm_is_in_training_mode_again_afterwards(statistics):
    inner, _ = inner_network()
    momenta = [layer.momentum for layer in layers(inner.network)]
    with inner.frozen_batch_norm(statistics, STATISTICS):
        assert not any(layer.training for layer in layers(inner.network))
        assert inner.network.training  # only batch norm is frozen
    assert all(layer.training for layer in layers(inner.network))
    assert [layer.momentum for layer in layers(inner.network)] == momenta == [0.1, 0.1]


def test_batch_norm_is_in_training_mode_again_after_an_error():
    inner, _ = inner_network()
    with pytest.raises(RuntimeError, match="stop"), inner.frozen_batch_norm("real_batch", STATISTICS):
        raise RuntimeError("stop")
    assert all(layer.training for layer in layers(inner.network))


def test_networks_without_batch_norm_pass_through():
    inner, _ = inner_network(norm="instance")
    before = {name: value.clone() for name, value in inner.network.state_dict().items()}
    with inner.frozen_batch_norm("real_batch", STATISTICS):
        assert all(m.training for m in inner.network.modules())
    assert all(torch.equal(value, before[name]) for name, value in inner.network.state_dict().items())
