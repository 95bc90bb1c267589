"""Written-out forward passes and draws shared by the tests of the networks."""

from __future__ import annotations

import torch

EPSILON = 1e-5


def pixels(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shake(network, seed=1):
    """Give every parameter a random value, so that scales of 1 and shifts of 0 hide nothing."""
    generator = torch.Generator().manual_seed(seed)
    network.double()
    for parameter in network.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.05)
    return network


def drawn(network_class, *arguments, **settings):
    """Make a network straight from drawn values, which spares a deep one its slow initialisation."""
    with torch.device("meta"):
        network = network_class(*arguments, **settings)
    assert not list(network.buffers())
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        inputs = parameter[0].numel() if parameter.ndim > 1 else 1
        parameter.data.uniform_(-1, 1, generator=generator).mul_((3 / inputs) ** 0.5)
    return network.double()


def standardised(maps, dims):
    mean = maps.mean(dims, keepdim=True)
    variance = ((maps - mean) ** 2).mean(dims, keepdim=True)
    return (maps - mean) / (variance + EPSILON).sqrt()


def instance_norm(maps, scale, shift):
    return standardised(maps, (2, 3)) * scale[:, None, None] + shift[:, None, None]
